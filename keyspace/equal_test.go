package keyspace

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/lease"
)

// TestAgainstModel runs random commands and reads on a space and on the model and
// compares answers whole, across commits, crashes and physical compaction.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			r, m := newReplica(t), newModel(testIDs)
			g := &traffic{rng: rng, m: m}
			var log [][][]byte
			m.term = 1
			for range 250 {
				if g.one(30) {
					m.term++
				}
				log = append(log, compareEntry(t, r.space, m, g))
				compareReads(t, r.space, m, g)
				switch {
				case g.one(10):
					r.commit()
				case g.one(10):
					r.scrub()
				case g.one(25):
					for i := r.crash(); i < uint64(len(log)); i++ {
						r.space.Apply(i+1, 1, log[i], false)
					}
				}
				compareLeases(t, r.space, m)
			}
		})
	}
}

// compareEntry applies one log entry of some commands on both.
func compareEntry(t *testing.T, s *Space, m *model, g *traffic) (cmds [][]byte) {
	m.index++
	var want []proto.Message
	var wantErr []error
	for range g.rng.IntN(4) {
		op, req := g.write()
		cmds = append(cmds, command(op, req))
		resp, err := m.apply(op, req)
		want, wantErr = append(want, resp), append(wantErr, err)
	}
	for i, o := range s.Apply(m.index, m.term, cmds, true) {
		if !errors.Is(o.Err, wantErr[i]) {
			t.Fatalf("entry %d, command %d, %v: error %v, want %v", m.index, i, Op(cmds[i][0]), o.Err, wantErr[i])
		}
		if o.Err != nil {
			continue
		}
		got := want[i].ProtoReflect().New().Interface()
		if unmarshal(t, o.Response, got); !proto.Equal(got, want[i]) {
			t.Fatalf("entry %d, command %d, %v\n got %v\nwant %v", m.index, i, Op(cmds[i][0]), got, want[i])
		}
	}
	return cmds
}

// compareReads runs a range, its stream and a read-only transaction on both.
func compareReads(t *testing.T, s *Space, m *model, g *traffic) {
	ctx := context.Background()
	req := g.ranges()
	var q codec.RangeRequest
	if err := codec.ParseRange(command(0, req)[1:], &q); err != nil {
		t.Fatal(err)
	}
	want, wantErr := m.readRange(req)
	chunks, err := s.Range(ctx, &q, m.term)
	if !errors.Is(err, wantErr) {
		t.Fatalf("%v: error %v, want %v", req, err, wantErr)
	}
	if err == nil {
		if got := unmarshal(t, chunks.Bytes(), &pb.RangeResponse{}); !proto.Equal(got, want) {
			t.Fatalf("%v\n got %v\nwant %v", req, got, want)
		}
	}
	compareStream(t, s, m, q, want, wantErr)

	txn := g.txn(0, true)
	var r codec.TxnRequest
	if err := codec.ParseTxn(command(0, txn)[1:], &r); err != nil {
		t.Fatal(err)
	}
	wantTxn, wantErr := m.readTxn(txn)
	chunks, err = s.ReadTxn(ctx, &r, m.term)
	if !errors.Is(err, wantErr) {
		t.Fatalf("%v: error %v, want %v", txn, err, wantErr)
	}
	if err == nil {
		if got := unmarshal(t, chunks.Bytes(), &pb.TxnResponse{}); !proto.Equal(got, wantTxn) {
			t.Fatalf("%v\n got %v\nwant %v", txn, got, wantTxn)
		}
	}
}

// compareStream checks that the pieces of a stream add up to the range's answer.
func compareStream(t *testing.T, s *Space, m *model, q codec.RangeRequest, want *pb.RangeResponse, wantErr error) {
	got := &pb.RangeResponse{}
	pieces := 0
	err := s.RangeStream(context.Background(), q, m.term, 100, func(c codec.Chunks) error {
		pieces++
		if got.Header != nil {
			t.Fatal("a piece came behind the one with the header")
		}
		proto.Merge(got, unmarshal(t, c.Bytes(), &pb.RangeStreamResponse{}).RangeResponse)
		return nil
	})
	if filtered(&q) || !storeOrder(&q) {
		wantErr = ErrStreamOrder
	}
	if !errors.Is(err, wantErr) {
		t.Fatalf("stream of %+v: error %v, want %v", q, err, wantErr)
	}
	if err != nil {
		return
	}
	if q.SortTarget != codec.SortByKey {
		return // a stream stays in key order
	}
	if !proto.Equal(got, want) || pieces == 0 {
		t.Fatalf("stream of %+v in %d pieces\n got %v\nwant %v", q, pieces, got, want)
	}
}

func compareLeases(t *testing.T, s *Space, m *model) {
	got := s.Leases()
	if len(got) != len(m.leases) {
		t.Fatalf("leases %v, want %v", got, m.leases)
	}
	for _, l := range got {
		if one, ok := s.Lease(l.ID); l != m.leases[l.ID] || !ok || one != l {
			t.Fatalf("lease %+v, want %+v", l, m.leases[l.ID])
		}
		var keys []string
		for _, k := range s.LeaseKeys(l.ID) {
			keys = append(keys, string(k))
		}
		if !slices.Equal(keys, m.leaseKeys(l.ID)) {
			t.Fatalf("lease %d has keys %q, want %q", l.ID, keys, m.leaseKeys(l.ID))
		}
	}
}

// TestDeterminism applies one log on replicas that differ in everything that must
// not matter: whether answers are wanted, how the log is cut into commits, when
// the store is scrubbed, crashes and replay.
func TestDeterminism(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 2))
		m := newModel(testIDs)
		g := &traffic{rng: rng, m: m}
		a, b := newReplica(t), newReplica(t)
		var log [][][]byte
		for i := range uint64(200) {
			m.index, m.term = i+1, 7
			var cmds [][]byte
			for range rng.IntN(5) {
				op, req := g.write()
				cmds = append(cmds, command(op, req))
				m.apply(op, req)
			}
			log = append(log, cmds)
			wanted := a.space.Apply(i+1, 7, cmds, true)
			bare := b.space.Apply(i+1, 7, cmds, false)
			for c := range cmds {
				if bare[c].Err != wanted[c].Err || bare[c].Response != nil {
					t.Fatalf("seed %d: outcome %+v without want, %+v with", seed, bare[c], wanted[c])
				}
			}
			if g.one(7) {
				b.commit()
			}
			if g.one(9) {
				b.scrub()
			}
			if g.one(30) {
				for j := b.crash(); j < uint64(len(log)); j++ {
					b.space.Apply(j+1, 7, log[j], g.one(2))
				}
			}
		}
		if got, want := digest(t, b.space), digest(t, a.space); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: replicas differ:\n%+v\n%+v", seed, got, want)
		}
	}
}

type stateDigest struct {
	hash   HashKV
	leases []lease.Lease
	keys   [][][]byte
	alarms []codec.AlarmMember
}

func digest(t *testing.T, s *Space) (d stateDigest) {
	var err error
	if d.hash, err = s.HashKV(0); err != nil {
		t.Fatal(err)
	}
	d.leases, d.alarms = s.Leases(), s.Alarms(codec.AlarmNone)
	for _, l := range d.leases {
		d.keys = append(d.keys, s.LeaseKeys(l.ID))
	}
	return d
}
