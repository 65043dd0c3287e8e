package trust

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/hosttest"
)

const segment anchormesh.SegmentID = 9

// world is a segment with three voters, of which "a" leads, and writes.
type world struct {
	t       *testing.T
	net     *meshtest.Network
	nodes   map[anchormesh.NodeID]*hosttest.Node
	keepers map[anchormesh.NodeID]*Keeper
	stop    context.CancelFunc
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, net: meshtest.NewNetwork(1), nodes: map[anchormesh.NodeID]*hosttest.Node{}, keepers: map[anchormesh.NodeID]*Keeper{}}
	for _, id := range []anchormesh.NodeID{"a", "b", "c"} {
		w.nodes[id] = hosttest.Start(t, hosttest.NewDisk(t), w.net, id)
	}
	a := w.nodes["a"]
	if err := a.Host.Genesis(7, segment, "", 3); err != nil {
		t.Fatal(err)
	}
	a.Put(segment, "k", "0")
	a.Join(segment, w.nodes["b"], w.nodes["c"])
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	t.Cleanup(stop)
	for id, n := range w.nodes {
		cfg := DefaultConfig()
		cfg.Self, cfg.Sign, cfg.Verify, cfg.Logger = id, n.Sign, hosttest.Signed, slog.New(slog.DiscardHandler)
		k := New(cfg, n.Host, n.Engine, n.Mesh)
		n.Mesh.HandleCalls(Method, k.Serve)
		w.keepers[id] = k
		go func() { _ = k.Run(ctx) }()
	}
	return w
}

// use writes through the leader for so long.
func (w *world) use(d time.Duration) {
	w.t.Helper()
	for n, begin := 0, time.Now(); time.Since(begin) < d; n++ {
		w.nodes["a"].Put(segment, fmt.Sprintf("k%d", n%100), "v")
		<-time.After(200 * time.Millisecond)
	}
}

func (w *world) ledger() *trust.Ledger {
	r, _ := w.nodes["a"].Host.Get(segment)
	return r.Machine.State().Trust
}

// falls uses the segment until c has lost weight and the others have not.
func (w *world) falls(what string) {
	w.t.Helper()
	before := w.ledger()
	w.use(time.Minute)
	after := w.ledger()
	if after.Weight("c") >= before.Weight("c") {
		w.t.Errorf("%s: c weighs %d, before %d: %v", what, after.Weight("c"), before.Weight("c"), after.Last())
	}
	if after.Weight("a") < before.Weight("a") || after.Weight("b") < before.Weight("b") {
		w.t.Errorf("%s: the others are blamed: %v, before %v", what, after.Weights(), before.Weights())
	}
}

// recovers uses the segment until c weighs as much as it did.
func (w *world) recovers(what string) {
	w.t.Helper()
	w.use(7 * time.Minute)
	if l := w.ledger(); l.Weight("c") != trust.Cap || l.Weight("a") != trust.Cap || l.Replay() != nil {
		w.t.Errorf("%s: it is over, and weights are %v (replay: %v)", what, l.Weights(), l.Replay())
	}
}

// Experiment 5: an anchor that is slow, flaps, lags or holds other keys loses weight, and
// has it again when it is well.
func TestWeightFollowsBehaviour(t *testing.T) {
	both := func(w *world, l meshtest.Link) {
		for _, other := range []anchormesh.NodeID{"a", "b"} {
			w.net.SetLink("c", other, l)
			w.net.SetLink(other, "c", l)
		}
	}
	for name, trouble := range map[string]func(w *world) (over func()){
		"dead": func(w *world) func() {
			both(w, meshtest.Link{Cut: true})
			return func() { both(w, meshtest.Link{}) }
		},
		"slow": func(w *world) func() {
			both(w, meshtest.Link{Delay: 600 * time.Millisecond})
			return func() { both(w, meshtest.Link{}) }
		},
		"flapping": func(w *world) func() {
			ctx, stop := context.WithCancel(context.Background())
			over := make(chan struct{})
			go func() {
				defer close(over)
				for n := 0; ; n++ {
					both(w, meshtest.Link{Cut: n%4 == 0})
					select {
					case <-time.After(3 * time.Second):
					case <-ctx.Done():
						both(w, meshtest.Link{})
						return
					}
				}
			}()
			return func() { stop(); <-over }
		},
		"lagging": func(w *world) func() { // it answers, and has applied nothing for long
			w.nodes["c"].Mesh.HandleCalls(Method, func(from anchormesh.NodeID, p []byte, to mesh.Responder) {
				w.doctored(from, p, to, func(r *reply) { r.applied -= min(r.applied, 50) })
			})
			return func() { w.nodes["c"].Mesh.HandleCalls(Method, w.keepers["c"].Serve) }
		},
		"corrupt": func(w *world) func() { // its keys are not those of the others
			w.nodes["c"].Mesh.HandleCalls(Method, func(from anchormesh.NodeID, p []byte, to mesh.Responder) {
				w.doctored(from, p, to, func(r *reply) { r.hash[0] ^= 1 })
			})
			return func() { w.nodes["c"].Mesh.HandleCalls(Method, w.keepers["c"].Serve) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "dead" {
				t.Skip("a quarter of an hour of the bubble's time each")
			}
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.recovers("the beginning")
				over := trouble(w)
				w.falls(name)
				over()
				w.recovers(name)
				w.stop()
			})
		})
	}
}

