//go:build linux

package netq

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPacketsSurvivesAnything(t *testing.T) {
	id := []byte{0, 0, 0, 9, 8, 0, 1, 0}
	good := message(msgPacket, 0, attribute(7, []byte{1}), attribute(attrPacketHeader, id))
	if got := packets(append(good, good...)); len(got) != 2 || got[0] != 9 || got[1] != 9 {
		t.Fatalf("got %v, want [9 9]", got)
	}
	for cut := range good {
		for _, id := range packets(good[:cut]) {
			t.Errorf("%d of %d bytes gave packet %d", cut, len(good), id)
		}
		broken := append([]byte{}, good...)
		broken[cut] ^= 0xff
		packets(broken) // must not panic
	}
}

// namespace makes a network namespace with a process in it that has two ends of one
// wire; it returns the process.
func namespace(t *testing.T) int {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces and iptables")
	}
	cmd := exec.Command("unshare", "-n", "sh", "-c", "ip link set lo up && echo up && exec sleep 60")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Skip("no network namespace here")
	}
	return cmd.Process.Pid
}

// A ping over loopback of the namespace crosses OUTPUT and INPUT, there and back:
// four delays. The rules leave loopback out, so the test has its own.
func TestQueueDelays(t *testing.T) {
	pid := namespace(t)
	inside := func(args ...string) (string, error) {
		out, err := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(pid), "-n"}, args...)...).CombinedOutput()
		return string(out), err
	}
	for _, chain := range []string{"INPUT", "OUTPUT"} {
		if out, err := inside("iptables", "-A", chain, "-p", "udp", "-j", "NFQUEUE", "--queue-num", strconv.Itoa(queueNumber), "--queue-bypass"); err != nil {
			t.Skipf("no NFQUEUE here: %v: %s", err, out)
		}
	}
	q, err := Open(pid, Quality{Delay: 40 * time.Millisecond}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if took := udpRoundTrip(t, pid); took < 160*time.Millisecond || took > 5*time.Second {
		t.Errorf("a round trip over four delays of 40 ms took %v", took)
	}
}

// udpRoundTrip sends one datagram and its answer between two sockets inside the
// namespace and returns how long both took.
func udpRoundTrip(t *testing.T, pid int) time.Duration {
	t.Helper()
	type result struct {
		a, b net.PacketConn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // thrown away with the goroutine
		var r result
		ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			r.a, err = net.ListenPacket("udp4", "127.0.0.1:0")
		}
		if err == nil {
			r.b, err = net.ListenPacket("udp4", "127.0.0.1:0")
		}
		r.err = err
		done <- r
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer r.a.Close()
	defer r.b.Close()
	began := time.Now()
	buf := make([]byte, 8)
	for _, way := range [][2]net.PacketConn{{r.a, r.b}, {r.b, r.a}} {
		if _, err := way[0].WriteTo([]byte("ping"), way[1].LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if err := way[1].SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := way[1].ReadFrom(buf); err != nil {
			t.Fatal(err)
		}
	}
	return time.Since(began)
}
