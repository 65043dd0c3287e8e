package dispatch

import (
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/mesh/wire"
	"github.com/anchormesh/anchormesh/node/etcdapi"
)

// still is a state machine whose group has three voters and an empty log.
type still struct{}

func (still) Apply(*consensus.Entry, bool) []consensus.Outcome { return nil }
func (still) Durable() (uint64, *raftpb.ConfState)             { return 0, three }

var three = &raftpb.ConfState{Voters: []uint64{1, 2, 3}}

// nowhere is a mesh without others.
type nowhere struct{}

func (nowhere) Send(anchormesh.NodeID, []byte) bool { return false }

// A write finds no leader of a segment whose group waits, after the start of a node with
// many, for its turn to wake. Nobody else asks the group for anything: the write itself has
// it look for a leader, and does not wait for a turn that may be a minute away.
func TestAWriteWithoutALeaderDoesNotWaitForTheGroupsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const last = 700 // more than one shard keeps awake
		log, err := wal.Open(fsys.NewMem(), "wal", wal.DefaultOptions())
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		cfg := consensus.DefaultConfig("n")
		cfg.Workers, cfg.Tick = 1, time.Hour // nobody's turn comes
		e, err := consensus.New(cfg, log, nowhere{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		e.Start()
		defer e.Stop()
		for id := anchormesh.SegmentID(1); id <= last; id++ {
			err := e.StartGroup(consensus.GroupSpec{
				Segment: id, Replica: 1, Peers: map[anchormesh.ReplicaID]anchormesh.NodeID{1: "n", 2: "o", 3: "p"},
				Start: consensus.Point{Conf: three}, Machine: still{},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if st, _ := e.Status(last); !st.Asleep || st.Leader != "" {
			t.Fatalf("the last group stands at %+v, and was to wait", st)
		}
		var got answer
		(&Dispatcher{engine: e}).failWith(wire.NewResponder(&got, 1, time.Time{}), last, retry(etcdapi.ErrNoLeader))
		synctest.Wait()
		if st, _ := e.Status(last); st.Asleep || st.Role.String() != "StatePreCandidate" {
			t.Errorf("the group stands at %+v, and was to ask for votes", st)
		}
	})
}
