package txns

import (
	"context"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/commit"
)

// watched is what the segments led here keep of transactions, and since when this node
// knows. It belongs to Run, but for the recoveries that end.
type watched struct {
	seen  map[stay]time.Duration
	under chan struct{} // holds one for each recovery
	ended chan stay
	busy  map[stay]bool
}

// stay is a prepared transaction, or a decision, of a segment.
type stay struct {
	segment anchormesh.SegmentID
	txn     commit.TxnID
	decided bool
}

func newWatched() watched {
	return watched{
		seen: make(map[stay]time.Duration), busy: make(map[stay]bool),
		under: make(chan struct{}, RecoveriesMax), ended: make(chan stay, RecoveriesMax),
	}
}

// Run ends what coordinators left behind, until ctx ends. Then no attempt goes on.
func (x *Txns) Run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			x.end()
			x.running.Wait()
			return nil
		case s := <-x.watched.ended:
			delete(x.watched.busy, s)
		case <-ticker.C:
			x.expire()
			x.look(x.now())
		}
	}
}

func (x *Txns) expire() {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, g := range x.gates { // the order shows nowhere: they are strangers
		g.expire(x.now())
	}
}

// look notes what is there and recovers what has stayed too long.
func (x *Txns) look(now time.Duration) {
	seen := make(map[stay]time.Duration, len(x.watched.seen))
	for _, id := range x.host.Unsettled() {
		r, here := x.host.Get(id)
		if !here {
			continue
		}
		if st, ok := x.engine.Status(id); !ok || !st.Leads() {
			continue
		}
		var records []*commit.Record
		var decisions []*commit.Decision
		r.Machine.Space().Participant(func(p *commit.Participant) { records, decisions = p.Records(), p.Decisions() })
		for _, rec := range records {
			if s := (stay{id, rec.Txn, false}); x.stayed(seen, s, now, RecoverAfter) {
				x.recover(s, commit.Recover(rec))
			}
		}
		for _, d := range decisions {
			if s := (stay{id, d.Txn, true}); x.stayed(seen, s, now, ResumeAfter) {
				x.recover(s, commit.Resume(d))
			}
		}
	}
	x.watched.seen = seen
}

// stayed carries the time of s over to seen, and says whether it is up.
func (x *Txns) stayed(seen map[stay]time.Duration, s stay, now, after time.Duration) bool {
	since, known := x.watched.seen[s]
	if !known {
		since = now
	}
	seen[s] = since
	return now-since >= after && !x.watched.busy[s]
}

func (x *Txns) recover(s stay, c *commit.Recoverer) {
	select {
	case x.watched.under <- struct{}{}:
	default:
		return // at the next look
	}
	x.watched.busy[s] = true
	x.cfg.Logger.Info("ending a transaction that was left behind", "segment", s.segment, "txn", s.txn.String(), "decided", s.decided)
	x.running.Go(func() {
		r := run{x: x, id: s.txn}
		r.drive(context.Background(), c)
		<-x.watched.under
		select {
		case x.watched.ended <- s:
		case <-x.life.Done():
		}
	})
}
