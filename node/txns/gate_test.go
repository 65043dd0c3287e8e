package txns

import (
	"errors"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/commit"
)

// A coordinator that has not heard of a merge prepares two parts in what is one segment
// now, at the same time: each keeps its lock until its own prepare has ended, and who
// wants to end the transaction waits for both.
func TestTwoPartsOfATransactionInOneSegment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, space := leaders(t)
		id := commit.TxnID{1}
		var parts []*commit.Prepare
		for _, key := range []string{"b", "c"} {
			lock := commit.Lock{Range: anchormesh.KeyRange{Start: []byte(key), End: []byte(key + "\x00")}, Exclusive: true}
			grant, _, err := g.acquire(0, &wanted{txn: id, locks: []commit.Lock{lock}}, space)
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, &commit.Prepare{Txn: id, Grant: grant})
		}
		for _, p := range parts {
			if err := g.propose(p); err != nil {
				t.Fatal(err)
			}
		}
		write := func(key string) error {
			raw, err := proto.Marshal(&pb.PutRequest{Key: []byte(key)})
			if err != nil {
				t.Fatal(err)
			}
			ticket, err := g.enter(space, keyspace.AppendCommand(nil, keyspace.OpPut, raw))
			if err == nil {
				g.leave(ticket)
			}
			return err
		}
		g.prepared(parts[0])
		if err := write("b"); err != nil {
			t.Errorf("write of what is not locked any more: %v", err)
		}
		if err := write("c"); !errors.Is(err, keyspace.ErrLocked) {
			t.Errorf("write of what a prepare on its way has locked: %v, want %v", err, keyspace.ErrLocked)
		}
		under := g.release(0, id)
		if under == nil {
			t.Fatal("a prepare is on its way, and nobody waits for it")
		}
		select {
		case <-under:
			t.Error("it has ended before the second part")
		default:
		}
		g.prepared(parts[1])
		<-under
		if g.release(0, id) != nil {
			t.Error("there is still something to wait for")
		}
	})
}

// leaders returns what a segment's leader has.
func leaders(t *testing.T) (*gate, *keyspace.Space) {
	r, _ := newWorld(t).node.Host.Get(left)
	g := newGate()
	g.move(commit.Place{Term: 1, Generation: 2})
	return g, r.Machine.Space()
}

// A put on its way attaches a key to a lease, a transaction locks the key, and the lease is
// revoked: what that deletes is known when the put is applied, and not before.
func TestALeasesEndWaitsForWhatMayAttach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, space := leaders(t)
		enter := func(op keyspace.Op, m proto.Message) (uint64, error) {
			raw, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			return g.enter(space, keyspace.AppendCommand(nil, op, raw))
		}
		put, err := enter(keyspace.OpPut, &pb.PutRequest{Key: []byte("b"), Lease: 7})
		if err != nil {
			t.Fatal(err)
		}
		lock := commit.Lock{Range: anchormesh.KeyRange{Start: []byte("b"), End: []byte("b\x00")}, Exclusive: true}
		_, applied, err := g.acquire(0, &wanted{txn: commit.TxnID{1}, locks: []commit.Lock{lock}}, space)
		if err != nil || applied == nil {
			t.Fatalf("%v; the lock does not wait for the put: %v", err, applied == nil)
		}
		revoke := &pb.LeaseRevokeRequest{ID: 7}
		if _, err := enter(keyspace.OpLeaseRevoke, revoke); !errors.Is(err, keyspace.ErrLocked) {
			t.Errorf("a revoke behind the put and the lock: %v, want %v", err, keyspace.ErrLocked)
		}
		g.leave(put)
		<-applied
		if _, err := enter(keyspace.OpLeaseRevoke, revoke); err != nil {
			t.Errorf("a revoke of what is not locked: %v", err)
		}
	})
}
