package keyspace

import (
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

func lockOn(key string, exclusive bool) commit.Lock {
	return commit.Lock{Range: anchormesh.RequestRange([]byte(key), nil), Exclusive: exclusive}
}

// prepareCommand makes a prepare of writes to single keys.
func prepareCommand(stamp int64, id byte, term uint64, writes ...commit.Write) []byte {
	c := &commit.Prepare{Txn: commit.TxnID{id}, Grant: commit.Grant{Place: commit.Place{Term: term}}, Writes: writes}
	for i := range writes {
		writes[i].Sub = uint32(2 * i)
		c.Locks = append(c.Locks, lockOn(string(writes[i].Key), true))
		c.Spans = append(c.Spans, c.Locks[i].Range)
	}
	c.Decision = writes[0].Key
	return append(append(AppendStamp(nil, stamp), byte(OpPrepare)), c.Encode()...)
}

func commitCommand(id byte, rev int64) []byte {
	return AppendCommand(nil, OpCommit, (&commit.Finish{Txn: commit.TxnID{id}, Verdict: commit.Verdict{Commit: true, Revision: rev}}).Encode())
}

func decideCommand(id byte, rev int64, key string) []byte {
	return AppendCommand(nil, OpDecide, (&commit.Decide{
		Txn: commit.TxnID{id}, Verdict: commit.Verdict{Commit: rev > 0, Revision: rev}, Key: []byte(key),
	}).Encode())
}

func putOf(key string) *pb.PutRequest { return &pb.PutRequest{Key: []byte(key), Value: []byte("v")} }

// What is prepared stands in the way of everything that touches it, and of nothing
// else, until it is decided; its commit comes below what was written in between
// (counterexample 2).
func TestWhatIsPreparedStandsInTheWay(t *testing.T) {
	d := newDriver(t)
	d.grant(7, 60)
	for i, k := range []string{"a", "b", "c"} {
		if o := d.raw(stampedCommand(int64(2+i), OpPut, putOf(k))); o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	o := d.raw(prepareCommand(10, 1, 1, commit.Write{Key: []byte("a"), Value: []byte("w"), Lease: 7}, commit.Write{Key: []byte("b"), Delete: true}))
	if r, err := commit.DecodeReply(o.Response); o.Err != nil || err != nil || r.Stamp != 10 {
		t.Fatalf("prepare: %+v, %v", r, o.Err)
	}
	for name, cmd := range map[string][]byte{
		"put":          stampedCommand(20, OpPut, putOf("a")),
		"delete":       stampedCommand(20, OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}}),
		"compare":      stampedCommand(20, OpTxn, &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("b")}}}),
		"end of lease": stampedCommand(20, OpLeaseRevoke, &pb.LeaseRevokeRequest{ID: 7}),
		"compaction":   stampedCommand(20, OpCompact, &pb.CompactionRequest{Revision: 11}),
		"prepare":      prepareCommand(20, 2, 1, commit.Write{Key: []byte("b"), Value: []byte("x")}),
	} {
		want := ErrLocked
		if name == "prepare" {
			want = commit.ErrConflict
		}
		if o := d.raw(cmd); !errors.Is(o.Err, want) {
			t.Errorf("%s: %v", name, o.Err)
		}
	}
	if o := d.raw(stampedCommand(10, OpPut, putOf("c"))); !errors.Is(o.Err, ErrStampOrder) {
		t.Errorf("a stamp at that of a prepare: %v", o.Err)
	}
	if o := d.raw(stampedCommand(12, OpPut, putOf("c"))); o.Err != nil {
		t.Errorf("a put beside it: %v", o.Err)
	}
	if o := d.raw(stampedCommand(12, OpCompact, &pb.CompactionRequest{Revision: 3})); o.Err != nil {
		t.Errorf("a compaction below it: %v", o.Err)
	}
	if got := d.get(codec.RangeRequest{Key: []byte("c")}); got.Header.Revision != 10 || got.Kvs[0].ModRevision != 4 {
		t.Errorf("a read beside it, of what is complete: %v", got)
	}
	if o := d.raw(commitCommand(1, 11)); o.Err != nil {
		t.Fatal(o.Err)
	}
	got := d.get(codec.RangeRequest{Key: []byte("a"), RangeEnd: []byte{0}})
	if got.Header.Revision != 12 || got.Count != 2 || got.Kvs[0].ModRevision != 11 || got.Kvs[0].Lease != 7 || got.Kvs[1].ModRevision != 12 {
		t.Errorf("behind the commit: %v", got)
	}
	if o := d.raw(stampedCommand(20, OpLeaseRevoke, &pb.LeaseRevokeRequest{ID: 7})); o.Err != nil {
		t.Errorf("end of the lease: %v", o.Err)
	}
	if got := d.get(codec.RangeRequest{Key: []byte("a")}); got.Count != 0 {
		t.Errorf("the key outlived its lease: %v", got)
	}
}

