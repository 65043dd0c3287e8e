package keyspace

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// land is some segments of one store, as their applier sees them; the first is the
// leases' home.
type land struct {
	t      testing.TB
	store  *mvcc.Store
	parts  []*Space
	nextID anchormesh.SegmentID
	stamp  int64
}

func newLand(t testing.TB) *land {
	store, err := mvcc.Open(bolt.NewMemory(), mvcc.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	seg, err := store.Create(1, anchormesh.KeyRange{}, mvcc.Meta{})
	if err != nil {
		t.Fatal(err)
	}
	l := &land{t: t, store: store, nextID: 2, stamp: 10}
	l.parts = []*Space{l.serve(seg)}
	return l
}

func (l *land) serve(seg *mvcc.Segment) *Space {
	s, err := NewSpace(seg, testIDs, DefaultLimits())
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *land) home() *Space { return l.parts[0] }

func (l *land) index(key string) int {
	return slices.IndexFunc(l.parts, func(s *Space) bool { return s.seg.KeyRange().Contains([]byte(key)) })
}

func (l *land) of(key string) *Space { return l.parts[l.index(key)] }

func (l *land) apply(s *Space, cmd []byte) Outcome {
	index, _ := s.seg.Applied()
	return s.Apply(index+1, 1, [][]byte{cmd}, true)[0]
}

func (l *land) mark(s *Space, op Op, m codec.LeaseMark) (codec.LeaseMark, error) {
	cmd := AppendCommand(nil, op, codec.AppendLeaseMark(nil, m))
	if op == OpLeaseEnd {
		l.stamp++
		cmd = append(AppendStamp(nil, l.stamp), cmd...)
	}
	o := l.apply(s, cmd)
	var out codec.LeaseMark
	if o.Err == nil && (op == OpLeaseRegister || op == OpLeaseFinish) {
		if err := codec.ParseLeaseMark(o.Response, &out); err != nil {
			l.t.Fatal(err)
		}
	}
	return out, o.Err
}

func (l *land) grant(id int64) error {
	return l.apply(l.home(), command(OpLeaseGrant, &pb.LeaseGrantRequest{ID: id, TTL: 60})).Err
}

func (l *land) ending(id int64) error {
	l.stamp++
	cmd := AppendCommand(nil, OpLeaseEnding, codec.AppendLeaseExpiry(nil, codec.LeaseExpiry{ID: id}))
	return l.apply(l.home(), append(AppendStamp(nil, l.stamp), cmd...)).Err
}

func (l *land) put(key string, id int64) error {
	l.stamp++
	return l.apply(l.of(key), stampedCommand(l.stamp, OpPut, &pb.PutRequest{Key: []byte(key), Lease: id})).Err
}

func (l *land) cut(at string) {
	i := l.index(at)
	left := l.parts[i]
	if string(left.seg.KeyRange().Start) == at {
		return
	}
	applied, _ := left.seg.Applied()
	b := left.seg.Begin(applied+1, 1)
	child := left.Cut(b, l.nextID, []byte(at), mvcc.Meta{Applied: 5, Term: 1})
	b.End()
	l.nextID++
	if err := l.store.Commit(); err != nil {
		l.t.Fatal(err)
	}
	<-child.Synced()
	l.parts = slices.Insert(l.parts, i+1, l.serve(child))
}

func (l *land) absorb(i int) {
	left, right := l.parts[i], l.parts[i+1]
	applied, _ := left.seg.Applied()
	b := left.seg.Begin(applied+1, 1)
	left.Absorb(b, right, 0)
	b.End()
	l.parts = slices.Delete(l.parts, i+1, i+2)
}

// attach is what a node does to hang a key on a lease: put, and where the lease is not
// open, register the range, open, put.
func (l *land) attach(key string, id int64) error {
	if err := l.put(key, id); !errors.Is(err, ErrLeaseNotFound) || l.of(key) == l.home() {
		return err
	}
	rng := l.of(key).seg.KeyRange()
	m, err := l.mark(l.home(), OpLeaseRegister, codec.LeaseMark{ID: id, Start: rng.Start, End: rng.End})
	if err == nil {
		_, err = l.mark(l.of(key), OpLeaseOpen, m)
	}
	if err == nil {
		err = l.put(key, id)
	}
	return err
}

// over names the range that a mark is for.
func over(m codec.LeaseMark, rng anchormesh.KeyRange) codec.LeaseMark {
	m.Start, m.End = rng.Start, rng.End
	return m
}

func want(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

// Counterexample 6a: a revocation that fans out while a first attachment is on its
// way leaves no key behind.
func TestAttachRacesRevoke(t *testing.T) {
	l := newLand(t)
	l.cut("m")
	want(t, "grant", l.grant(7), nil)
	rng := l.of("x").seg.KeyRange()
	m, err := l.mark(l.home(), OpLeaseRegister, codec.LeaseMark{ID: 7, Start: rng.Start, End: rng.End})
	want(t, "register", err, nil)
	want(t, "revoke in one step", l.apply(l.home(), command(OpLeaseRevoke, &pb.LeaseRevokeRequest{ID: 7})).Err, ErrLeaseSpread)
	want(t, "ending", l.ending(7), nil)
	_, err = l.mark(l.home(), OpLeaseRegister, codec.LeaseMark{ID: 7, Start: rng.Start})
	want(t, "registration of an ending lease", err, ErrLeaseNotFound)
	spread, _ := l.home().LeaseSpread(7)
	if !spread.Ending || len(spread.Ranges) != 1 || !spread.Ranges[0].Equal(rng) || !slices.Equal(l.home().EndingLeases(), []int64{7}) {
		t.Fatalf("the home knows %+v", spread)
	}
	_, err = l.mark(l.of("x"), OpLeaseEnd, over(spread.Mark, rng)) // before the open
	want(t, "end", err, nil)
	_, err = l.mark(l.of("x"), OpLeaseOpen, m)
	want(t, "open behind the end", err, ErrLeaseNotFound)
	want(t, "put", l.put("x", 7), ErrLeaseNotFound)
	gone, err := l.mark(l.home(), OpLeaseFinish, spread.Mark)
	want(t, "finish", err, nil)
	_, err = l.mark(l.of("x"), OpLeaseForget, gone)
	want(t, "forget", err, nil)
	_, err = l.mark(l.of("x"), OpLeaseOpen, m)
	want(t, "open after all is forgotten", err, ErrLeaseStale)
	want(t, "grant of the ID anew", l.grant(7), nil)
	want(t, "attach", l.attach("x", 7), nil)
}

// Counterexample 6b: a segment that was born meanwhile is not missed; and 6e: each
// segment deletes in one revision of its own.
func TestSplitsWhileALeaseEnds(t *testing.T) {
	l := newLand(t)
	want(t, "grant", l.grant(7), nil)
	for _, k := range []string{"b", "h", "p", "q", "x"} {
		want(t, "attach", l.attach(k, 7), nil)
	}
	want(t, "another lease", l.grant(8), nil)
	want(t, "attach", l.attach("a", 8), nil)
	l.cut("m")
	if l.of("x").LeaseUsable(8, []byte("x")) {
		t.Fatal("a lease without keys in the child is open there")
	}
	want(t, "a put right after the cut", l.put("y", 7), nil)
	want(t, "ending", l.ending(7), nil)
	l.cut("q")
	spread, _ := l.home().LeaseSpread(7)
	if len(spread.Ranges) != 1 || string(spread.Ranges[0].Start) != "m" || len(spread.Ranges[0].End) > 0 {
		t.Fatalf("registered %v", spread.Ranges)
	}
	before, _ := l.of("p").Revision()
	for _, s := range l.parts[1:] {
		_, err := l.mark(s, OpLeaseEnd, over(spread.Mark, spread.Ranges[0]))
		want(t, "end", err, nil)
	}
	_, err := l.mark(l.home(), OpLeaseFinish, spread.Mark)
	want(t, "finish", err, nil)
	for _, s := range l.parts {
		if keys := s.LeaseKeys(7); len(keys) > 0 {
			t.Errorf("%q outlived its lease", keys)
		}
	}
	if p, _ := l.of("p").Revision(); p != before+2 && p <= before {
		t.Errorf("revision %d after %d", p, before)
	}
	if q, _ := l.of("q").Revision(); q == before {
		t.Error("the younger child deleted nothing")
	}
}

// A range that is added while the lease ends keeps it from being finished.
func TestFinishKnowsEveryRange(t *testing.T) {
	l := newLand(t)
	l.cut("m")
	want(t, "grant", l.grant(7), nil)
	want(t, "attach", l.attach("x", 7), nil)
	early, _ := l.home().LeaseSpread(7)
	l.cut("t")
	l.cut("f")
	want(t, "attach", l.attach("g", 7), nil)
	want(t, "ending", l.ending(7), nil)
	_, err := l.mark(l.home(), OpLeaseFinish, early.Mark)
	want(t, "finish as of the first range", err, ErrLeaseSpread)
	late, _ := l.home().LeaseSpread(7)
	other := late.Mark
	other.Since++
	_, err = l.mark(l.home(), OpLeaseFinish, other)
	want(t, "finish of another lease of this ID", err, ErrLeaseNotFound)
	_, err = l.mark(l.home(), OpLeaseFinish, late.Mark)
	want(t, "finish", err, nil)
}

// An absorb makes no lease usable where its home does not know of it.
func TestAbsorbOpensNothing(t *testing.T) {
	l := newLand(t)
	l.cut("g")
	l.cut("m")
	want(t, "grant", l.grant(7), nil)
	want(t, "attach", l.attach("h", 7), nil)
	l.absorb(1)
	want(t, "put", l.put("x", 7), ErrLeaseNotFound)
	want(t, "put", l.put("h", 7), nil)
	want(t, "attach", l.attach("x", 7), nil)
	want(t, "put", l.put("y", 7), nil)
	spread, _ := l.home().LeaseSpread(7)
	if len(spread.Ranges) != 1 || string(spread.Ranges[0].Start) != "g" || len(spread.Ranges[0].End) > 0 {
		t.Fatalf("registered %v", spread.Ranges)
	}
}

// What was forgotten stays forgotten when another segment takes the range over.
func TestAbsorbRemembersWhatWasForgotten(t *testing.T) {
	l := newLand(t)
	l.cut("g")
	l.cut("m")
	want(t, "grant", l.grant(7), nil)
	rng := l.of("x").seg.KeyRange()
	m, err := l.mark(l.home(), OpLeaseRegister, codec.LeaseMark{ID: 7, Start: rng.Start, End: rng.End})
	want(t, "register", err, nil)
	want(t, "ending", l.ending(7), nil)
	_, err = l.mark(l.of("x"), OpLeaseEnd, m)
	want(t, "end", err, nil)
	gone, err := l.mark(l.home(), OpLeaseFinish, m)
	want(t, "finish", err, nil)
	_, err = l.mark(l.of("x"), OpLeaseForget, gone)
	want(t, "forget", err, nil)
	l.absorb(1)
	_, err = l.mark(l.of("x"), OpLeaseOpen, m)
	want(t, "open", err, ErrLeaseStale)
	l.cut("t")
	_, err = l.mark(l.of("x"), OpLeaseOpen, m)
	want(t, "open in a child", err, ErrLeaseStale)
}

// The end of an earlier lease of the same ID comes again and ends nothing.
func TestLateEndOfAnEarlierLease(t *testing.T) {
	l := newLand(t)
	l.cut("m")
	rng := l.of("x").seg.KeyRange()
	var first LeaseSpread
	for i := range 2 {
		want(t, "grant", l.grant(7), nil)
		want(t, "attach", l.attach("x", 7), nil)
		if i > 0 {
			break
		}
		first, _ = l.home().LeaseSpread(7)
		want(t, "ending", l.ending(7), nil)
		_, err := l.mark(l.of("x"), OpLeaseEnd, over(first.Mark, rng))
		want(t, "end", err, nil)
		_, err = l.mark(l.home(), OpLeaseFinish, first.Mark)
		want(t, "finish", err, nil) // and nobody forgets the mark
	}
	_, err := l.mark(l.of("x"), OpLeaseEnd, over(first.Mark, rng))
	want(t, "the first end again", err, nil)
	if keys := l.of("x").LeaseKeys(7); len(keys) != 1 || !l.of("x").LeaseUsable(7, []byte("y")) {
		t.Fatalf("the second lease has keys %q", keys)
	}
	second, _ := l.home().LeaseSpread(7)
	want(t, "ending", l.ending(7), nil)
	_, err = l.mark(l.home(), OpLeaseFinish, first.Mark)
	want(t, "finish of the first", err, ErrLeaseNotFound)
	_, err = l.mark(l.of("x"), OpLeaseEnd, over(second.Mark, rng))
	want(t, "the second end", err, nil)
	if keys := l.of("x").LeaseKeys(7); len(keys) != 0 {
		t.Fatalf("%q outlived the second lease", keys)
	}
}

// errand is a message of a node that may be late.
type errand struct {
	op  Op
	m   codec.LeaseMark
	rng anchormesh.KeyRange // OpLeaseEnd, OpLeaseForget: what still has to hear of it
}

// TestLeasesOverSegments hangs keys on leases and ends leases in segments that are
// cut and absorbed, with messages late, repeated and in any order. No key outlives its
// lease, and what is stored is what is in memory.
func TestLeasesOverSegments(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 11))
		l := newLand(t)
		var late []errand
		finishing := map[int64]*[]errand{}
		for range 250 {
			key, id := fmt.Sprintf("k%02d", rng.IntN(40)), int64(1+rng.IntN(4))
			switch rng.IntN(12) {
			case 0:
				l.grant(id)
			case 1, 2, 3:
				l.put(key, id)
			case 4, 5:
				r := l.of(key).seg.KeyRange()
				if m, err := l.mark(l.home(), OpLeaseRegister, codec.LeaseMark{ID: id, Start: r.Start, End: r.End}); err == nil {
					late = append(late, errand{op: OpLeaseOpen, m: m, rng: anchormesh.RequestRange([]byte(key), nil)})
				}
			case 6, 7:
				if len(late) > 0 {
					l.deliver(&late, rng)
				}
			case 8:
				if spread, ok := l.home().LeaseSpread(id); ok && !spread.Ending && rng.IntN(2) == 0 {
					want(t, "ending", l.ending(id), nil)
					finishing[id] = nil
				}
			case 9:
				l.finish(id, finishing, &late, rng)
			case 10:
				l.cut(key)
			case 11:
				if len(l.parts) > 1 {
					l.absorb(rng.IntN(len(l.parts) - 1))
				}
			}
			l.check(fmt.Sprint("seed ", seed))
		}
	}
}

