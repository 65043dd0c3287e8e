package proofs

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

// secret is a node's key in these tests.
func secret(id anchormesh.NodeID) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, id)
	return ed25519.NewKeyFromSeed(seed)
}

func keyOf(id anchormesh.NodeID) Key {
	return Key{
		Self:   id,
		Sign:   func(b []byte) ([]byte, error) { return ed25519.Sign(secret(id), b), nil },
		Verify: verify,
	}
}

func verify(id anchormesh.NodeID, statement, signature []byte) bool {
	return ed25519.Verify(secret(id).Public().(ed25519.PublicKey), statement, signature)
}

// town is nodes whose keepers ask each other.
type town struct {
	t     *testing.T
	mu    sync.Mutex
	rng   *rand.Rand
	loss  int // of a hundred calls
	calls int
	nodes map[anchormesh.NodeID]*citizen
}

type citizen struct {
	town  *town
	id    anchormesh.NodeID
	files fsys.FS
	held  map[anchormesh.SegmentID]Replica
	k     *Keeper
	stop  context.CancelFunc
}

func newTown(t *testing.T, ids ...anchormesh.NodeID) *town {
	w := &town{t: t, rng: rand.New(rand.NewPCG(1, 1)), nodes: map[anchormesh.NodeID]*citizen{}}
	for _, id := range ids {
		c := &citizen{town: w, id: id, files: fsys.NewMem(), held: map[anchormesh.SegmentID]Replica{}}
		w.nodes[id] = c
		c.start()
	}
	return w
}

func (c *citizen) start() {
	ctx, stop := context.WithCancel(c.town.t.Context())
	c.stop = stop
	c.k = New(Config{Key: keyOf(c.id), Files: c.files, Dir: "/", Logger: slog.New(slog.DiscardHandler)}, c, c)
	go c.k.Run(ctx)
}

func (c *citizen) Segments() []anchormesh.SegmentID { return slices.Sorted(maps.Keys(c.held)) }

func (c *citizen) Lineage(id anchormesh.SegmentID) (Replica, bool) {
	r, ok := c.held[id]
	return r, ok
}

// Call implements Caller.
func (c *citizen) Call(_ context.Context, to anchormesh.NodeID, _ uint8, parts ...[]byte) ([]byte, error) {
	c.town.mu.Lock()
	c.town.calls++
	lost := c.town.rng.IntN(100) < c.town.loss
	other := c.town.nodes[to]
	c.town.mu.Unlock()
	if other == nil || lost {
		return nil, errors.New("unreachable")
	}
	var got reply
	other.k.Serve(c.id, slices.Concat(parts...), wire.NewResponder(&got, 1, time.Time{}))
	if got.code != 0 {
		return nil, errors.New(string(got.body))
	}
	return got.body, nil
}

type reply struct {
	code uint16
	body []byte
}

func (r *reply) Answer(_ uint64, code uint16, payload [][]byte) {
	r.code, r.body = code, bytes.Join(payload, nil)
}

// hold gives a node a replica, as its own log made it or as a snapshot.
func (w *town) hold(id anchormesh.NodeID, c *lineage.Chain, since uint64, leads bool) {
	n := w.nodes[id]
	synctest.Wait()
	n.k.mu.Lock()
	defer n.k.mu.Unlock()
	n.held[c.Segment()] = Replica{Chain: c, Since: since, Leads: leads}
	n.k.Changed(c.Segment())
}

func (w *town) proven(id anchormesh.NodeID, c *lineage.Chain) int {
	synctest.Wait()
	got := w.nodes[id].k.Of(c.Segment())
	var before *lineage.Entry
	key := keyOf(id)
	good := 0
	for _, e := range c.Entries() {
		for _, b := range got {
			p, err := lineage.DecodeProof(b)
			if err != nil {
				w.t.Fatal(err)
			}
			if p.Entry.Hash() == e.Hash() {
				if err := key.Check(before, p); err != nil {
					w.t.Fatalf("%s serves a proof that does not hold: %v", id, err)
				}
				good++
			}
		}
		before = e
	}
	return good
}

