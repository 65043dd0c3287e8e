package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every way to start a node that cannot work ends in one sentence and the right
// status, and changes nothing.

func (n *labNode) mustFail(t *testing.T, status int, want ...string) {
	t.Helper()
	n.start()
	got := n.exit(30 * time.Second)
	text := n.complaint()
	t.Logf("%s", text)
	if got != status {
		t.Errorf("status %d, want %d", got, status)
	}
	first, rest, _ := strings.Cut(text, "\n")
	for _, w := range want {
		if !strings.Contains(first, w) {
			t.Errorf("%q does not say %q", first, w)
		}
	}
	if !strings.HasPrefix(first, "anchormesh: ") || (rest != "") != (status == 2) || strings.Count(rest, "\n") > 1 {
		t.Errorf("want one sentence:\n%s", text)
	}
	if out := n.run.output.String(); strings.Contains(out, "panic") || strings.Contains(out, "goroutine ") {
		t.Errorf("the node panicked:\n%s", out)
	}
}

// A port that is taken, by any of the four listeners.
func TestBusyPorts(t *testing.T) {
	l := newLab(t)
	for name, addr := range map[string]func(*labNode) string{ // by what the sentence begins with
		"--client-addr": func(n *labNode) string { return n.client }, "cannot listen for peers": func(n *labNode) string { return n.peer },
		"cannot listen for gossip": func(n *labNode) string { return n.gossip }, "--http-addr": func(n *labNode) string { return n.http },
	} {
		n := l.add()
		_, port, _ := net.SplitHostPort(addr(n))
		holder, err := net.Listen("tcp", addr(n))
		if err != nil {
			t.Fatal(err)
		}
		n.mustFail(t, 1, name, port, "address already in use")
		holder.Close()
	}
	n := l.add()
	holder, err := net.ListenPacket("udp", n.gossip)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	n.mustFail(t, 1, "cannot listen for gossip", n.gossip, "address already in use")
}

