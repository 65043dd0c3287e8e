package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/cluster"
)

// threePorts finds three ports in a row.
func threePorts(t *testing.T) (addrs [3]string) {
	t.Helper()
	for range 100 {
		host, port, _ := net.SplitHostPort(freeAddr(t))
		first, err := strconv.Atoi(port)
		must(t, err)
		free := true
		for i := range addrs {
			addrs[i] = net.JoinHostPort(host, fmt.Sprint(first+i))
			l, err := net.Listen("tcp", addrs[i])
			if free = free && err == nil; err == nil {
				l.Close()
			}
		}
		if free {
			return addrs
		}
	}
	t.Fatal("no three free ports in a row")
	return addrs
}

// A whole mesh in one process: it says where it serves, every node of it does,
// an interrupt ends it, the next run goes on, and none of it alarms anybody.
func TestDev(t *testing.T) {
	l := newLab(t)
	addrs := threePorts(t)
	dir := filepath.Join(l.dir, "dev")
	for run := range 3 {
		out := &lockedBuffer{}
		cmd := exec.Command(l.program, "dev", "--data-dir", dir, "--client-addr", addrs[0])
		cmd.Stdout, cmd.Stderr = out, out
		must(t, cmd.Start())
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		l.eventually(60*time.Second, "dev to announce itself", func() error {
			select {
			case err := <-done:
				t.Fatalf("it ended: %v\n%s", err, out.String())
			default:
			}
			if !strings.Contains(out.String(), "Ctrl-C stops.") {
				return errors.New(out.String())
			}
			return nil
		})
		useDev(t, addrs, run)
		must(t, cmd.Process.Signal(syscall.SIGINT))
		select {
		case err := <-done:
			must(t, err)
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			t.Fatalf("an interrupt did not end it:\n%s", out.String())
		}
		if text := out.String(); strings.Contains(text, "level=") || !strings.HasSuffix(text, "Stopped.\n") {
			t.Errorf("run %d said:\n%s", run, text)
		}
	}
	if _, errs, status := l.cli("dev", "--data-dir", dir, "--nodes", "1"); status != 2 || !strings.Contains(errs, "holds a mesh of 3 nodes") {
		t.Errorf("with fewer nodes: status %d, %s", status, errs)
	}
}

// useDev writes through one node and reads through all, what earlier runs wrote
// included.
func useDev(t *testing.T, addrs [3]string, run int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i, addr := range addrs {
		c, err := cluster.Dial("http://" + addr)
		must(t, err)
		if i == 0 {
			_, err := c.Put(ctx, fmt.Sprint("dev/", run), "v")
			must(t, err)
		}
		got, err := c.Get(ctx, "dev/", clientv3.WithPrefix())
		if err != nil || len(got.Kvs) != run+1 {
			t.Errorf("run %d through %s: %v, %v", run, addr, got, err)
		}
		c.Close()
	}
}
