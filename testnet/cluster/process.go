package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// process is one incarnation of a node.
type process struct {
	pid  int
	os   *os.Process
	done chan struct{} // closed when the process has been waited for

	// Valid once done is closed.
	state *os.ProcessState
	err   error
}

// startProcess runs path with output appended to logPath.
func startProcess(path string, args []string, logPath, failpoints string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	fmt.Fprintf(log, "# %s starts %s %q\n", time.Now().Format(time.RFC3339Nano), path, args)
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = cleanEnviron()
	if failpoints != "" {
		cmd.Env = append(cmd.Env, "ANCHORMESH_FAILPOINTS="+failpoints)
	}
	cmd.SysProcAttr = endWithParent()

	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel ties the "end with parent" signal to the thread that
		// started the process; this one stays until the process has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.os, p.pid = cmd.Process, cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
		p.state = cmd.ProcessState
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cluster: start %s: %w", path, err)
	}
	return p, nil
}

// cleanEnviron is our environment without the variables from which etcd and
// anchormesh take flags: a node is what its command line says.
func cleanEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "ETCD_") || strings.HasPrefix(v, "ANCHORMESH_")
	})
}

// running reports whether the process has not ended.
func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}