func TestBadMeshKeys(t *testing.T) {
	l := newLab(t)
	n := l.add()
	good := l.keyFile
	l.keyFile = filepath.Join(l.dir, "missing.key")
	n.mustFail(t, 2, "--mesh-key-file", l.keyFile, "anchormesh key new")
	l.keyFile = filepath.Join(l.dir, "damaged.key")
	if err := os.WriteFile(l.keyFile, []byte("anchormesh-key-v1:AAAA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.mustFail(t, 2, l.keyFile, "not a mesh key")
	l.keyFile = l.dir // a directory
	n.mustFail(t, 2, l.keyFile)
	l.keyFile = good
}

// damage is one way to spoil a data directory.
type damage struct {
	name string
	do   func(t *testing.T, n *labNode)
	says []string
}

var damages = []damage{
	{"foreign", func(t *testing.T, n *labNode) {
		must(t, os.RemoveAll(n.dir))
		must(t, os.MkdirAll(n.dir, 0o700))
		must(t, os.WriteFile(filepath.Join(n.dir, "taxes.xls"), []byte("x"), 0o600))
	}, []string{"not an AnchorMesh data directory", "taxes.xls"}},
	{"no directory", func(t *testing.T, n *labNode) {
		must(t, os.RemoveAll(n.dir))
		must(t, os.WriteFile(n.dir, []byte("x"), 0o600))
	}, []string{"data directory", "not a directory"}},
	{"no log", func(t *testing.T, n *labNode) { must(t, os.RemoveAll(filepath.Join(n.dir, "log"))) },
		[]string{"data directory is incomplete", "log"}},
	{"no store", func(t *testing.T, n *labNode) { must(t, os.RemoveAll(filepath.Join(n.dir, "scopes"))) },
		[]string{"data directory is incomplete", "scopes"}},
	{"no identity", func(t *testing.T, n *labNode) { must(t, os.Remove(filepath.Join(n.dir, "identity.key"))) },
		[]string{"data directory is incomplete", "identity.key"}},
	{"another identity", func(t *testing.T, n *labNode) {
		must(t, os.Remove(filepath.Join(n.dir, "identity.key")))
		other := n.lab.add()
		other.start()
		n.lab.eventually(10*time.Second, "another identity", func() error {
			_, err := os.Stat(filepath.Join(other.dir, "identity.key"))
			return err
		})
		other.kill()
		must(t, os.Rename(filepath.Join(other.dir, "identity.key"), filepath.Join(n.dir, "identity.key")))
	}, []string{"identity.key", "another node"}},
	{"damaged identity", func(t *testing.T, n *labNode) {
		must(t, os.WriteFile(filepath.Join(n.dir, "identity.key"), []byte("x"), 0o600))
	},
		[]string{"identity.key"}},
	{"no record", func(t *testing.T, n *labNode) { must(t, os.Remove(filepath.Join(n.dir, "node.json"))) },
		[]string{"data directory is incomplete", "node.json"}},
	{"damaged record", func(t *testing.T, n *labNode) {
		must(t, os.WriteFile(filepath.Join(n.dir, "node.json"), []byte("{"), 0o600))
	},
		[]string{"node.json", "is damaged"}},
	{"newer record", func(t *testing.T, n *labNode) {
		must(t, os.WriteFile(filepath.Join(n.dir, "node.json"), []byte(`{"format":9}`), 0o600))
	}, []string{"node.json", "format 9"}},
	{"damaged store", func(t *testing.T, n *labNode) { scribble(t, filepath.Join(n.dir, "scopes", "root.db"), 0, 64<<10) },
		[]string{"root.db"}},
	{"truncated store", func(t *testing.T, n *labNode) {
		must(t, os.Truncate(filepath.Join(n.dir, "scopes", "root.db"), 20_000))
	},
		[]string{"root.db"}},
	{"empty store", func(t *testing.T, n *labNode) { must(t, os.Truncate(filepath.Join(n.dir, "scopes", "root.db"), 0)) },
		[]string{"root.db", "is empty"}},
	{"a page of the store", func(t *testing.T, n *labNode) { scribble(t, filepath.Join(n.dir, "scopes", "root.db"), 16<<10, 24<<10) },
		[]string{"root.db"}},
	{"bit flip in the log", func(t *testing.T, n *labNode) { flip(t, n, 4200) }, []string{".wal", "offset"}},
	{"first log file removed", func(t *testing.T, n *labNode) {
		must(t, os.Remove(firstLog(t, n)))
	}, []string{"log"}},
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func firstLog(t *testing.T, n *labNode) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.dir, "log", "*.wal"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no log file: %v", err)
	}
	return files[0]
}

func scribble(t *testing.T, path string, at int64, size int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	junk := make([]byte, size)
	for i := range junk {
		junk[i] = byte(i * 7)
	}
	_, err = f.WriteAt(junk, at)
	must(t, err)
}

// flip changes one bit of the log.
func flip(t *testing.T, n *labNode, at int64) {
	t.Helper()
	f, err := os.OpenFile(firstLog(t, n), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at)
	must(t, err)
}

// A data directory that lacks something or holds something wrong is refused, and
// works again as soon as it is whole: the refusal changed nothing.
func TestSpoiltDataDirectories(t *testing.T) {
	l := newLab(t)
	n := l.add()
	n.start()
	l.awaitVoters(1)
	fill(t, l, 50)
	n.kill() // the log holds what the store has not
	whole := filepath.Join(l.dir, "whole")
	must(t, os.Rename(n.dir, whole))
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			must(t, os.RemoveAll(n.dir))
			copyDir(t, whole, n.dir)
			d.do(t, n)
			n.mustFail(t, 1, d.says...)
			n.mustFail(t, 1, d.says...) // the first try repaired nothing in silence
		})
	}
	must(t, os.RemoveAll(n.dir))
	copyDir(t, whole, n.dir)
	n.start()
	l.awaitVoters(1)
	checkFilled(t, l, 50)
	second := *n
	second.move()
	second.mustFail(t, 1, "data directory is in use by another process")
}

// A tail that a crash tore is cut and nothing is said.
func TestTornLogTail(t *testing.T) {
	l := newLab(t)
	n := l.add()
	n.start()
	l.awaitVoters(1)
	fill(t, l, 50)
	if _, err := l.dial().Put(t.Context(), "torn", strings.Repeat("x", 4000)); err != nil {
		t.Fatal(err)
	}
	n.kill()
	path := firstLog(t, n)
	data, err := os.ReadFile(path)
	must(t, err)
	end := len(strings.TrimRight(string(data), "\x00"))
	clear(data[(end-2000)&^511 : end]) // of the newest write some sectors never reached the disk
	must(t, os.WriteFile(path, data, 0o600))
	n.start()
	l.awaitVoters(1)
	checkFilled(t, l, 50)
	if got, err := l.dial().Get(t.Context(), "torn"); err != nil || got.Count != 0 {
		t.Errorf("the write whose log record is torn: %v, %v", got, err)
	}
}

func fill(t *testing.T, l *lab, keys int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := l.dial()
	for i := range keys {
		if _, err := c.Put(ctx, fmt.Sprintf("filled/%04d", i), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func checkFilled(t *testing.T, l *lab, keys int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := l.dial()
	for i := range keys {
		got, err := c.Get(ctx, fmt.Sprintf("filled/%04d", i))
		if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != fmt.Sprint(i) {
			t.Fatalf("key %d: %v, %v", i, got, err)
		}
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.CopyFS(to, os.DirFS(from)))
}