// All that can refuse refuses at the prepare; the commit never does, whatever has
// happened in between (counterexample 2c).
func TestRefusalsComeWithThePrepare(t *testing.T) {
	d := newDriver(t)
	write := commit.Write{Key: []byte("a"), Value: []byte("w")}
	leased := write
	leased.Lease = 9
	for name, c := range map[string]struct {
		cmd  []byte
		want error
	}{
		"another term": {prepareCommand(10, 1, 2, write), commit.ErrLockLost},
		"no lease":     {prepareCommand(10, 1, 1, leased), ErrLeaseNotFound},
		"no stamp":     {prepareCommand(10, 1, 1, write)[StampBytes:], codec.ErrMalformed},
		"cut short":    {prepareCommand(10, 1, 1, write)[:40], commit.ErrMalformed},
	} {
		if o := d.raw(c.cmd); !errors.Is(o.Err, c.want) {
			t.Errorf("%s: %v", name, o.Err)
		}
	}
	if d.space.Unsettled() {
		t.Error("a refused prepare left something")
	}
	if o := d.raw(prepareCommand(11, 1, 1, write)); o.Err != nil {
		t.Fatal(o.Err)
	}
	for _, kind := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		d.must(OpAlarm, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 1, Alarm: kind})
	}
	if o := d.raw(prepareCommand(12, 2, 1, commit.Write{Key: []byte("b")})); !errors.Is(o.Err, ErrCorrupt) {
		t.Errorf("a prepare under alarms: %v", o.Err)
	}
	if o := d.raw(decideCommand(1, 20, "a")); o.Err != nil {
		t.Errorf("a decision under alarms: %v", o.Err)
	}
}

// The first decision stands; a coordinator that comes late finds nothing to commit,
// even when the abort has been forgotten.
func TestALateCommitFindsNothing(t *testing.T) {
	d := newDriver(t)
	write := commit.Write{Key: []byte("a"), Value: []byte("w")}
	d.raw(prepareCommand(10, 1, 1, write))
	if o := d.raw(decideCommand(1, 0, "a")); o.Err != nil {
		t.Fatal(o.Err)
	}
	o := d.raw(decideCommand(1, 20, "a"))
	if r, err := commit.DecodeReply(o.Response); err != nil || r.Commit {
		t.Errorf("a commit behind the abort: %+v, %v, %v", r, o.Err, err)
	}
	if o := d.raw(prepareCommand(21, 1, 1, write)); !errors.Is(o.Err, commit.ErrDecided) {
		t.Errorf("a prepare behind the abort: %v", o.Err)
	}
	d.raw(AppendCommand(nil, OpForget, commit.EncodeID(commit.TxnID{1})))
	if o := d.raw(decideCommand(1, 30, "a")); !errors.Is(o.Err, commit.ErrNotPrepared) {
		t.Errorf("a commit behind the forgotten abort: %v", o.Err)
	}
	if d.space.Unsettled() {
		t.Error("something is left")
	}
}

// commitsLog makes a random log of writes, prepares and what ends them.
type commitsLog struct {
	rng      *rand.Rand
	number   int64
	next     byte
	prepared map[byte][]string
}

// spare returns the revision of a commit that is applied behind higher stamps: numbers of
// stamps are odd, those of commits even.
func (l *commitsLog) spare() int64 {
	at := l.number + 1
	l.number += 2 * int64(1+l.rng.Intn(3))
	return at
}

