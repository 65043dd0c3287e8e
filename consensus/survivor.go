package consensus

import (
	"fmt"
	"math"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/wal"
)

// Tail reads what the log of a stopped group holds above an index, committed or not, up
// to the first change of the configuration: for a replica that goes on alone, and takes
// for committed what it has. dropped counts what is behind that change. over reads on
// behind it: changes of the configuration are empty entries then.
func Tail(log *wal.GroupLog, above uint64, over bool) (out []Entry, dropped uint64, err error) {
	entries, err := behind(log, above)
	if err != nil {
		return nil, 0, err
	}
	for i, e := range entries {
		entry := Entry{Index: e.GetIndex(), Term: e.GetTerm()}
		switch {
		case e.GetType() == raftpb.EntryNormal:
			if err := read(&entry, e.GetData()); err != nil {
				return nil, 0, err
			}
		case !over:
			return out, uint64(len(entries) - i), nil
		}
		out = append(out, entry)
	}
	return out, 0, nil
}

func behind(log *wal.GroupLog, above uint64) ([]*raftpb.Entry, error) {
	last, err := log.LastIndex()
	if err != nil || last <= above {
		return nil, err
	}
	return log.Entries(above+1, last+1, math.MaxUint64)
}

func read(entry *Entry, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	env, err := replica.ParseEnvelope(data)
	if err != nil {
		return fmt.Errorf("entry %d: %w", entry.Index, err)
	}
	entry.Generation, entry.Refused, entry.Payloads = env.Generation, env.Term != entry.Term, env.Payloads
	return nil
}

// Changes reads what the proposers of changes of the configuration attached to them, of
// those that the log of a stopped group holds above an index, committed or not.
func Changes(log *wal.GroupLog, above uint64) (contexts [][]byte, err error) {
	entries, err := behind(log, above)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.GetType() != raftpb.EntryConfChangeV2 {
			continue
		}
		var cc raftpb.ConfChangeV2
		if err := proto.Unmarshal(e.GetData(), &cc); err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		if len(cc.GetContext()) == 0 {
			continue // raft leaves a joint configuration by itself
		}
		env, err := replica.ParseEnvelope(cc.GetContext())
		if err != nil || len(env.Payloads) == 0 {
			return nil, fmt.Errorf("entry %d: a change of the configuration without a descriptor: %w", e.GetIndex(), err)
		}
		contexts = append(contexts, env.Payloads[0])
	}
	return contexts, nil
}
