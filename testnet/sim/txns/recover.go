package txns

import (
	"maps"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/commit"
)

// stay is a prepared transaction, or a decision, of a segment.
type stay struct {
	segment anchormesh.SegmentID
	txn     commit.TxnID
	decided bool
}

// look notes what is prepared and decided in the segments led here, and recovers what has
// stayed too long.
func (x *Txns) look() {
	for _, g := range x.gates { // the order shows nowhere: they are strangers
		g.expire(x.now())
	}
	seen := make(map[stay]time.Duration, len(x.seen))
	for _, id := range slices.Sorted(maps.Keys(x.Host.Held)) {
		space, g := x.Host.Held[id].Machine.Space(), x.Groups[id]
		if g == nil || !g.Leads() || !space.Unsettled() {
			continue
		}
		var records []*commit.Record
		var decisions []*commit.Decision
		space.Participant(func(p *commit.Participant) { records, decisions = p.Records(), p.Decisions() })
		for _, rec := range records {
			if s := (stay{id, rec.Txn, false}); x.stayed(seen, s, recoverAfter) {
				x.recover(s, commit.Recover(rec))
			}
		}
		for _, d := range decisions {
			if s := (stay{id, d.Txn, true}); x.stayed(seen, s, resumeAfter) {
				x.recover(s, commit.Resume(d))
			}
		}
	}
	x.seen = seen
}

// stayed carries the time of s over to seen, and says whether it is up.
func (x *Txns) stayed(seen map[stay]time.Duration, s stay, after time.Duration) bool {
	since, known := x.seen[s]
	if !known {
		since = x.now()
	}
	seen[s] = since
	return x.now()-since >= after && !x.busy[s]
}

func (x *Txns) recover(s stay, c *commit.Recoverer) {
	x.busy[s] = true
	x.Mesh.Stats.Recovered++
	r := &run{Txns: x, id: s.txn, core: c, ended: func() { delete(x.busy, s) }}
	r.begin()
}
