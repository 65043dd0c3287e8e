package keyspace

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

var testIDs = Identity{ClusterID: 0xc1, MemberID: 0xfeedfacecafebeef}

// replica is a space over a memory store that survives a crash of the process:
// what was committed stays, the rest is replayed from the log.
type replica struct {
	t       testing.TB
	backend *bolt.Memory
	store   *mvcc.Store
	seg     *mvcc.Segment
	space   *Space
}

func newReplica(t testing.TB) *replica {
	r := &replica{t: t, backend: bolt.NewMemory()}
	r.open()
	seg, err := r.store.Create(1, anchormesh.KeyRange{}, mvcc.Meta{})
	if err != nil {
		t.Fatal(err)
	}
	r.serve(seg)
	return r
}

func (r *replica) open() {
	store, err := mvcc.Open(r.backend, mvcc.DefaultOptions())
	if err != nil {
		r.t.Fatal(err)
	}
	r.store = store
}

func (r *replica) serve(seg *mvcc.Segment) {
	space, err := NewSpace(seg, testIDs, DefaultLimits())
	if err != nil {
		r.t.Fatal(err)
	}
	r.seg, r.space = seg, space
}

// crash forgets everything since the last commit and opens the store again. It
// returns the index from which the log must be replayed.
func (r *replica) crash() uint64 {
	r.backend = r.backend.Clone()
	r.open()
	seg, ok := r.store.Segment(1)
	if !ok {
		r.t.Fatal("the segment is gone")
	}
	r.serve(seg)
	applied, _ := seg.Applied()
	return applied
}

func (r *replica) commit() {
	if err := r.store.Commit(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *replica) scrub() {
	if _, err := r.store.Scrub(8); err != nil {
		r.t.Fatal(err)
	}
}

func command(op Op, m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return AppendCommand(nil, op, b)
}

func unmarshal[M proto.Message](t testing.TB, b []byte, m M) M {
	t.Helper()
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatalf("answer %x: %v", b, err)
	}
	return m
}