// deliver takes one message to whoever owns its range now; sometimes it comes again.
func (l *land) deliver(late *[]errand, rng *rand.Rand) {
	i := rng.IntN(len(*late))
	e := (*late)[i]
	*late = slices.Delete(*late, i, i+1)
	s := l.of(string(e.rng.Start))
	_, err := l.mark(s, e.op, e.m)
	if rng.IntN(4) == 0 {
		*late = append(*late, e)
	}
	if e.op != OpLeaseForget || err != nil {
		return
	}
	if rest, some := beyond(e.rng, s.seg.KeyRange()); some {
		*late = append(*late, errand{e.op, e.m, rest})
	}
}

func beyond(r, done anchormesh.KeyRange) (anchormesh.KeyRange, bool) {
	if len(done.End) == 0 || len(r.End) > 0 && bytes.Compare(r.End, done.End) <= 0 {
		return r, false
	}
	return anchormesh.KeyRange{Start: done.End, End: r.End}, true
}

// finish does one step towards the end of an ending lease.
func (l *land) finish(id int64, all map[int64]*[]errand, late *[]errand, rng *rand.Rand) {
	todo, ending := all[id]
	if !ending {
		return
	}
	spread, _ := l.home().LeaseSpread(id)
	if todo == nil {
		todo = new([]errand)
		for _, r := range spread.Ranges {
			*todo = append(*todo, errand{OpLeaseEnd, over(spread.Mark, r), r})
		}
		all[id] = todo
	}
	if len(*todo) > 0 {
		i := rng.IntN(len(*todo))
		e := (*todo)[i]
		s := l.of(string(e.rng.Start))
		_, err := l.mark(s, OpLeaseEnd, e.m)
		want(l.t, "end", err, nil)
		*todo = slices.Delete(*todo, i, i+1)
		if rng.IntN(3) == 0 {
			*late = append(*late, e) // it comes again
		}
		if rest, some := beyond(e.rng, s.seg.KeyRange()); some {
			*todo = append(*todo, errand{e.op, e.m, rest})
		}
		return
	}
	m := spread.Mark
	gone, err := l.mark(l.home(), OpLeaseFinish, m)
	if errors.Is(err, ErrLeaseSpread) {
		all[id] = nil // look again
		return
	}
	want(l.t, "finish", err, nil)
	delete(all, id)
	for _, r := range spread.Ranges {
		*late = append(*late, errand{OpLeaseForget, gone, r})
	}
}

