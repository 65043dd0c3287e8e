package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Ports are taken from [portMin, portMax), below Linux's and macOS's default
// ranges of source ports (32768 and 49152 upwards).
const (
	portMin   = 12000
	portMax   = 32000
	portTries = 2000 // random picks before giving up; a machine that full is not ours to test on
)

// errNoPorts is returned when portTries random ports were all in use.
var errNoPorts = errors.New("cluster: no free ports")

// portLock is a port that no other process of ours will pick.
type portLock struct {
	port int
	file *os.File // holds the lock while open
}

// reservePorts returns n ports that are free for TCP and UDP on loopback.
func reservePorts(n int) ([]portLock, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("anchormesh-ports-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var locks []portLock
	for range portTries {
		if len(locks) == n {
			return locks, nil
		}
		port := portMin + rand.IntN(portMax-portMin)
		if lock, ok := tryPort(dir, port); ok {
			locks = append(locks, lock)
		}
	}
	releasePorts(locks)
	return nil, errNoPorts
}

func releasePorts(locks []portLock) {
	for _, lock := range locks {
		lock.file.Close()
	}
}

func tryPort(dir string, port int) (portLock, bool) {
	file, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(port)), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return portLock{}, false
	}
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil || !portFree(port) {
		file.Close()
		return portLock{}, false
	}
	return portLock{port: port, file: file}, true
}

func portFree(port int) bool {
	addr := loopback(port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	l.Close()
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	p.Close()
	return true
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
