//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// Enabled tells whether this build obeys ANCHORMESH_FAILPOINTS.
const Enabled = true

var points = mustParse(os.Getenv("ANCHORMESH_FAILPOINTS"))

// severed is true while the process is cut off.
var severed atomic.Bool

func mustParse(spec string) map[string]*point {
	parsed, err := parse(spec)
	if err != nil {
		fmt.Fprintf(os.Stderr, "ANCHORMESH_FAILPOINTS: %v\n", err)
		os.Exit(2)
	}
	return parsed
}

// handler is what Handle set.
var handler func(name string)

// Handle has f called at every step instead of what the environment asks for; nil ends
// that. It is for simulations, which run many nodes in one goroutine.
func Handle(f func(name string)) { handler = f }

// Hit marks a step and carries out what the environment asks for there.
func Hit(name string) {
	if handler != nil {
		handler(name)
		return
	}
	p := points[name]
	if p == nil {
		return
	}
	n := p.hits.Add(1)
	if p.action == sleep {
		if n >= p.from {
			time.Sleep(p.delay)
		}
		return
	}
	if n == p.from {
		p.act(name)
	}
}

// act does what is done once.
func (p *point) act(name string) {
	released := make(chan os.Signal, 1)
	if p.action == hold || p.action == cut {
		signal.Notify(released, syscall.SIGUSR1)
	}
	severed.Store(p.action == cut)
	fmt.Fprintf(os.Stderr, "failpoint %s: %s\n", name, words[p.action])
	switch p.action {
	case crash:
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case panics:
		panic("failpoint " + name)
	case stop:
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case hold:
		<-released
	case cut:
		go func() {
			<-released
			severed.Store(false)
		}()
	}
}

// Cut reports whether the process is cut off from others.
func Cut() bool { return severed.Load() }
