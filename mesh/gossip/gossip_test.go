package gossip

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/testkit"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/mesh/view"
)

// signer is an identity whose node ID is its public key in hex.
type signer struct{ key ed25519.PrivateKey }

func newSigner() signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return signer{key}
}

func hexID(public []byte) (anchormesh.NodeID, error) {
	return anchormesh.NodeID(hex.EncodeToString(public)), nil
}

func (s signer) PublicKey() []byte { return s.key.Public().(ed25519.PublicKey) }
func (s signer) NodeID() anchormesh.NodeID {
	id, _ := hexID(s.PublicKey())
	return id
}
func (s signer) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

type testNode struct {
	*Gossip
	id   anchormesh.NodeID
	logs *testkit.Log
}

var (
	testKey  = meshkey.Key{1, 2, 3}
	nextBoot uint64
)

// fastPace is for the loopback.
func fastPace() Pace {
	p := DefaultPace()
	p.Probe, p.ProbeTimeout, p.Suspicion = 100*time.Millisecond, 80*time.Millisecond, 2
	p.Gossip, p.PushPull, p.Rejoin = 10*time.Millisecond, time.Second, 200*time.Millisecond
	p.JoinMin, p.JoinMax = 20*time.Millisecond, 100*time.Millisecond
	p.Quantum, p.Quiescence = 50*time.Millisecond, 5*time.Millisecond
	return p
}

func testConfig(name string, join ...string) Config {
	nextBoot++
	return Config{
		Key: testKey, Identity: newSigner(), NodeID: hexID, Epochs: new(MemoryEpochs),
		Self:   view.Record{Name: name, Zone: "z", Version: "v1", Mesh: 7, Boot: nextBoot, PeerAddrs: []string{"/ip4/127.0.0.1/tcp/1"}},
		Listen: "127.0.0.1:0", Join: join, Pace: fastPace(), Members: view.DefaultLimits(),
	}
}

func start(t *testing.T, cfg Config) *testNode {
	t.Helper()
	n := &testNode{id: cfg.Identity.NodeID(), logs: new(testkit.Log)}
	cfg.Logger = slog.New(slog.NewTextHandler(n.logs, nil))
	g, err := Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Gossip = g
	t.Cleanup(func() { g.Close() })
	return n
}

// sees waits until every one of nodes shows who in this state.
func sees(t *testing.T, who *testNode, s view.State, nodes ...*testNode) view.Member {
	t.Helper()
	var m view.Member
	for _, n := range nodes {
		testkit.Eventually(t, fmt.Sprintf("%s is %v", who.id[:8], s), func() bool {
			var ok bool
			m, ok = n.View().Get(who.id)
			return ok && m.State == s
		})
	}
	return m
}

// crash stops a node without a word.
func (n *testNode) crash() {
	n.close.Do(func() {
		n.cancel()
		n.ml.Shutdown()
		n.tasks.Wait()
	})
}

func TestNodesMeetChangeAndLeave(t *testing.T) {
	a := start(t, testConfig("a"))
	b := start(t, testConfig("b", a.Addr()))
	c := start(t, testConfig("c", b.Addr()))
	all := []*testNode{a, b, c}
	for _, n := range all {
		m := sees(t, n, view.Alive, all...)
		if m.Name != n.Self().Name || m.Zone != "z" || m.Mesh != 7 || len(m.PeerAddrs) != 1 {
			t.Fatalf("%+v", m)
		}
	}
	if err := b.Update(func(r *view.Record) { r.ClientURLs = []string{"http://127.0.0.1:2379"} }); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the change arrives", func() bool {
		m, _ := c.View().Get(b.id)
		return len(m.ClientURLs) == 1
	})
	b.Close()
	sees(t, b, view.Left, a, c)
	c.crash()
	sees(t, c, view.Dead, a)
}

func TestNodeReturnsAtANewAddressAtOnce(t *testing.T) {
	a := start(t, testConfig("a"))
	cfg := testConfig("b", a.Addr())
	b := start(t, cfg)
	sees(t, b, view.Alive, a)
	old := b.Addr()
	b.crash()
	cfg.Self.Boot = 1 << 40
	b2 := start(t, cfg) // the port is another one: it was free for a moment only by chance
	testkit.Eventually(t, "the new process is seen", func() bool {
		m, ok := a.View().Get(b.id)
		return ok && m.Boot == 1<<40 && m.State == view.Alive
	})
	// The death of the old process must not touch the new one.
	testkit.Eventually(t, "the old process is given up", func() bool {
		for _, n := range a.ml.Members() {
			if n.Name == memberName(b.id, b.cfg.Self.Boot) {
				return false
			}
		}
		return true
	})
	if m, _ := a.View().Get(b.id); m.State != view.Alive || b2.Addr() == old && m.Boot != 1<<40 {
		t.Fatalf("%+v", m)
	}
}

func TestJoinWaitsForOthersToComeUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port nobody else takes meanwhile
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	a := start(t, testConfig("a", "no-such-host.invalid:7946", addr))
	testkit.Eventually(t, "a says that it cannot join", func() bool { return strings.Contains(a.logs.String(), "cannot join yet") })
	cfg := testConfig("b")
	cfg.Listen = addr
	b := start(t, cfg)
	sees(t, b, view.Alive, a)
	sees(t, a, view.Alive, b)
}

