package audit

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/datadir"
	"github.com/anchormesh/anchormesh/node/machine"
)

// Entry is a committed entry of a segment's log that holds commands.
type Entry struct {
	Index, Term uint64
	Generation  anchormesh.Generation
	Payloads    [][]byte // none: Raft's own, or one that its term made void
}

// Log is what all nodes have of a segment's log, by index.
type Log struct {
	Entries []Entry
	// Whole: from the first entry that the segment ever had to the last one committed.
	Whole bool
}

// Books are what the nodes left.
type Books struct {
	Logs   map[anchormesh.SegmentID]*Log
	States []*machine.State // of each replica on each node
	// Lineage is what a Keeper found while the mesh ran.
	Lineage Lineage
	// Forks are places at which two nodes committed different entries.
	Forks []string
}

// tape is one node's log of a segment.
type tape struct {
	entries map[uint64]*raftpb.Entry
	begin   uint64 // the first mark: what the log began behind
	commit  uint64
}

// reading gathers the tapes of all nodes.
type reading struct {
	tapes map[anchormesh.SegmentID][]*tape
}

// Read reads the data directories of nodes that do not run.
func Read(dirs []string) (*Books, error) {
	out := &Books{}
	all := reading{tapes: make(map[anchormesh.SegmentID][]*tape)}
	for _, path := range dirs {
		dir, err := datadir.Open(fsys.OS, path)
		if err != nil {
			return nil, err
		}
		err = errors.Join(all.logs(dir.Log()), out.stores(dir), dir.Close())
		if err != nil {
			return nil, fmt.Errorf("audit: %s: %w", path, err)
		}
	}
	return out, all.join(out)
}

func (r *reading) logs(dir string) error {
	mine := make(map[anchormesh.SegmentID]*tape)
	err := wal.Scan(fsys.OS, dir, func(s *wal.Scanned) error {
		t := mine[s.Group]
		if t == nil {
			t = &tape{entries: make(map[uint64]*raftpb.Entry), begin: s.Mark.Index}
			mine[s.Group] = t
			r.tapes[s.Group] = append(r.tapes[s.Group], t)
		}
		t.take(s)
		return nil
	})
	var torn *wal.CorruptError
	if errors.As(err, &torn) { // a node that was killed; what it says is whole up to there
		return nil
	}
	return err
}

func (t *tape) take(s *wal.Scanned) {
	if s.Restart || s.Removed { // what was not committed by then never was written here
		for i := range t.entries {
			if i > t.commit {
				delete(t.entries, i)
			}
		}
	}
	t.commit = max(t.commit, s.Commit)
	for _, e := range s.Entries {
		t.entries[e.GetIndex()] = e
	}
	if n := len(s.Entries); n > 0 && !s.Carried {
		for i := s.Entries[n-1].GetIndex() + 1; t.entries[i] != nil; i++ {
			delete(t.entries, i)
		}
	}
}

// join makes one log of each segment's tapes.
func (r *reading) join(out *Books) error {
	out.Logs = make(map[anchormesh.SegmentID]*Log)
	for segment, tapes := range r.tapes {
		begin, commit := tapes[0].begin, uint64(0)
		found := make(map[uint64]*raftpb.Entry)
		for _, t := range tapes {
			begin, commit = min(begin, t.begin), max(commit, t.commit)
			for i, e := range t.entries {
				if i > t.commit {
					continue
				}
				if other := found[i]; other != nil && (other.GetTerm() != e.GetTerm() || string(other.GetData()) != string(e.GetData())) {
					out.Forks = append(out.Forks, fmt.Sprintf("segment %s, index %d: terms %d and %d", segment, i, other.GetTerm(), e.GetTerm()))
				}
				found[i] = e
			}
		}
		log, err := written(found)
		if err != nil {
			return fmt.Errorf("audit: segment %s: %w", segment, err)
		}
		log.Whole = begin <= machine.BirthIndex && uint64(len(found)) == commit-begin
		out.Logs[segment] = log
	}
	return nil
}

// written reads what entries hold.
func written(found map[uint64]*raftpb.Entry) (*Log, error) {
	log := &Log{}
	for i, e := range found {
		entry := Entry{Index: i, Term: e.GetTerm()}
		if e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 {
			envelope, err := replica.ParseEnvelope(e.GetData())
			if err != nil {
				return nil, err
			}
			if envelope.Term == entry.Term {
				entry.Generation, entry.Payloads = envelope.Generation, envelope.Payloads
			}
		}
		log.Entries = append(log.Entries, entry)
	}
	slices.SortFunc(log.Entries, func(a, b Entry) int { return int(int64(a.Index) - int64(b.Index)) })
	return log, nil
}

// stores reads the states of a node's replicas.
func (b *Books) stores(dir *datadir.Dir) error {
	prefixes, err := dir.Scopes()
	if err != nil {
		return err
	}
	for _, prefix := range prefixes {
		backend, err := bolt.OpenFile(bolt.DefaultFileConfig(dir.Scope(prefix)))
		if err != nil {
			return err
		}
		store, err := mvcc.Open(backend, mvcc.DefaultOptions())
		if err != nil {
			return errors.Join(err, backend.Close())
		}
		for _, id := range store.Segments() {
			segment, _ := store.Segment(id)
			if meta := segment.Meta(); len(meta.State) > 0 {
				state, broken := machine.DecodeState(meta.State)
				if err = errors.Join(err, broken); broken == nil {
					b.States = append(b.States, state)
				}
			}
		}
		if err := errors.Join(err, store.Close()); err != nil {
			return err
		}
	}
	return nil
}
