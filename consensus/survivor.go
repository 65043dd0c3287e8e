package consensus

import (
	"fmt"
	"math"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/wal"
)

// Tail reads what the log of a stopped group holds above an index, committed or not, up
// to the first change of the configuration: for a replica that goes on alone, and takes
// for committed what it has. dropped counts what is behind that change.
func Tail(log *wal.GroupLog, above uint64) (out []Entry, dropped uint64, err error) {
	last, err := log.LastIndex()
	if err != nil || last <= above {
		return nil, 0, err
	}
	entries, err := log.Entries(above+1, last+1, math.MaxUint64)
	if err != nil {
		return nil, 0, err
	}
	for i, e := range entries {
		if e.GetType() != raftpb.EntryNormal {
			return out, uint64(len(entries) - i), nil
		}
		entry := Entry{Index: e.GetIndex(), Term: e.GetTerm()}
		if data := e.GetData(); len(data) > 0 {
			env, err := replica.ParseEnvelope(data)
			if err != nil {
				return nil, 0, fmt.Errorf("entry %d: %w", entry.Index, err)
			}
			entry.Generation, entry.Refused, entry.Payloads = env.Generation, env.Term != entry.Term, env.Payloads
		}
		out = append(out, entry)
	}
	return out, 0, nil
}