// doctored answers as c's keeper does, but for what change does to each reply.
func (w *world) doctored(from anchormesh.NodeID, payload []byte, to mesh.Responder, change func(*reply)) {
	if payload[0] != askApplied {
		w.keepers["c"].Serve(from, payload, to)
		return
	}
	list, err := parseQuestions(payload[1:])
	if err != nil {
		w.t.Error(err)
	}
	replies := w.keepers["c"].answer(list)
	for i := range replies {
		change(&replies[i])
	}
	to.Reply(appendReplies(nil, replies))
}

// Nothing is written when nothing changes, and a segment that sleeps goes on sleeping.
func TestNothingIsWrittenWhenNothingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.recovers("the beginning")
		before := w.ledger().Version()
		w.use(2 * time.Minute)
		if now := w.ledger().Version(); now != before {
			t.Errorf("%d entries in a content group", now-before)
		}
		<-time.After(10 * time.Second)
		applied := w.applied()
		<-time.After(10 * time.Minute)
		st, _ := w.nodes["a"].Engine.Status(segment)
		if now := w.applied(); now != applied || !st.Asleep {
			t.Errorf("a segment at rest: applied %d, before %d; asleep %v", now, applied, st.Asleep)
		}
		w.stop()
	})
}

// A segment that nobody uses is not judged, even while it is awake: entries about it would
// keep it awake, and with thousands of them nodes too busy to answer, which brings more.
func TestNobodyIsJudgedWhereNothingHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.use(15 * time.Second)
		read := func(seconds int) { // it wakes and keeps awake
			for range seconds {
				done := make(chan struct{})
				w.nodes["a"].Engine.ReadIndex(segment, func(uint64, error) { close(done) })
				<-done
				<-time.After(time.Second)
			}
		}
		read(20) // what was done last is judged once
		before := w.ledger().Version()
		read(600)
		if now := w.ledger(); now.Version() != before || now.Weight("c") == trust.Cap {
			t.Errorf("%d entries about a segment that was only read", now.Version()-before)
		}
		b, _ := w.nodes["b"].Host.Get(segment)
		w.nodes["a"].Engine.TransferLeader(segment, b.ID)
		read(60)
		if now := w.ledger(); now.Version() != before {
			t.Errorf("%d entries about a segment that elected a leader", now.Version()-before)
		}
		for _, k := range w.keepers {
			if len(k.seen) != 1 {
				t.Errorf("%d segments are remembered", len(k.seen))
			}
		}
		<-time.After(5 * time.Minute)
		for _, k := range w.keepers {
			k.mu.Lock()
			if len(k.seen) != 0 {
				t.Errorf("%d segments are remembered that slept for minutes", len(k.seen))
			}
			k.mu.Unlock()
		}
		w.stop()
	})
}

// Entries are made while an anchor is dead: by the other two.
func TestTrustEntriesWhileDegraded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.net.Crash("c")
		before := w.ledger().Version()
		w.use(time.Minute)
		l := w.ledger()
		if l.Version() == before || len(l.Last()) != 2 || l.Weight("c") >= trust.Newcomer {
			t.Errorf("version %d, %d reports, weights %v", l.Version(), len(l.Last()), l.Weights())
		}
		w.stop()
	})
}

// A report that its sender did not sign counts against the sender, and not for anything.
func TestForgedReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.recovers("the beginning")
		w.nodes["c"].Mesh.HandleCalls(Method, func(from anchormesh.NodeID, p []byte, to mesh.Responder) {
			if p[0] != askReport {
				w.keepers["c"].Serve(from, p, to)
				return
			}
			to.Reply(appendReport(nil, &trust.Report{Measures: []trust.Measure{{Missed: 30}, {Missed: 30}, {}}, Signature: []byte("c")}))
		})
		w.use(time.Minute)
		if l := w.ledger(); l.Weight("a") != trust.Cap || l.Weight("b") != trust.Cap {
			t.Errorf("forged reports moved weights: %v", l.Weights())
		}
		if m := w.keepers["a"].Measured(segment)["c"]; m.Invalid == 0 {
			t.Errorf("nobody holds it against the forger: %+v", m)
		}
		w.stop()
	})
}

func FuzzParse(f *testing.F) {
	f.Add(appendQuestions(nil, []question{{segment: 9, generation: 1, revision: 4, from: []byte("k")}})[1:])
	f.Add(appendReplies(nil, []reply{{here: true, applied: 7}, {}, {here: true, applied: 9, hashed: true}}))
	f.Add((&wanted{9, 1, 2, 3}).append(nil)[1:])
	f.Add(appendReport(nil, &trust.Report{Measures: []trust.Measure{{Answered: 3}}, Signature: []byte("s")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if list, err := parseQuestions(data); err == nil {
			if again, err := parseQuestions(appendQuestions(nil, list)[1:]); err != nil || len(again) != len(list) {
				t.Fatal(err)
			}
		}
		if list, err := parseReplies(data); err == nil {
			if again, err := parseReplies(appendReplies(nil, list)); err != nil || len(again) != len(list) {
				t.Fatal(err)
			}
		}
		if w, err := parseWanted(data); err == nil {
			if again, err := parseWanted(w.append(nil)[1:]); err != nil || again != w {
				t.Fatal(err)
			}
		}
		if r, err := parseReport(data); err == nil {
			again, err := parseReport(appendReport(nil, &r))
			if err != nil || len(again.Measures) != len(r.Measures) || !bytes.Equal(again.Signature, r.Signature) {
				t.Fatal(err)
			}
		}
	})
}

func (w *world) applied() uint64 {
	st, _ := w.nodes["a"].Engine.Status(segment)
	return st.Applied
}