func (l *commitsLog) command() []byte {
	key := func() string { return fmt.Sprintf("k%d", l.rng.Intn(12)) }
	stamp := func() int64 { l.number += 2; return l.number }
	if ids := slices.Sorted(maps.Keys(l.prepared)); len(ids) > 0 && l.rng.Intn(3) == 0 {
		id := ids[l.rng.Intn(len(ids))]
		first := l.prepared[id][0]
		delete(l.prepared, id)
		switch l.rng.Intn(4) {
		case 0:
			return AppendCommand(nil, OpAbort, (&commit.Finish{Txn: commit.TxnID{id}}).Encode())
		case 1:
			return decideCommand(id, l.spare(), first)
		}
		return commitCommand(id, l.spare())
	}
	switch l.rng.Intn(5) {
	case 0:
		l.next++
		var writes []commit.Write
		for _, k := range l.rng.Perm(12)[:1+l.rng.Intn(3)] {
			writes = append(writes, commit.Write{Key: fmt.Append(nil, "k", k), Value: []byte("t")})
			l.prepared[l.next] = append(l.prepared[l.next], fmt.Sprint("k", k))
		}
		return prepareCommand(stamp(), l.next, 1, writes...)
	case 1:
		return stampedCommand(stamp(), OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte(key()), RangeEnd: []byte{0}})
	case 2:
		return AppendCommand(nil, OpForget, commit.EncodeID(commit.TxnID{byte(l.rng.Intn(int(l.next) + 1))}))
	}
	return stampedCommand(stamp(), OpPut, putOf(key()))
}

// follower keeps what Space.OnHold told.
type follower struct {
	t      *testing.T
	held   map[int64]bool
	lowest int64
}

func (f *follower) hold(h Hold) {
	switch {
	case h.Stamp == 0:
	case h.Released:
		delete(f.held, h.Stamp)
	case f.held[h.Stamp]:
		f.t.Errorf("stamp %d is held twice", h.Stamp)
	default:
		f.held[h.Stamp] = true
	}
	f.lowest = h.Lowest
}

func (f *follower) check(s *Space) {
	f.t.Helper()
	stamps, _ := s.Held()
	slices.Sort(stamps)
	told := slices.Sorted(maps.Keys(f.held))
	lowest := int64(0)
	if len(stamps) > 0 {
		lowest = stamps[0]
	}
	if !slices.Equal(stamps, told) || f.lowest != lowest {
		f.t.Fatalf("held %v, told %v, lowest %d", stamps, told, f.lowest)
	}
}

// However the log is cut into entries and wherever a replica restarts, all replicas
// hold the same keys, prepared transactions and decisions; and whoever follows hears of
// each of them once.
func TestCommitsAreTheSameOnEveryReplica(t *testing.T) {
	for range 15 {
		seed := rand.Int63()
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewSource(seed))
			log := &commitsLog{rng: rng, number: 1, prepared: map[byte][]string{}}
			var entries [][][]byte
			for range 150 {
				var e [][]byte
				for range 1 + rng.Intn(3) {
					e = append(e, log.command())
				}
				entries = append(entries, e)
			}
			a, b := newReplica(t), newReplica(t)
			f := &follower{t: t, held: map[int64]bool{}}
			a.space.OnHold(f.hold)
			at := uint64(0)
			for i, e := range entries {
				a.space.Apply(uint64(i+1), 1, e, true)
				f.check(a.space)
				at++
				b.space.Apply(at, 1, e, false)
				switch rng.Intn(8) {
				case 0:
					if err := b.store.Commit(); err != nil {
						t.Fatal(err)
					}
				case 1:
					for at = b.crash(); at < uint64(i+1); at++ {
						b.space.Apply(at+1, 1, entries[at], false)
					}
				}
				sameCommits(t, a.space, b.space)
			}
		})
	}
}

func sameCommits(t *testing.T, a, b *Space) {
	t.Helper()
	state := func(s *Space) string {
		out := ""
		s.Participant(func(p *commit.Participant) {
			for _, r := range p.Records() {
				out += fmt.Sprintf("%+v ", *r)
			}
			for _, d := range p.Decisions() {
				out += fmt.Sprintf("%+v ", *d)
			}
			out += fmt.Sprint("floor ", p.Floor())
		})
		return out
	}
	if x, y := state(a), state(b); x != y {
		t.Fatalf("%s\n%s", x, y)
	}
	x, errX := a.HashKV(0)
	y, errY := b.HashKV(0)
	if x != y || errX != nil || errY != nil {
		t.Fatalf("%+v %v\n%+v %v", x, errX, y, errY)
	}
}

