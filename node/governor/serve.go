package governor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/machine"
)

// codes pairs errors with what travels, both ways.
var codes = []struct {
	code uint16
	err  error
}{{codeRefused, ErrRefused}, {codeNoScope, ErrNoScope}, {codeUnknown, ErrUnknown}, {codeNotNow, ErrNotNow}}

// Serve answers another node's question; it does not block.
func (g *Governor) Serve(from anchormesh.NodeID, payload []byte, to mesh.Responder) {
	q, err := parseQuestion(payload)
	if err != nil {
		to.Fail(codeRefused, err.Error())
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		to.Fail(codeRetry, "the node stops")
		return
	}
	g.wg.Go(func() {
		ctx, cancel := context.WithTimeout(g.ctx, stepTimeout)
		defer cancel()
		answer, err := g.answer(ctx, from, q)
		if err == nil {
			to.Reply(answer)
			return
		}
		for _, c := range codes {
			if errors.Is(err, c.err) {
				to.Fail(c.code, err.Error())
				return
			}
		}
		to.Fail(codeRetry, err.Error())
	})
}

// call asks a node, this one included.
func (g *Governor) call(ctx context.Context, node anchormesh.NodeID, q *question) ([]byte, error) {
	if node == g.cfg.Self {
		return g.answer(ctx, node, q)
	}
	answer, err := g.mesh.Call(ctx, node, Method, q.encode())
	var remote *mesh.RemoteError
	switch {
	case err == nil:
		return answer, nil
	case errors.As(err, &remote):
	case q.once() && !nowhere(err):
		return nil, fmt.Errorf("%w: node %s: %w", ErrUnknown, node.Short(), err)
	default:
		return nil, fmt.Errorf("%w: node %s: %w", ErrUnavailable, node.Short(), err)
	}
	for _, c := range codes {
		if remote.Code == c.code {
			return nil, &answered{c.err, remote.Text}
		}
	}
	return nil, &answered{ErrUnavailable, remote.Text}
}

// once reports whether a question that may have been carried out must not be put again: a
// proposal would be there twice, and its end would be told of the wrong one.
func (q *question) once() bool { return q.kind == askPropose || q.kind == askClose }

// nowhere reports whether a call that failed certainly never arrived.
func nowhere(err error) bool {
	for _, is := range []error{mesh.ErrUnreachable, mesh.ErrNoHandler, mesh.ErrRefused, mesh.ErrOverloaded, mesh.ErrTooLarge} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// answered is an error of another node, which says itself what it is.
type answered struct {
	kind error
	text string
}

func (a *answered) Error() string { return a.text }
func (a *answered) Unwrap() error { return a.kind }

// lookHome returns the home of a scope as the routes have it.
func (g *Governor) lookHome(prefix []byte) (*anchormesh.Descriptor, bool) {
	d, ok := g.table.Lookup(prefix)
	return d, ok && d.Home() && bytes.Equal(d.Scope, prefix)
}

// askHome asks the leader of a scope's home.
func (g *Governor) askHome(ctx context.Context, prefix []byte, q *question) ([]byte, error) {
	d, ok := g.lookHome(prefix)
	if !ok {
		var err error
		if d, err = g.lookAgain(ctx, prefix); err != nil {
			return nil, err
		}
	}
	q.segment = d.Segment
	return g.askLeader(ctx, d, q)
}

// awaitHome is askHome for operators: while no leader is found, as after the last one
// died, it asks again, for homeWait. Nothing took effect meanwhile.
func (g *Governor) awaitHome(ctx context.Context, prefix []byte, q *question) ([]byte, error) {
	until := time.NewTimer(homeWait)
	defer until.Stop()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		answer, err := g.askHome(ctx, prefix, q)
		if !errors.Is(err, ErrUnavailable) {
			return answer, err
		}
		select {
		case <-ticker.C:
		case <-until.C:
			return nil, err
		case <-ctx.Done():
			return nil, err
		}
	}
}

// lookAgain asks who holds the prefix, as far as is known here, what holds it now: the
// routes here may be from before the scope.
func (g *Governor) lookAgain(ctx context.Context, prefix []byte) (*anchormesh.Descriptor, error) {
	old, ok := g.table.Lookup(prefix)
	if !ok {
		return nil, fmt.Errorf("%w: this node does not know yet who holds %q", ErrUnavailable, prefix)
	}
	answer, err := g.askLeader(ctx, old, &question{kind: askWhere, segment: old.Segment, text: prefix})
	if err != nil {
		return nil, err
	}
	d, err := meshpb.DecodeDescriptor(answer)
	if err != nil {
		return nil, err
	}
	g.table.Learn(d)
	if !d.Home() || !bytes.Equal(d.Scope, prefix) {
		return nil, fmt.Errorf("%w: %q", ErrNoScope, prefix)
	}
	return d, nil
}

// patience is how long a question may take: a proposal is judged by whoever takes it.
func (q *question) patience() time.Duration {
	if q.kind == askPropose {
		return stepTimeout
	}
	return callTimeout
}