func voting(ids ...anchormesh.NodeID) lineage.Voters { return lineage.Voters{Incoming: ids} }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// history is a segment that a founded, that b and c joined, and that was split.
func history() (grown, left, right *lineage.Chain) {
	c := must(lineage.Begin(7, 1, lineage.Extent{Generation: 1}, lineage.Place{Index: 5, Term: 1}, voting("a"), lineage.Evidence{}))
	c = must(c.Change(lineage.Place{Index: 10, Term: 1}, voting("a", "b"), lineage.Evidence{}))
	grown = must(c.Change(lineage.Place{Index: 12, Term: 1}, voting("a", "b", "c"), lineage.Evidence{}))
	left, right, err := grown.Split(lineage.Place{Index: 20, Term: 1}, []byte("m"), 2, lineage.Evidence{})
	if err != nil {
		panic(err)
	}
	return grown, left, right
}

// Everybody who holds a replica comes to hold the proofs of its whole lineage: of what
// he applied, and of what he was not there for.
func TestEveryAnchorComesToHoldTheProofs(t *testing.T) {
	for _, loss := range []int{0, 60} {
		synctest.Test(t, func(t *testing.T) {
			_, left, right := history()
			w := newTown(t, "a", "b", "c", "d")
			w.loss = loss
			w.hold("a", left, 0, true)
			w.hold("b", left, 6, false)
			w.hold("c", left, 11, false)
			for i, id := range []anchormesh.NodeID{"b", "a", "c"} {
				w.hold(id, right, 0, i == 0)
			}
			time.Sleep(4 * time.Minute)
			for _, id := range []anchormesh.NodeID{"a", "b", "c"} {
				if l, r := w.proven(id, left), w.proven(id, right); l != 4 || r != 1 {
					t.Errorf("with %d%% of the calls lost, %s holds %d proofs of 4 and %d of 1", loss, id, l, r)
				}
			}
			before := w.calls
			time.Sleep(time.Hour)
			if w.calls != before {
				t.Errorf("%d calls although nothing lacks", w.calls-before)
			}
			if loss == 0 && before > 40 {
				t.Errorf("%d calls for 4 entries on 3 nodes", before)
			}
			// A newcomer applied none of it, and signs none of it.
			w.hold("d", left, 30, false)
			time.Sleep(time.Minute)
			if got := w.proven("d", left); got != 4 {
				t.Errorf("a newcomer holds %d proofs of 4", got)
			}
			for _, b := range w.nodes["d"].k.Of(1) {
				for _, s := range must(lineage.DecodeProof(b)).Signatures {
					if s.Node == "d" {
						t.Error("a newcomer signed what it did not apply")
					}
				}
			}
		})
	}
}

// A leader that was cut off appends a split to a true lineage and publishes it: it
// finds nobody to sign.
func TestWhatWasNotCommittedIsNotProved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		grown, left, _ := history()
		forged, _, err := grown.Split(lineage.Place{Index: 19, Term: 1}, []byte("f"), 3, lineage.Evidence{})
		if err != nil {
			t.Fatal(err)
		}
		w := newTown(t, "a", "b", "c")
		w.hold("a", forged, 0, true)
		w.hold("b", left, 6, true)
		w.hold("c", left, 11, false)
		time.Sleep(time.Hour)
		if got := w.proven("a", forged); got != 3 {
			t.Errorf("the forger holds %d proofs, 3 of them are of what happened", got)
		}
		if got := w.proven("b", left); got != 4 {
			t.Errorf("the others hold %d proofs of 4 without it", got)
		}
	})
}

// Who was asked before he had applied the entry gives his signature when he asks
// himself: the leader need not ask again.
func TestALateVoterBringsItsSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		grown, left, _ := history()
		w := newTown(t, "a", "b", "c")
		for id, since := range map[anchormesh.NodeID]uint64{"a": 0, "b": 6, "c": 11} {
			w.hold(id, grown, since, id == "a")
		}
		time.Sleep(time.Minute)
		w.hold("a", left, 0, true)
		time.Sleep(20 * time.Second) // by now it asks rarely
		w.hold("b", left, 6, false)
		time.Sleep(followerWait + time.Second)
		for _, id := range []anchormesh.NodeID{"a", "b"} {
			if got := w.proven(id, left); got != 4 {
				t.Errorf("%s holds %d proofs of 4", id, got)
			}
		}
	})
}

