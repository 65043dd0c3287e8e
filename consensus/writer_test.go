package consensus

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/consensus/wal"
)

// paper is a log that takes everything.
type paper struct{ Log }

func (paper) Write([]wal.Update) error { return nil }
func (paper) Sync() error              { return nil }

// posted counts the frames that were sent.
type posted int

func (p *posted) Send(anchormesh.NodeID, []byte) bool {
	*p++
	return true
}

// TestNothingOvertakesInOneBundle: an append that needs no sync by itself says that all
// before it is stored: Raft's answer to it names the last entry of the log. It must not be
// told before the append of the same bundle that has the entries, however idle the syncer is.
func TestNothingOvertakesInOneBundle(t *testing.T) {
	var sent posted
	e, err := New(DefaultConfig("here"), paper{}, &sent, nil)
	if err != nil {
		t.Fatal(err)
	}
	says := func(a *replica.Append) shard.Append {
		return shard.Append{Segment: 1, Append: a, Frames: []shard.Frame{{To: "another", Data: []byte("stored")}},
			Done: shard.Appended{Segment: 1, Local: []*raftpb.Message{{}}}}
	}
	commit := says(&replica.Append{HardState: &raftpb.HardState{Commit: new(uint64(6))}})
	e.writer.handle(&writes{appends: []shard.Append{commit}})
	if sent != 1 {
		t.Fatalf("%d frames of an append that nothing is before were sent", sent)
	}
	entries := says(&replica.Append{Entries: []*raftpb.Entry{{Index: new(uint64(7)), Term: new(uint64(1))}}, Sync: true})
	e.writer.handle(&writes{appends: []shard.Append{entries, commit}})
	told := e.worker(1).inbox.take(new(inbox))
	if sent != 1 || len(told.Appended) != 1 {
		t.Errorf("before the sync %d frames were sent and %d appends told, one of each is older", sent, len(told.Appended))
	}
	e.writer.syncer.carryOut(e.writer.syncer.inbox.take(new(syncs)))
	if sent != 2 { // one frame for both
		t.Errorf("behind the sync %d frames were sent", sent)
	}
}
