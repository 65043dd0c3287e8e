package mesh

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/mesh/view"
)

// memory is a node's directory over its restarts.
type memory struct {
	t   *testing.T
	dir string
	log bytes.Buffer
}

func (m *memory) start() *known {
	return loadKnown(fsys.OS, m.dir, "self", time.Hour, slog.New(slog.NewTextHandler(&m.log, nil)))
}

// sees has a process take a view: "b" is alive, "b-" away.
func (m *memory) sees(k *known, after time.Duration, nodes ...string) {
	m.t.Helper()
	members := []Member{{ID: "self", State: Alive}}
	where := map[anchormesh.NodeID]string{"self": "127.0.0.1:1"}
	for _, n := range nodes {
		id, away := strings.CutSuffix(n, "-")
		state := Alive
		if away {
			state = Left
		}
		members = append(members, Member{ID: anchormesh.NodeID(id), State: state})
		where[anchormesh.NodeID(id)] = id + ".example:7946"
	}
	if err := k.update(k.began.Add(after), view.New(1, members...), where); err != nil {
		m.t.Fatal(err)
	}
}

func (m *memory) want(k *known, nodes ...string) {
	m.t.Helper()
	var want []string
	for _, n := range nodes {
		want = append(want, n+".example:7946")
	}
	got := k.addrs()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		m.t.Errorf("remembers %v, want %v", got, want)
	}
}

func TestKnownAddressesOutliveTheProcess(t *testing.T) {
	m := &memory{t: t, dir: t.TempDir()}
	k := m.start()
	m.want(k)
	m.sees(k, 0)
	if _, err := os.Stat(filepath.Join(m.dir, KnownFile)); err == nil {
		t.Error("a node that has met nobody wrote a file")
	}
	m.sees(k, 0, "b", "c", "d-")
	m.want(k) // of this process's own meetings gossip knows itself
	k = m.start()
	m.want(k, "b", "c", "d")
	m.sees(k, time.Minute)      // alone: nothing is forgotten for it
	m.sees(k, time.Minute, "b") // who is met is gossip's
	m.want(k, "c", "d")
	m.want(m.start(), "b", "c", "d")
	m.sees(k, 2*time.Hour, "b")
	m.want(k)
	m.want(m.start(), "b")
	if m.log.Len() > 0 {
		t.Errorf("complaints about nothing: %s", m.log.String())
	}
}

// A node that the view has forgotten is not remembered, and does not come back with a
// restart.
func TestForgottenNodesAreNotRemembered(t *testing.T) {
	m := &memory{t: t, dir: t.TempDir()}
	k := m.start()
	m.sees(k, 0, "b", "c-")
	m.want(m.start(), "b", "c")
	m.sees(k, 0, "b")
	k = m.start()
	m.want(k, "b")
	m.sees(k, 0, "b-")
	m.sees(k, 0)
	m.want(m.start())
}

func TestKnownAddressesAreBounded(t *testing.T) {
	m := &memory{t: t, dir: t.TempDir()}
	var all, alive []string
	for i := range 100 {
		name := fmt.Sprintf("n%02d", i)
		if i >= 40 && i < 60 {
			alive = append(alive, name)
		} else {
			name += "-"
		}
		all = append(all, name)
	}
	k := m.start()
	m.sees(k, 0, all...)
	k = m.start()
	got := k.addrs()
	if len(got) != knownMax {
		t.Fatalf("%d addresses, want %d", len(got), knownMax)
	}
	for _, n := range alive {
		if !slices.Contains(got, n+".example:7946") {
			t.Errorf("%s, which is alive, made room for one that is not", n)
		}
	}
}

// A file that is not as it was written costs nothing but its use, is said in one line,
// and is replaced.
func TestDamagedKnownAddresses(t *testing.T) {
	m := &memory{t: t, dir: t.TempDir()}
	m.sees(m.start(), 0, "b", "c")
	path := filepath.Join(m.dir, KnownFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Replace(good, []byte("b.example"), []byte("x.example"), 1)
	for name, bad := range map[string][]byte{
		"empty": {}, "flipped": flipped, "cut short": good[:len(good)-3], "another format": []byte("anchormesh-known-v9:0\n"),
		"no address": []byte(formatKnown([]contact{{"b", "nowhere"}})), "port zero": []byte(formatKnown([]contact{{"b", "h:0"}})),
		"huge": bytes.Repeat([]byte("x"), knownBytesMax+1),
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		m.log.Reset()
		k := m.start()
		m.want(k)
		if got := m.log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, KnownFile) {
			t.Errorf("%s: the log says %q", name, got)
		}
		m.sees(k, 0, "c")
		m.want(m.start(), "c")
	}
}

func FuzzParseKnown(f *testing.F) {
	f.Add(formatKnown([]contact{{"b", "10.0.0.1:7946"}, {"c", "[::1]:1"}}))
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseKnown(text)
		if err != nil {
			return
		}
		again, err := parseKnown(formatKnown(list))
		if err != nil || !slices.Equal(again, list) {
			t.Fatalf("%v came back as %v, %v", list, again, err)
		}
	})
}