// check: what hangs on a lease hangs on one that its home knows, and every segment
// comes back from the store as it is.
func (l *land) check(what string) {
	l.t.Helper()
	for _, s := range l.parts {
		for id := int64(1); id <= 4; id++ {
			_, known := l.home().LeaseSpread(id)
			if keys := s.LeaseKeys(id); len(keys) > 0 && !known {
				l.t.Fatalf("%s: %q outlived lease %d", what, keys, id)
			}
		}
		again := l.serve(s.seg)
		if again.leases.floor != s.leases.floor || !reflect.DeepEqual(again.leases.byID, s.leases.byID) {
			l.t.Fatalf("%s: leases of %s were stored as %+v, are %+v", what, s.seg.KeyRange(), again.leases.byID, s.leases.byID)
		}
		for id := range s.leases.byID {
			if a, b := again.LeaseKeys(id), s.LeaseKeys(id); !reflect.DeepEqual(a, b) {
				l.t.Fatalf("%s: lease %d of %s has %q, stored keys say %q", what, id, s.seg.KeyRange(), b, a)
			}
		}
	}
}

// FuzzLeaseRows: stored rows are read to the same meaning or refused.
func FuzzLeaseRows(f *testing.F) {
	row := &leaseRow{home: true, ending: true, since: 9, changed: 300, ranges: []anchormesh.KeyRange{{Start: []byte("a"), End: []byte("b")}, {Start: []byte("c")}}}
	f.Add(encodeSpread(row), true)
	f.Add(encodeFloor(7), false)
	f.Fuzz(func(t *testing.T, b []byte, home bool) {
		r, err := decodeSpread(leaseKey(5), b, home)
		if err != nil {
			return
		}
		if back, err := decodeSpread(leaseKey(5), encodeSpread(r), home); err != nil || !reflect.DeepEqual(back, r) {
			t.Fatalf("%+v came back as %+v, %v", r, back, err)
		}
	})
}