// The file outlives its node's restart, and the nodes that signed.
func TestProofsOutliveTheirSigners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, left, _ := history()
		w := newTown(t, "a", "b", "c", "d")
		w.hold("a", left, 0, true)
		w.hold("b", left, 6, false)
		w.hold("c", left, 11, false)
		time.Sleep(time.Minute)
		w.nodes["c"].stop()
		synctest.Wait()
		delete(w.nodes["c"].town.nodes, "a")
		delete(w.nodes["c"].town.nodes, "b")
		w.nodes["c"].start()
		moved := must(left.Change(lineage.Place{Index: 30, Term: 2}, voting("c", "d"), lineage.Evidence{}))
		w.hold("c", left, 11, true)
		time.Sleep(time.Second)
		if got := w.proven("c", left); got != 4 {
			t.Fatalf("after a restart %d proofs of 4 are there", got)
		}
		w.hold("d", moved, 25, false)
		time.Sleep(2 * time.Minute)
		if got := w.proven("d", moved); got != 4 {
			t.Errorf("the newcomer holds %d proofs; 4 are to be had, the fifth lacks those who left", got)
		}
	})
}

// What a lineage holds no more, and what left the node, is not kept.
func TestProofsGoWithTheirLineage(t *testing.T) {
	chain := must(lineage.Begin(7, 1, lineage.Extent{Generation: 1}, lineage.Place{Index: 5, Term: 1}, voting("a"), lineage.Evidence{}))
	core, now := NewCore(keyOf("a")), time.Unix(0, 0)
	for i := range 3 * lineage.EntriesMax {
		core.Note(now, Replica{Chain: chain, Leads: true})
		chain = must(chain.Change(lineage.Place{Index: uint64(10 + i), Term: 1}, voting("a"), lineage.Evidence{}))
	}
	if len(core.kept) != lineage.EntriesMax || len(core.holds) != lineage.EntriesMax || len(core.wants) != 0 {
		t.Errorf("%d proofs of %d entries, %d wanted", len(core.kept), len(core.holds), len(core.wants))
	}
	core.Drop(1)
	core.Drop(1)
	if len(core.kept)+len(core.holds)+len(core.noted) != 0 {
		t.Errorf("%d proofs of a replica that left", len(core.kept))
	}
}

// Who has to sign, in each kind of change.
func TestVoters(t *testing.T) {
	chain := must(lineage.Begin(7, 1, lineage.Extent{Generation: 1}, lineage.Place{Index: 5, Term: 1}, voting("a"), lineage.Evidence{}))
	at := uint64(5)
	for _, c := range []struct {
		next lineage.Voters
		want lineage.Voters
	}{
		{voting("a", "b"), lineage.Voters{Incoming: []anchormesh.NodeID{"a", "b"}, Outgoing: []anchormesh.NodeID{"a"}}},
		{voting("a", "b"), voting("a", "b")}, // a learner
		{lineage.Voters{Incoming: []anchormesh.NodeID{"c", "d"}, Outgoing: []anchormesh.NodeID{"a", "b"}},
			lineage.Voters{Incoming: []anchormesh.NodeID{"c", "d"}, Outgoing: []anchormesh.NodeID{"a", "b"}}},
		{voting("c", "d"), voting("c", "d")}, // ends the joint one
	} {
		at++
		before := chain.Last()
		chain = must(chain.Change(lineage.Place{Index: at, Term: 1}, c.next, lineage.Evidence{}))
		if got := Voters(before, chain.Last()); !got.Equal(c.want) {
			t.Errorf("to %v: %v must sign, want %v", c.next, got, c.want)
		}
	}
	// A forged entry that names its own witnesses.
	forged := must(chain.Change(lineage.Place{Index: 50, Term: 1}, voting("x"), lineage.Evidence{}))
	p := &lineage.Proof{Entry: forged.Last()}
	p.Add("x", ed25519.Sign(secret("x"), lineage.Statement(forged.Head())))
	key := keyOf("a")
	if err := key.Check(chain.Last(), p); !errors.Is(err, lineage.ErrUnproven) {
		t.Errorf("a stranger's word for itself: %v", err)
	}
	if err := key.Check(nil, p); err != nil {
		t.Errorf("without the entry before it can only be taken at its word: %v", err)
	}
}

