package replica

import (
	"go.etcd.io/raft/v3/raftpb"
)

// SetLight says whether entries that are appended from now on may be acknowledged before
// they are synced. A term, a vote, a change of the configuration and what Config.Keeps
// names are synced all the same, and with them everything before them in the log.
func (r *Replica) SetLight(light bool) { r.cfg.Light = light }

// Light reports what SetLight or Config.Light said last.
func (r *Replica) Light() bool { return r.cfg.Light }

// keepsAny reports whether there is an entry that must never be forgotten once it was
// acknowledged. One that cannot be read is taken for such.
func (r *Replica) keepsAny(ents []*raftpb.Entry) bool {
	for _, e := range ents {
		if e.GetType() != raftpb.EntryNormal || r.keeps(e.GetData()) {
			return true
		}
	}
	return false
}

func (r *Replica) keeps(data []byte) bool {
	if len(data) == 0 || r.cfg.Keeps == nil {
		return false // the entry that begins a term
	}
	kept := false
	err := eachPayload(data, func(payload []byte) { kept = kept || r.cfg.Keeps(payload) })
	return kept || err != nil
}