func TestDeadMemberIsSoughtUntilItReturns(t *testing.T) {
	a := start(t, testConfig("a"))
	cfg := testConfig("b", a.Addr())
	b := start(t, cfg)
	sees(t, b, view.Alive, a)
	at := b.Addr()
	b.crash()
	sees(t, b, view.Dead, a)
	cfg.Join, cfg.Listen = nil, at // it knows nobody
	cfg.Self.Boot = 1 << 41
	b = start(t, cfg)
	sees(t, b, view.Alive, a)
}

func TestAnotherKeyIsHeardOfOnce(t *testing.T) {
	a := start(t, testConfig("a"))
	cfg := testConfig("b", a.Addr())
	cfg.Key = meshkey.Key{9}
	b := start(t, cfg)
	testkit.Eventually(t, "a counts what it cannot read", func() bool { return a.Stats().Undecrypted > 2 })
	testkit.Eventually(t, "b is told", func() bool { return strings.Contains(b.logs.String(), "another mesh key") })
	if n := strings.Count(a.logs.String(), "another mesh key"); n != 1 {
		t.Fatalf("%d log lines:\n%s", n, a.logs)
	}
	if a.View().Len() != 1 || b.View().Len() != 1 {
		t.Fatal("they met")
	}
}

func TestTwoMeshesStayApart(t *testing.T) {
	cfg := testConfig("a")
	foreign := make(chan anchormesh.MeshID, 10)
	cfg.Events.ForeignMesh = func(m anchormesh.MeshID, _ anchormesh.NodeID) { foreign <- m }
	a := start(t, cfg)
	cfg = testConfig("b", a.Addr())
	cfg.Self.Mesh = 8
	b := start(t, cfg)
	if m := <-foreign; m != 8 {
		t.Fatalf("met mesh %v", m)
	}
	testkit.Eventually(t, "both know", func() bool { return len(a.Meshes()) == 2 && len(b.Meshes()) == 2 })
	if a.View().Len() != 1 || b.View().Len() != 1 {
		t.Fatal("members of another mesh in the view")
	}
	if n := strings.Count(a.logs.String(), "another mesh uses"); n != 1 {
		t.Fatalf("%d log lines", n)
	}
	// A node of no mesh sees both, adopts nothing, and decides.
	cfg = testConfig("c", a.Addr(), b.Addr())
	cfg.Self.Mesh = 0
	c := start(t, cfg)
	sees(t, a, view.Alive, c)
	sees(t, b, view.Alive, c)
	if m := c.Meshes(); len(m) != 2 || c.Self().Mesh != 0 {
		t.Fatalf("meshes %v, own %v", m, c.Self().Mesh)
	}
	sees(t, c, view.Alive, a, b)
	if err := c.Update(func(r *view.Record) { r.Mesh = 7 }); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "c is of mesh 7 only", func() bool {
		_, inA := a.View().Get(c.id)
		_, inB := b.View().Get(c.id)
		_, hasB := c.View().Get(b.id)
		return inA && !inB && !hasB
	})
}

func TestCopiedIdentityIsLoud(t *testing.T) {
	a := start(t, testConfig("a"))
	cfg := testConfig("b", a.Addr())
	loud := make(chan string, 10)
	cfg.Events.IdentityInUse = func(d string) { loud <- d }
	b := start(t, cfg)
	sees(t, b, view.Alive, a)
	cfg.Self.Boot = 1 << 42
	cfg.Epochs = new(MemoryEpochs) // the copy counts from where the original did
	copied := start(t, cfg)
	<-loud
	testkit.Eventually(t, "both are loud", func() bool {
		return strings.Contains(b.logs.String(), "data directory was copied") &&
			strings.Contains(copied.logs.String(), "data directory was copied")
	})
}

// TestOwnPastIsNoRival: a node that lost count of its epochs outbids its own
// earlier record quietly.
func TestOwnPastIsNoRival(t *testing.T) {
	a := start(t, testConfig("a"))
	cfg := testConfig("b", a.Addr())
	epochs := new(MemoryEpochs)
	epochs.Next(1000)
	cfg.Epochs = epochs
	b := start(t, cfg)
	sees(t, b, view.Alive, a)
	b.crash()
	cfg.Self.Boot = 1 << 43
	cfg.Epochs = new(MemoryEpochs)
	b = start(t, cfg)
	testkit.Eventually(t, "the new process outbids the old record", func() bool {
		m, _ := a.View().Get(b.id)
		return m.Boot == 1<<43 && m.Epoch > 1000
	})
	if strings.Contains(b.logs.String(), "copied") {
		t.Fatal("a false alarm")
	}
}