// A cut gives each child its share of what is prepared; both commit it at the same
// revision.
func TestPreparedIsCut(t *testing.T) {
	d := newDriver(t)
	d.raw(prepareCommand(10, 1, 1, commit.Write{Key: []byte("a"), Value: []byte("1")}, commit.Write{Key: []byte("z"), Value: []byte("2")}))
	d.raw(prepareCommand(11, 2, 1, commit.Write{Key: []byte("y"), Value: []byte("3")}))
	f := &follower{t: t, held: map[int64]bool{10: true, 11: true}}
	d.space.OnHold(f.hold)
	d.index++
	b := d.seg.Begin(d.index, 1)
	child := d.space.Cut(b, 2, []byte("m"), mvcc.Meta{Applied: 5, Term: 1})
	b.End()
	if stamps, at := d.space.Held(); !slices.Equal(stamps, []int64{10}) || at != d.index || f.lowest != 10 {
		t.Errorf("left holds %v as of %d, told %d", stamps, at, f.lowest)
	}
	right, err := NewSpace(child, testIDs, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	stamps, _ := right.Held()
	if slices.Sort(stamps); !slices.Equal(stamps, []int64{10, 11}) {
		t.Errorf("right holds %v", stamps)
	}
	for _, cmds := range [][][]byte{{stampedCommand(12, OpPut, putOf("x"))}, {commitCommand(1, 11)}} {
		applied, _ := child.Applied()
		if o := right.Apply(applied+1, 1, cmds, true)[0]; o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	d.raw(commitCommand(1, 11))
	if got := d.get(codec.RangeRequest{Key: []byte("a")}); len(got.Kvs) != 1 || got.Kvs[0].ModRevision != 11 {
		t.Errorf("left: %v", got)
	}
	if v := child.ReadAt(12); true {
		res, err := v.Range([]byte("z"), nil, 0, 0, false)
		if err != nil || len(res.KVs) != 1 || res.KVs[0].Mod != 11 {
			t.Errorf("right: %v, %v", res, err)
		}
		v.Close()
	}
}

// What a transaction reads in a segment that was absorbed a moment ago is not nothing.
func TestReadLockedOfWhatIsGone(t *testing.T) {
	d := newDriver(t)
	d.index++
	b := d.seg.Begin(d.index, 1)
	child := d.space.Cut(b, 2, []byte("m"), mvcc.Meta{Applied: 5, Term: 1})
	b.End()
	right, err := NewSpace(child, testIDs, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	d.index++
	b = d.seg.Begin(d.index, 1)
	d.space.Absorb(b, right, 0)
	b.End()
	got, err := right.ReadLocked([]commit.Read{{Range: anchormesh.KeyRange{Start: []byte("x"), End: []byte("z")}}}, 0)
	if !errors.Is(err, ErrWrongSegment) {
		t.Errorf("read %+v, %v; want %v", got, err, ErrWrongSegment)
	}
}

// A segment that counts takes a prepare at the next number; the commit's, which was
// claimed before, lies below what is counted afterwards.
func TestPrepareWhereTheSegmentCounts(t *testing.T) {
	d := newDriver(t)
	d.space.SetPlace(0, "", true)
	d.grant(7, 60)
	before, _ := d.space.Revision()
	o := d.raw(prepareCommand(99, 1, 1, commit.Write{Key: []byte("a"), Value: []byte("w")})[StampBytes:])
	if r, err := commit.DecodeReply(o.Response); o.Err != nil || err != nil || r.Stamp != before+1 {
		t.Fatalf("prepare: %+v, %v, want stamp %d", r, o.Err, before+1)
	}
	if o := d.raw(command(OpPut, putOf("b"))); o.Err != nil {
		t.Fatal(o.Err)
	}
	now, _ := d.space.Revision()
	if now != before+2 {
		t.Errorf("a write behind the prepare got %d, want %d", now, before+2)
	}
	if o := d.raw(commitCommand(1, now+10)); o.Err != nil {
		t.Fatal(o.Err)
	}
	if got := d.get(codec.RangeRequest{Key: []byte("a")}); got.Count != 1 || got.Kvs[0].ModRevision != now+10 {
		t.Errorf("behind the commit: %v", got)
	}
}
