package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Machine is where a comparison ran. Fields that the system does not tell are
// empty.
type Machine struct {
	CPU         string        `json:"cpu"`
	CPUs        int           `json:"cpus"`
	MemoryBytes int64         `json:"memory_bytes"`
	Kernel      string        `json:"kernel"`
	Go          string        `json:"go"`
	LoadAverage string        `json:"load_average"` // before the first run: 1, 5, 15 minutes
	FileSystem  string        `json:"file_system"`  // of the data directories
	Fsync       time.Duration `json:"fsync_ns"`     // median of appending 2 KiB and syncing, before the first run
}

func (m Machine) String() string {
	return fmt.Sprintf("%s x %d, %.1f GiB, Linux %s, %s, data on %s, fsync of 2 KiB %s, load average %s",
		m.CPU, m.CPUs, float64(m.MemoryBytes)/(1<<30), m.Kernel, m.Go, m.FileSystem, m.Fsync.Round(time.Microsecond), m.LoadAverage)
}

// DescribeMachine describes this machine; dir is where data will be.
func DescribeMachine(dir string) (Machine, error) {
	fsync, err := measureFsync(dir)
	if err != nil {
		return Machine{}, err
	}
	return Machine{
		CPU:         fileField("/proc/cpuinfo", "model name"),
		CPUs:        runtime.NumCPU(),
		MemoryBytes: kibibytes(fileField("/proc/meminfo", "MemTotal")),
		Kernel:      fileText("/proc/sys/kernel/osrelease"),
		Go:          runtime.Version(),
		LoadAverage: loadAverage(),
		FileSystem:  fileSystem(dir),
		Fsync:       fsync,
	}, nil
}

const (
	fsyncRounds = 101
	fsyncBytes  = 2 << 10
)

// measureFsync tells what one synced append costs on the disk of dir: it bounds
// what one client can put per second.
func measureFsync(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "fsync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := bytes.Repeat([]byte{'x'}, fsyncBytes)
	took := make([]time.Duration, fsyncRounds)
	for i := range took {
		begin := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took[i] = time.Since(begin)
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

func fileText(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// fileField returns the value of the first "name : value" line.
func fileField(path, name string) string {
	for line := range strings.Lines(fileText(path)) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func kibibytes(text string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	return n << 10
}

func loadAverage() string {
	fields := strings.Fields(fileText("/proc/loadavg"))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

// fileSystem returns type and device of the mount that holds dir. On a tmpfs
// syncing costs nothing and no comparison of puts means anything.
func fileSystem(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	best, found := "", ""
	for line := range strings.Lines(fileText("/proc/mounts")) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < len(best) || !within(abs, f[1]) {
			continue
		}
		best, found = f[1], f[2]+" ("+f[0]+")"
	}
	return found
}

func within(path, mount string) bool {
	return mount == "/" || path == mount || strings.HasPrefix(path, mount+"/")
}

// MachineBusy returns the CPU time that all processes used since boot: the
// first line of /proc/stat without its idle and iowait (fields 4 and 5) and
// without guest times, which are already in user time.
func MachineBusy() time.Duration {
	line, _, _ := strings.Cut(fileText("/proc/stat"), "\n")
	fields := strings.Fields(line)
	var ticks int64
	for i := 1; i < len(fields) && i <= 8; i++ {
		if i == 4 || i == 5 {
			continue
		}
		n, _ := strconv.ParseInt(fields[i], 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