func TestAnswersThatAreNoAnswers(t *testing.T) {
	_, left, _ := history()
	core, now := NewCore(keyOf("a")), time.Unix(0, 0)
	core.Note(now, Replica{Chain: left, Leads: true})
	head := left.Head()
	if err := core.Take(head, []byte("nonsense")); err == nil {
		t.Error("nonsense was taken")
	}
	other := &lineage.Proof{Entry: left.Entries()[2]}
	wrong := &lineage.Proof{Entry: left.Last()}
	for _, id := range []anchormesh.NodeID{"b", "c", "x"} {
		other.Add(id, ed25519.Sign(secret(id), lineage.Statement(other.Entry.Hash())))
		wrong.Add(id, ed25519.Sign(secret("x"), lineage.Statement(head)))
	}
	for _, p := range []*lineage.Proof{other, wrong} {
		if err := core.Take(head, p.Encode()); err != nil {
			t.Error(err)
		}
	}
	if w := core.wants[head]; w == nil || len(w.proof.Signatures) != 1 {
		t.Error("signatures that are none were counted")
	}
	if _, err := core.Answer(anchormesh.Hash{1}); !errors.Is(err, ErrUnknown) {
		t.Errorf("of an entry that nobody knows: %v", err)
	}
	if asks := core.Due(now); len(asks) == 0 || len(core.Due(now)) != 0 {
		t.Errorf("%d questions, and the same again at once", len(asks))
	}
}

func TestFile(t *testing.T) {
	_, left, _ := history()
	core := NewCore(keyOf("a"))
	core.Note(time.Unix(0, 0), Replica{Chain: left, Leads: true})
	k := &Keeper{core: core}
	text := k.render()
	if got := must(parse(text)); len(got) != 1 || got[0].Entry.Kind != lineage.Genesis {
		t.Errorf("%d proofs came back, want that of the genesis, which a alone can give", len(got))
	}
	for i := range text {
		bad := bytes.Clone(text)
		bad[i] ^= 1
		if _, err := parse(bad); err == nil {
			t.Fatalf("damage at byte %d was not seen", i)
		}
		if _, err := parse(text[:i]); err == nil {
			t.Fatalf("a file cut to %d bytes was taken", i)
		}
	}
	files := fsys.NewMem()
	var log strings.Builder
	if err := fsys.WriteSmall(files, "/", File, []byte("not it")); err != nil {
		t.Fatal(err)
	}
	kept := New(Config{Key: keyOf("a"), Files: files, Dir: "/", Logger: slog.New(slog.NewTextHandler(&log, nil))}, nil, nil)
	if kept.old != nil || !strings.Contains(log.String(), "gathered again") {
		t.Errorf("a damaged file: %q", log.String())
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(fileHead))
	f.Add(Request(1, anchormesh.Hash{1}, []byte{1, 2}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := parse(data); err == nil && !bytes.HasPrefix(data, []byte(fileHead)) {
			t.Error("a file of another format was taken")
		}
		if s, h, own, err := ParseRequest(data); err == nil && !bytes.Equal(Request(s, h, own), data) {
			t.Error("a request has two forms")
		}
	})
}

// The file of thousands of proofs takes a while to write, and is written more rarely.
func TestALargeFileIsWrittenMoreRarely(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		0: saveWait, 20 * time.Millisecond: saveWait, 200 * time.Millisecond: 10 * time.Second, time.Minute: saveMost,
	} {
		if got := saveAfter(took); got != want {
			t.Errorf("after %v: %v, want %v", took, got, want)
		}
	}
}
