package cluster

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Usage is what a node has cost so far.
type Usage struct {
	CPU     time.Duration // user and system time of all incarnations; resolution 10 ms while one runs
	RSS     int64         // resident bytes now; 0 if not running
	PeakRSS int64         // highest resident bytes of the current incarnation; 0 if not running
	// Anon and File are what RSS is made of: memory of the process's own, which it alone can
	// give back, and pages of files (the program, the store), which the system takes back as
	// soon as it wants to.
	Anon, File int64
}

// clockTick is the unit of /proc/PID/stat on every Linux that Go supports.
const clockTick = 10 * time.Millisecond

// procUsage reads the usage of a running process.
func procUsage(pid int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Usage{}, err
	}
	cpu, err := parseStat(stat)
	if err != nil {
		return Usage{}, fmt.Errorf("cluster: /proc/%d/stat: %w", pid, err)
	}
	return Usage{
		CPU:     cpu,
		RSS:     statusBytes(status, "VmRSS:"),
		PeakRSS: statusBytes(status, "VmHWM:"),
		Anon:    statusBytes(status, "RssAnon:"),
		File:    statusBytes(status, "RssFile:"),
	}, nil
}

// parseStat returns utime+stime, fields 14 and 15 of proc_pid_stat(5). Field 2
// is the program's name in parentheses and may hold anything, so counting
// starts behind the last parenthesis, at field 3.
func parseStat(stat []byte) (time.Duration, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("only %d fields", len(fields))
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// statusBytes returns a "Name:  123 kB" line of /proc/PID/status in bytes; 0 if
// there is none.
func statusBytes(status []byte, name string) int64 {
	for line := range bytes.Lines(status) {
		fields := bytes.Fields(line)
		if len(fields) >= 2 && string(fields[0]) == name {
			kb, _ := strconv.ParseInt(string(fields[1]), 10, 64)
			return kb << 10
		}
	}
	return 0
}