// askLeader asks the leader of a segment: whoever is thought to lead, then the others.
// An outcome that is not known is not asked for again.
func (g *Governor) askLeader(ctx context.Context, d *anchormesh.Descriptor, q *question) ([]byte, error) {
	g.engine.Seek(d.Segment)
	nodes := []anchormesh.NodeID{}
	if st, ok := g.engine.Status(d.Segment); ok && st.Leader != "" {
		nodes = append(nodes, st.Leader)
	}
	if n, ok := g.table.Leader(d.Segment); ok {
		nodes = append(nodes, n)
	}
	for _, v := range d.Voters() {
		nodes = append(nodes, v.Node)
	}
	err := fmt.Errorf("%w: segment %s", ErrUnavailable, d.Segment)
	for i, n := range nodes {
		if slices.Contains(nodes[:i], n) || n != g.cfg.Self && !g.mesh.Connected(n) {
			continue
		}
		var answer []byte
		one, cancel := context.WithTimeout(ctx, q.patience())
		answer, err = g.call(one, n, q)
		cancel()
		if err == nil || !errors.Is(err, ErrUnavailable) {
			return answer, err
		}
	}
	return nil, err
}

// answer answers a question that is for this node.
func (g *Governor) answer(ctx context.Context, from anchormesh.NodeID, q *question) ([]byte, error) {
	g.engine.Seek(q.segment) // so that the next who asks finds a leader
	switch q.kind {
	case askAdopt, askCut:
		return g.change(ctx, q)
	case askOrder:
		return g.ordersSegment(ctx, q)
	case askWhere:
		d, ok := g.table.Lookup(q.text)
		if !ok || !g.leads(q.segment) {
			return nil, fmt.Errorf("%w: node %s does not lead segment %s", ErrUnavailable, g.cfg.Self.Short(), q.segment)
		}
		return meshpb.EncodeDescriptor(d), nil
	case askFit:
		return nil, g.fitsHere(q.segment, q.text)
	case askAlive:
		return nil, g.readIndex(ctx, q.segment)
	case askRecover:
		return g.ordered(ctx, q)
	case askReach:
		return g.reach(q)
	}
	h, ok := g.homeOf(q.segment)
	switch {
	case q.kind == askSign && ok:
		return nil, g.sign(ctx, h, q.id, q.flag, string(q.text))
	case !ok || !h.leads:
		return nil, fmt.Errorf("%w: node %s does not lead it", ErrUnavailable, g.cfg.Self.Short())
	}
	switch q.kind {
	case askPropose:
		return g.take(ctx, h, q.body)
	case askDead:
		return nil, g.hearDead(ctx, from, h, q.body)
	case askVote:
		_, err := g.propose(ctx, h, append([]byte{byte(machine.OpVote)}, q.body...))
		return nil, err
	case askShow:
		return g.view(ctx, h)
	case askClose:
		if p := h.Scope.Recovering; p != nil && p.ID == q.id {
			return nil, g.giveUp(ctx, h, p, string(q.text))
		}
		note := "by " + string(q.text)
		_, err := g.propose(ctx, h, machine.Close(q.id, scope.Withdrawn, note))
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", ErrRefused, errMalformed)
}

// change has a segment led here adopt a policy, or cut at a key, if it is of the
// generation that the question names, and answers with its descriptor.
func (g *Governor) change(ctx context.Context, q *question) ([]byte, error) {
	r, here := g.host.Get(q.segment)
	st, ok := g.engine.Status(q.segment)
	if !here || !ok || !st.Leads() {
		return nil, fmt.Errorf("%w: node %s does not lead segment %s", ErrUnavailable, g.cfg.Self.Short(), q.segment)
	}
	s := r.Machine.State()
	h := home{State: s, segment: q.segment, term: st.Term, leads: true}
	var err error
	switch {
	case q.flag:
		err = g.readIndex(ctx, q.segment)
	case q.generation != s.Descriptor.Generation: // it has changed: the answer says how
	case q.kind == askCut:
		err = g.cut(ctx, q)
	case len(q.body) == 0 || q.body[0] != byte(machine.OpAdopt):
		err = fmt.Errorf("%w: %w", ErrRefused, errMalformed)
	default:
		_, err = g.propose(ctx, h, q.body)
	}
	if err != nil {
		return nil, err
	}
	return meshpb.EncodeDescriptor(r.Machine.Descriptor()), nil
}

// cut cuts a segment led here where a new scope begins or ends.
func (g *Governor) cut(ctx context.Context, q *question) error {
	proof, err := lineage.DecodeProof(q.body)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return g.cfg.Split(ctx, q.segment, &machine.Split{At: q.text, Evidence: lineage.Evidence{Reason: lineage.Boundary}}, &machine.Decision{Proof: proof})
}

// take opens a proposal at a home led here.
func (g *Governor) take(ctx context.Context, h home, body []byte) ([]byte, error) {
	c, err := parseChange(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	p, err := g.draft(ctx, h, c)
	if err != nil {
		return nil, err
	}
	if err := g.judge(ctx, h, p); err != nil {
		return nil, err
	}
	switch {
	case p.Kind == scope.Create:
		err = g.Fit(ctx, p.Subject)
	case p.Kind.Order():
		err = g.rehearse(ctx, p)
	}
	if err != nil {
		return nil, err
	}
	index, err := g.propose(ctx, h, machine.Propose(p))
	if err != nil {
		return nil, err
	}
	tell(g.cfg.Listener.Proposed, p.Kind.String())
	now, ok := g.homeOf(h.segment)
	if !ok {
		return nil, ErrUnknown
	}
	for _, o := range now.Scope.Open {
		if o.Index == index {
			g.cfg.Logger.Info("a change of a scope is put to the vote", "scope", string(h.Descriptor.Scope), "proposal", o.ID,
				"kind", o.Kind.String(), "subject", string(o.Subject), "version", o.Version, "operator", o.Operator)
			return fields.AppendNumbers(nil, o.ID), nil
		}
	}
	// Decided already: by a vote that was faster than this look.
	for _, d := range []*scope.Proposal{now.Scope.Doing, now.Scope.Recovering} {
		if d != nil && d.Index == index {
			return fields.AppendNumbers(nil, d.ID), nil
		}
	}
	return fields.AppendNumbers(nil, now.Scope.Next), nil
}

func tell(f func(string), word string) {
	if f != nil {
		f(word)
	}
}

// draft words a change as a proposal to a home.
func (g *Governor) draft(ctx context.Context, h home, c *Change) (*scope.Proposal, error) {
	newest := h.Scope.Newest().Number
	p := &scope.Proposal{Kind: c.Kind, Subject: c.Prefix, Base: newest, Policy: c.Policy, Operator: c.Operator, AtMillis: time.Now().UnixMilli()}
	if !c.AnyVersion && c.Kind == scope.Amend && c.Expect != newest {
		return nil, fmt.Errorf("%w: version %d of the policy is in force, not %d", ErrRefused, newest, c.Expect)
	}
	switch c.Kind {
	case scope.Amend:
		p.Version = newest + 1
	case scope.Create:
		p.Version = 1
	case scope.Delete:
		around, err := g.enclosing(ctx, h.Descriptor.Scope)
		if err != nil {
			return nil, err
		}
		v := around.Record.Newest()
		p.Subject, p.Version, p.Policy, p.Anchors = around.Prefix, v.Number, v.Policy, around.Anchors
	case scope.Recover:
		p.Segment, p.Survivor = c.Segment, c.Survivor
		if d, ok := g.table.Segment(c.Segment); ok {
			p.Subject = d.Scope
		}
	case scope.Split, scope.Merge, scope.Move:
		p.Subject, p.Policy, p.Segment, p.Key, p.From, p.To = h.Descriptor.Scope, nil, c.Segment, c.Key, c.From, c.To
		d, ok := g.table.Segment(c.Segment)
		if !ok {
			return nil, fmt.Errorf("%w: this node knows no segment %s", ErrRefused, c.Segment)
		}
		p.Generation = d.Generation
	default:
		return nil, fmt.Errorf("%w: %s is not known here", ErrRefused, c.Kind)
	}
	if p.Policy != nil {
		p.Policy = p.Policy.Normal()
	}
	return p, nil
}

// view is the scope of a home led here, behind a read round.
func (g *Governor) view(ctx context.Context, h home) ([]byte, error) {
	if err := g.readIndex(ctx, h.segment); err != nil {
		return nil, err
	}
	h, ok := g.homeOf(h.segment)
	if !ok {
		return nil, fmt.Errorf("%w: it was given back", ErrNoScope)
	}
	d := h.Descriptor
	v := &View{Prefix: d.Scope, Home: h.segment, Leader: g.cfg.Self, Anchors: h.Want, Record: h.Scope}
	electorate := h.Electorate()
	for _, a := range d.Voters() {
		v.Voters, v.Weights = append(v.Voters, a.Node), append(v.Weights, uint64(electorate.Weight(a.Node)))
	}
	v.Needed = uint64(electorate.Need(h.Scope.Threshold()))
	for _, p := range h.Scope.Open {
		v.Open = append(v.Open, Standing{ID: p.ID, Tally: h.Scope.Tally(p, electorate), Waiting: missing(v.Voters, p)})
	}
	parts, _ := g.table.Parts(anchormesh.PrefixRange(d.Scope))
	for _, part := range parts {
		if o := part.Descriptor; len(o.Scope) <= len(d.Scope) {
			v.Segments = append(v.Segments, Adoption{Segment: o.Segment, Range: part.Range, Version: o.Policy, Entered: bytes.Equal(o.Scope, d.Scope)})
		}
	}
	return v.encode(), nil
}

// missing are the voters that have not voted.
func missing(voters []anchormesh.NodeID, p *scope.Proposal) (out []anchormesh.NodeID) {
	for _, n := range voters {
		if !slices.ContainsFunc(p.Votes, func(v scope.Vote) bool { return v.Node == n }) {
			out = append(out, n)
		}
	}
	return out
}

func (g *Governor) readIndex(ctx context.Context, segment anchormesh.SegmentID) error {
	done := make(chan error, 1)
	g.engine.ReadIndex(segment, func(_ uint64, err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}
