package trust

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/node/machine"
)

// roundsMax bounds the segments whose reports are asked for at a time.
const roundsMax = 32

var (
	errElsewhere = errors.New("the segment is not here, or stands elsewhere")
	errLeader    = errors.New("this node knows another leader of the segment")
)

// news reports whether anything was written in a segment since reports were asked for
// last. That a group woke, elected a leader or changed a weight is nothing to be judged
// by: else thousands that nobody uses would keep each other awake after a start.
func (k *Keeper) news(g *group) bool {
	writes := g.writes()
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.seen[g.segment]
	if s == nil || s.reported == writes {
		return false
	}
	s.reported = writes
	return true
}

// writes counts what was written in the segment since this node started.
func (g *group) writes() int64 { return g.replica.Machine.Space().Usage().Writes }

// report asks for reports in every segment that is led here and awake, and in which
// something was done since.
func (k *Keeper) report(ctx context.Context) {
	var running sync.WaitGroup
	slots := make(chan struct{}, roundsMax)
	for _, id := range k.toLookAt() {
		g, ok := k.awake(id)
		if !ok || !g.status.Leads() || g.state.Frozen() || !k.news(&g) {
			continue
		}
		slots <- struct{}{}
		running.Go(func() {
			k.round(ctx, &g)
			<-slots
		})
	}
	running.Wait()
}

// poll is what the reports of a segment are about now.
func (g *group) poll(term uint64) *trust.Poll {
	d := g.state.Descriptor
	return &trust.Poll{
		Mesh: d.Mesh, Segment: d.Segment, Generation: d.Generation, Term: term,
		Version: g.state.Trust.Version(), Ledger: g.state.Trust.Digest(), Voters: g.voters,
	}
}

// round gathers the reports of one segment and proposes what follows from them.
func (k *Keeper) round(ctx context.Context, g *group) {
	p := g.poll(g.status.Term)
	reports := k.gather(ctx, g, p)
	next, err := g.state.Weighs(p, reports, g.status.Applied+1, p.Term)
	if err != nil {
		if !errors.Is(err, trust.ErrUnchanged) {
			k.cfg.Logger.Debug("no trust entry", "segment", g.segment, "reports", len(reports), "err", err)
		}
		return
	}
	before, after := g.state.Trust.Of(g.voters), next.Of(g.voters)
	k.engine.Submit(g.segment, consensus.Proposal{
		Generation: p.Generation, Term: p.Term, Alone: true, Payload: machine.Trusted(p, reports, after),
		Done: func(res consensus.Result) {
			if res.Err != nil {
				k.cfg.Logger.Debug("a trust entry took no effect", "segment", g.segment, "err", res.Err)
				return
			}
			k.tell(g.segment, before, next)
		},
	})
}

// tell logs what an entry did, with its numbers.
func (k *Keeper) tell(segment anchormesh.SegmentID, before []trust.Weight, next *trust.Ledger) {
	step := next.History()[len(next.History())-1]
	for i, w := range before {
		now := next.Weight(w.Node)
		if now == w.Weight {
			continue
		}
		if f := k.cfg.Listener.Weighed; f != nil {
			f(segment, w.Weight, now)
		}
		level := k.cfg.Logger.Info
		if now < w.Weight {
			level = k.cfg.Logger.Warn
		}
		level("an anchor's weight changed", "segment", segment, "node", w.Node.Short(), "from", w.Weight, "to", now,
			"points", step.Opinions[i].Points, "opinions", step.Opinions[i].Of, "version", next.Version())
	}
}

// gather returns the verified reports that come in time, in the order of their reporters.
func (k *Keeper) gather(ctx context.Context, g *group, p *trust.Poll) (out []trust.Report) {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Every)
	defer cancel()
	w := wanted{segment: p.Segment, generation: p.Generation, term: p.Term, version: p.Version}
	var mu sync.Mutex
	var running sync.WaitGroup
	for _, node := range g.voters {
		running.Go(func() {
			r, err := k.reportOf(ctx, node, &w, p)
			if err != nil {
				k.cfg.Logger.Debug("no report", "segment", p.Segment, "node", node.Short(), "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out = append(out, *r)
		})
	}
	running.Wait()
	slices.SortFunc(out, func(a, b trust.Report) int { return cmp.Compare(a.By, b.By) })
	return out
}

func (k *Keeper) reportOf(ctx context.Context, node anchormesh.NodeID, w *wanted, p *trust.Poll) (*trust.Report, error) {
	if node == k.cfg.Self {
		return k.own(w, node)
	}
	answer, err := k.caller.Call(ctx, node, Method, w.append(nil))
	if err != nil {
		return nil, err
	}
	r, err := parseReport(answer)
	if err != nil {
		k.Invalid(p.Segment, node)
		return nil, err
	}
	r.By = node
	if !k.cfg.Verify(node, p.Statement(&r), r.Signature) {
		k.Invalid(p.Segment, node)
		return nil, trust.ErrSignature
	}
	return &r, nil
}

// own makes this node's report for a leader.
func (k *Keeper) own(w *wanted, leader anchormesh.NodeID) (*trust.Report, error) {
	st, runs := k.engine.Status(w.segment)
	r, here := k.replicas.Get(w.segment)
	if !runs || !here {
		return nil, errElsewhere
	}
	if st.Term > w.term || st.Term == w.term && st.Leader != "" && st.Leader != leader {
		return nil, errLeader
	}
	s := r.Machine.State()
	g := group{segment: w.segment, replica: r, state: s, status: st, voters: s.VoterNodes()}
	p := g.poll(w.term)
	if p.Generation != w.generation || p.Version != w.version || !slices.Contains(g.voters, k.cfg.Self) {
		return nil, errElsewhere
	}
	out := &trust.Report{By: k.cfg.Self, Measures: make([]trust.Measure, len(g.voters))}
	seen := k.Measured(w.segment)
	for i, node := range g.voters {
		if node != k.cfg.Self {
			out.Measures[i] = seen[node]
		}
	}
	var err error
	out.Signature, err = k.cfg.Sign(p.Statement(out))
	return out, err
}
