//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// Enabled tells whether this build obeys ANCHORMESH_FAILPOINTS.
const Enabled = true

var points = mustParse(os.Getenv("ANCHORMESH_FAILPOINTS"))

func mustParse(spec string) map[string]*point {
	parsed, err := parse(spec)
	if err != nil {
		fmt.Fprintf(os.Stderr, "ANCHORMESH_FAILPOINTS: %v\n", err)
		os.Exit(2)
	}
	return parsed
}

// Hit marks a step and carries out what the environment asks for there.
func Hit(name string) {
	p := points[name]
	if p == nil || p.hits.Add(1) < p.from {
		return
	}
	switch p.action {
	case crash:
		fmt.Fprintf(os.Stderr, "failpoint %s: crash\n", name)
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case panics:
		panic("failpoint " + name)
	case sleep:
		time.Sleep(p.delay)
	}
}