func TestForgedRecordsAreIgnoredAndCounted(t *testing.T) {
	a := start(t, testConfig("a"))
	key := newSigner()
	rec := view.Record{Name: "x", Mesh: 7, Boot: 5, Epoch: 1}
	good, err := encode(&rec, key)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[40] ^= 1
	name := memberName(key.NodeID(), 5)
	for _, x := range []struct {
		meta []byte
		name string
		want error
	}{
		{nil, name, errRecord},
		{good[:100], name, errRecord},
		{bad, name, errSignature},
		{good, memberName(a.id, 5), errBinding},
		{good, memberName(key.NodeID(), 6), errBinding},
		{good, name, nil},
		{good, memberName(key.NodeID(), 6), errBinding}, // also when the record is known
	} {
		if err := a.take(x.meta, x.name); !errors.Is(err, x.want) {
			t.Errorf("%v, want %v", err, x.want)
		}
	}
	if s := a.Stats(); s.Malformed != 2 || s.Unsigned != 1 || s.Misnamed != 3 {
		t.Errorf("%+v", s)
	}
}

func TestRecordBudgetIsEnforcedAtStart(t *testing.T) {
	cfg := testConfig("a")
	for range 4 {
		cfg.Self.ClientURLs = append(cfg.Self.ClientURLs, "http://"+strings.Repeat("x", 100)+":2379")
	}
	_, err := Start(context.Background(), cfg)
	if !errors.Is(err, ErrRecordTooLarge) || strings.Contains(err.Error(), "\n") {
		t.Fatal(err)
	}
	a := start(t, testConfig("a"))
	err = a.Update(func(r *view.Record) { r.Name = strings.Repeat("x", 300) })
	if !errors.Is(err, ErrRecordTooLarge) || a.Self().Name != "a" {
		t.Fatalf("%v, name %q", err, a.Self().Name)
	}
}

func TestBusyPortIsNamed(t *testing.T) {
	a := start(t, testConfig("a"))
	cfg := testConfig("b")
	cfg.Listen = a.Addr()
	_, err := Start(context.Background(), cfg)
	if err == nil || !strings.Contains(err.Error(), a.Addr()) || !strings.Contains(err.Error(), "in use") || strings.Contains(err.Error(), "\n") {
		t.Fatal(err)
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	a := start(t, testConfig("a"))
	b := start(t, testConfig("b", a.Addr()))
	sees(t, b, view.Alive, a)
	sees(t, a, view.Alive, b)
	b.Close()
	a.Close()
	a.Close()
	testkit.Eventually(t, "all goroutines ended", func() bool { return runtime.NumGoroutine() <= before })
}

func TestConfigIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"key":       func(c *Config) { c.Key = meshkey.Key{} },
		"identity":  func(c *Config) { c.Identity = nil },
		"boot":      func(c *Config) { c.Self.Boot = 0 },
		"listen":    func(c *Config) { c.Listen = "x" },
		"advertise": func(c *Config) { c.Advertise = "0.0.0.0:1" },
		"join":      func(c *Config) { c.Join = []string{"host"} },
		"pace":      func(c *Config) { c.Pace.Probe = 0 },
		"members":   func(c *Config) { c.Members.Members = 0 },
	} {
		cfg := testConfig("a")
		spoil(&cfg)
		if err := cfg.Validate(); !errors.Is(err, ErrConfig) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	key := newSigner()
	rec := view.Record{
		Name: "n", Zone: "z", Version: "v", Mesh: 7, Boot: 8, Epoch: 300, Left: true,
		PeerAddrs: []string{"/ip4/10.0.0.1/tcp/2390"}, ClientURLs: []string{"http://x:2379", ""},
	}
	b, err := encode(&rec, key)
	if err != nil {
		f.Fatal(err)
	}
	got, err := decode(b, hexID)
	rec.ID, rec.Raw = key.NodeID(), string(b)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(rec) {
		f.Fatalf("%+v, %v, want %+v", got, err, rec)
	}
	f.Add(b)
	f.Add(make([]byte, recordBytesMax))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, public, body, err := parse(b)
		if err != nil {
			return
		}
		again, err := encode(&r, fixed{public})
		if err != nil || !bytes.Equal(again[:len(again)-ed25519.SignatureSize], body) {
			t.Fatalf("%+v is not what was read: %v", r, err)
		}
	})
}

// TestGoldenRecord pins the format: another one needs another version.
func TestGoldenRecord(t *testing.T) {
	b, err := encode(&view.Record{
		Name: "n", Zone: "z", Version: "v", Mesh: 7, Boot: 8, Epoch: 300, Left: true,
		PeerAddrs: []string{"p"}, ClientURLs: []string{"c", "d"},
	}, fixed{bytes.Repeat([]byte{0xaa}, 32)})
	want := "0101" + strings.Repeat("aa", 32) + "0000000000000007" + "0000000000000008" + "ac02" +
		"016e" + "017a" + "0176" + "01" + "0170" + "02" + "0163" + "0164" + strings.Repeat("00", 64)
	if err != nil || hex.EncodeToString(b) != want {
		t.Fatalf("%x, %v", b, err)
	}
}

// fixed has a public key and signs with zeros.
type fixed struct{ public []byte }

func (f fixed) NodeID() anchormesh.NodeID       { return "" }
func (f fixed) PublicKey() []byte               { return f.public }
func (f fixed) Sign(msg []byte) ([]byte, error) { return make([]byte, ed25519.SignatureSize), nil }
