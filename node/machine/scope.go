package machine

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/rules"
)

// Structural commands of scopes. All but OpAdopt stand in the log of a scope's home.
const (
	// OpPropose opens a proposal: scope.Proposal, as wanted.
	OpPropose = keyspace.OpStructural + 7 + iota
	// OpVote counts a signed vote, and decides if it is enough: proposal, scope.Vote.
	OpVote
	// OpClose ends an open proposal without a decision: proposal, outcome, note.
	OpClose
	// OpAdopt puts a decision in force in a segment: Adoption.
	OpAdopt
	// OpFinish ends what was being carried out: proposal, outcome, note. A scope that was
	// deleted ends with it.
	OpFinish
	// OpInForce notes that every segment has adopted a version: version.
	OpInForce
	// OpAffirm enters what was decided into the lineage again, for the voters of now to
	// sign: proposal, 0 for the newest version.
	OpAffirm
)

// Adoption is the command that puts a policy in force in a segment that is not, or not
// yet, the home of its scope.
type Adoption struct {
	// Proof is of the entry that decided it, or by which the scope's home adopted it.
	Proof   *lineage.Proof
	Policy  *policy.Policy // nil: the mesh's default
	Anchors int            // under the mesh's default
}

// Propose returns the command that opens a proposal.
func Propose(p *scope.Proposal) []byte { return append([]byte{byte(OpPropose)}, p.EncodeWanted()...) }

// CastVote returns the command that counts a vote.
func CastVote(id uint64, v *scope.Vote) []byte {
	return append([]byte{byte(OpVote)}, scope.EncodeVote(id, v)...)
}

// Close returns the command that ends an open proposal.
func Close(id uint64, o scope.Outcome, note string) []byte { return ending(OpClose, id, o, note) }

// Finish returns the command that ends what was being carried out.
func Finish(id uint64, o scope.Outcome, note string) []byte { return ending(OpFinish, id, o, note) }

func ending(op keyspace.Op, id uint64, o scope.Outcome, note string) []byte {
	return fields.AppendBytes(fields.AppendNumbers([]byte{byte(op)}, id, uint64(o)), []byte(note))
}

// InForce returns the command that notes that all segments have adopted a version.
func InForce(version uint64) []byte { return fields.AppendNumbers([]byte{byte(OpInForce)}, version) }

// Affirm returns the command that has a decision signed anew.
func Affirm(id uint64) []byte { return fields.AppendNumbers([]byte{byte(OpAffirm)}, id) }

// Command returns the adoption as a command of the log:
//
//	op | length, proof | length, policy | anchors
func (a *Adoption) Command() []byte {
	b := fields.AppendBytes([]byte{byte(OpAdopt)}, a.Proof.Encode())
	return fields.AppendNumbers(fields.AppendBytes(b, scope.EncodePolicy(a.Policy)), uint64(a.Anchors))
}

func parseAdoption(b []byte) (*Adoption, error) {
	r := reader{fields.Reader{Rest: b}}
	proof, rules, anchors := r.Bytes(), r.Bytes(), r.AtMost(1<<10)
	if err := r.end(); err != nil {
		return nil, err
	}
	a := &Adoption{Anchors: int(anchors)}
	var err error
	if a.Proof, err = lineage.DecodeProof(proof); err != nil {
		return nil, err
	}
	a.Policy, err = scope.DecodePolicy(rules)
	return a, err
}

// Home reports whether the segment keeps its scope's record.
func (s *State) Home() bool { return s.Scope != nil }

// applyScope applies a command of scopes. An error is a known outcome.
func (m *Machine) applyScope(op keyspace.Op, e *consensus.Entry, body []byte) error {
	now := m.state.Load()
	if now.Merging() {
		return fmt.Errorf("%w: the segment is being merged", ErrRefused)
	}
	if op == OpAdopt {
		return m.applyAdopt(e, now, body)
	}
	if !now.Home() {
		return fmt.Errorf("%w: segment %s is not the home of a scope", ErrRefused, now.Descriptor.Segment)
	}
	next := *now
	next.Descriptor = now.Descriptor.Clone()
	next.Descriptor.Changed = e.Index
	var err error
	switch op {
	case OpPropose:
		err = next.propose(placeOf(e), body)
	case OpVote:
		err = next.vote(placeOf(e), body, m.approvals.verify)
	case OpClose:
		err = next.close(placeOf(e), body)
	case OpFinish:
		err = next.finish(placeOf(e), body)
	case OpInForce:
		err = next.inForce(body)
	case OpAffirm:
		err = next.affirm(placeOf(e), body)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if next.Chain == now.Chain { // nothing that the descriptor tells of has changed
		next.Descriptor = now.Descriptor
	}
	m.govern(e, now, &next)
	return nil
}

// govern puts a state in force whose configuration is as it was.
func (m *Machine) govern(e *consensus.Entry, old, next *State) {
	b := m.segment.Begin(e.Index, e.Term)
	next.store(b)
	b.End()
	if next.Descriptor == old.Descriptor {
		m.put(next) // see Durable
	} else {
		m.enter(next)
	}
	m.changed(Change{State: next, Place: placeOf(e), Ended: endings(old.Scope, next.Scope)})
}

// endings returns what ended between two records of a scope.
func endings(old, next *scope.Record) []scope.Closed {
	if old == nil || next == nil || len(next.Closed) == 0 {
		return nil
	}
	last := uint64(0)
	if n := len(old.Closed); n > 0 {
		last = old.Closed[n-1].Index
	}
	i := slices.IndexFunc(next.Closed, func(c scope.Closed) bool { return c.Index > last })
	if i < 0 {
		return nil
	}
	return next.Closed[i:]
}

func at(place lineage.Place) scope.Place { return scope.Place{Index: place.Index, Term: place.Term} }

func (s *State) propose(place lineage.Place, body []byte) error {
	p, err := scope.DecodeWanted(body)
	if err != nil {
		return err
	}
	if p.Kind == scope.Delete && s.Keeper.Busy() {
		return fmt.Errorf("%w: a light segment begins anew, and this scope's home decides about it", scope.ErrBusy)
	}
	s.Scope, err = s.Scope.Propose(s.Descriptor.Scope, p, at(place))
	return err
}

func (s *State) vote(place lineage.Place, body []byte, signed Verify) error {
	id, v, err := scope.DecodeVote(body)
	if err != nil {
		return err
	}
	d := s.Descriptor
	if p, open := s.Scope.Proposal(id); open {
		if !signed(v.Node, p.Statement(d.Mesh, d.Segment, v.Approve), v.Signature) {
			return fmt.Errorf("%w: it is not signed by node %s", scope.ErrVote, v.Node.Short())
		}
	}
	record, decision, err := s.Scope.Vote(id, v, s.Electorate(), at(place))
	if err != nil {
		return err
	}
	s.Scope = record
	if decision == nil {
		return nil
	}
	return s.decided(place, decision)
}

// decided enters a decision into the lineage; a new version is in force here by it.
func (s *State) decided(place lineage.Place, d *scope.Decision) error {
	rule, why := s.decision(d.Proposal)
	why.Numbers[1], why.Numbers[2] = d.Tally.Approved, d.Tally.Total
	if c, is := s.Keeper.Case(d.Segment); is && d.Kind == scope.Recover { // the operator's word stands
		if ended, err := s.Keeper.End(d.Segment, c.Generation()+RecoveredGenerations-1); err == nil {
			s.Keeper = ended
		}
	}
	if err := s.chained(place, rule, false, why); err != nil {
		return err
	}
	s.Scope = s.Scope.Entered(d.Kind, s.Chain.Head())
	if d.Kind != scope.Amend {
		return nil
	}
	s.rule(&rule, d.Policy, 0)
	if s.Descriptor.Range.Covers(anchormesh.PrefixRange(s.Descriptor.Scope)) {
		s.Scope, _ = s.Scope.Adopted(d.Version) // there is nobody else to adopt it
	}
	return nil
}

// decision words a proposal that was decided. Its numbers are: the proposal's, the weights
// that were for it and of all, the time; of a recovery its segment, of an order its digest.
func (s *State) decision(p *scope.Proposal) (rule lineage.Rule, why lineage.Evidence) {
	rule = lineage.Rule{From: s.Descriptor.Scope, Scope: p.Subject, Version: p.Version, Policy: scope.PolicyHash(p.Policy)}
	why = lineage.Evidence{Reason: lineage.Operator, Operator: p.Operator, Numbers: []uint64{p.ID, 0, 0, uint64(p.AtMillis)}}
	switch {
	case p.Kind == scope.Recover:
		why.Reason, why.Numbers = lineage.Recovery, append(why.Numbers, uint64(p.Segment))
	case p.Kind.Order():
		why.Numbers = append(why.Numbers, orderNumbers(p)...)
	default:
		return rule, why
	}
	rule.Scope, rule.Version, rule.Policy = rule.From, s.Descriptor.Policy, scope.PolicyHash(s.Policy)
	return rule, why
}

// chained appends to the lineage. The descriptor is the caller's own.
func (s *State) chained(place lineage.Place, rule lineage.Rule, anew bool, why lineage.Evidence) error {
	chain, err := s.Chain.Policy(place, rule, anew, why)
	if err != nil {
		return err
	}
	s.Chain = chain
	s.Descriptor.Lineage, s.Descriptor.Generation = chain.Head(), chain.Now().Generation
	return nil
}

// rule puts a policy in force in the segment.
func (s *State) rule(r *lineage.Rule, p *policy.Policy, anchors int) {
	s.Descriptor.Scope, s.Descriptor.Policy = r.Scope, r.Version
	s.Policy, s.Want = p, anchors
	class := anchormesh.Normal
	if p != nil {
		class, s.Want = p.Class, p.Anchors.Count
	}
	s.reclass(class)
}

func (r *reader) ending() (id uint64, o scope.Outcome, note string, err error) {
	id, o, note = r.AtMost(math.MaxUint64), scope.Outcome(r.AtMost(math.MaxUint8)), string(r.Bytes())
	return id, o, note, r.end()
}

func (s *State) close(place lineage.Place, body []byte) error {
	r := reader{fields.Reader{Rest: body}}
	id, o, note, err := r.ending()
	if err != nil {
		return err
	}
	s.Scope, err = s.Scope.Close(id, o, note, at(place))
	return err
}

// finish ends what was carried out. With the deletion of the scope the home, the last
// of its segments, becomes one of the scope around it.
func (s *State) finish(place lineage.Place, body []byte) error {
	r := reader{fields.Reader{Rest: body}}
	id, o, note, err := r.ending()
	if err != nil {
		return err
	}
	doing, carried := s.Scope.Carried(id)
	if carried && doing.Kind == scope.Delete && len(s.Descriptor.Line) > len(doing.Subject) {
		return fmt.Errorf("the scope's line of revisions has not gone back to that of %q yet", doing.Subject)
	}
	if carried && doing.Kind == scope.Delete && s.Keeper.Busy() {
		return fmt.Errorf("%w: a light segment begins anew, and this scope's home decides about it", scope.ErrBusy)
	}
	if s.Scope, err = s.Scope.Finish(id, o, note, at(place)); err != nil || doing.Kind != scope.Delete {
		return err
	}
	rule := lineage.Rule{
		From: s.Descriptor.Scope, Scope: doing.Subject, Version: doing.Version,
		Policy: scope.PolicyHash(doing.Policy), Decision: doing.Entry,
	}
	if err := s.chained(place, rule, true, lineage.Evidence{Reason: lineage.Operator, Operator: doing.Operator}); err != nil {
		return err
	}
	s.rule(&rule, doing.Policy, doing.Anchors)
	s.Scope, s.Keeper = nil, nil
	return nil
}

func (s *State) inForce(body []byte) error {
	r := reader{fields.Reader{Rest: body}}
	version := r.AtMost(math.MaxUint64)
	if err := r.end(); err != nil {
		return err
	}
	record, err := s.Scope.Adopted(version)
	if err == nil {
		s.Scope = record
	}
	return err
}

// affirm repeats the lineage's entry about a decision that is not in force everywhere:
// too many of those who voted when it was applied may be gone, or have it from a snapshot,
// and sign nothing.
func (s *State) affirm(place lineage.Place, body []byte) error {
	r := reader{fields.Reader{Rest: body}}
	id := r.AtMost(math.MaxUint64)
	if err := r.end(); err != nil {
		return err
	}
	rule := lineage.Rule{From: s.Descriptor.Scope, Scope: s.Descriptor.Scope}
	why := lineage.Evidence{Reason: lineage.Operator}
	kind := scope.Amend
	switch doing, newest := s.Scope.Doing, s.Scope.Newest(); {
	case doing != nil && doing.ID == id:
		kind = doing.Kind
		rule, why = s.decision(doing)
		rule.Decision = doing.Entry
	case id == 0 && s.Scope.InForce < newest.Number:
		rule.Version, rule.Policy, rule.Decision = newest.Number, scope.PolicyHash(newest.Policy), newest.Entry
		why.Operator, why.Numbers = newest.Operator, []uint64{newest.Proposal, newest.Approved, newest.Total, uint64(newest.AtMillis)}
	default:
		return fmt.Errorf("%w: %d", scope.ErrNoProposal, id)
	}
	if err := s.chained(place, rule, false, why); err != nil {
		return err
	}
	s.Scope = s.Scope.Entered(kind, s.Chain.Head())
	return nil
}

// applyAdopt puts a proven decision in force.
func (m *Machine) applyAdopt(e *consensus.Entry, now *State, body []byte) error {
	a, err := parseAdoption(body)
	if err != nil {
		return err
	}
	if err := now.Adopts(a); err != nil {
		return err
	}
	if err := a.Proof.Verify(a.Proof.Entry.Voters, m.approvals.verify); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	next := *now
	if err := next.adopt(placeOf(e), a); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	m.govern(e, now, &next)
	return nil
}

// Adopts says why the state does not allow an adoption, whose signatures nobody looked
// at yet, if it does not.
func (s *State) Adopts(a *Adoption) error {
	d, e := s.Descriptor, a.Proof.Entry
	refused := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
	}
	r := &e.Rule
	switch {
	case e.Kind != lineage.Policy || e.Mesh != d.Mesh || scope.PolicyHash(a.Policy) != r.Policy || a.Policy == nil && a.Anchors < 1:
		return refused("the proof is of something else")
	case s.Merging():
		return refused("the segment is being merged")
	}
	if len(r.Scope) < len(d.Line) && bytes.Equal(d.Scope, r.From) {
		return refused("segment %s is on the line of %q, which is inside scope %q", d.Segment, d.Line, r.Scope)
	}
	switch inside := anchormesh.PrefixRange(r.Scope).Covers(d.Range); {
	case bytes.Equal(d.Scope, r.Scope) && (s.Home() || r.Version <= d.Policy):
		return refused("segment %s has adopted version %d of scope %q already", d.Segment, d.Policy, d.Scope)
	case bytes.Equal(d.Scope, r.Scope):
		return nil // a newer version
	case len(d.Scope) < len(r.Scope) && inside && bytes.HasPrefix(r.Scope, d.Scope) && !s.Home():
		return nil // a scope inside
	case bytes.Equal(d.Scope, r.From) && len(r.Scope) < len(r.From) && !s.Home():
		return nil // the scope is no more
	}
	return refused("segment %s %s is in scope %q, and cannot go from %q to %q", d.Segment, d.Range, d.Scope, r.From, r.Scope)
}

// adopt enters an adoption that is allowed and proven.
func (s *State) adopt(place lineage.Place, a *Adoption) error {
	old, r := s.Descriptor, a.Proof.Entry.Rule
	s.Descriptor = old.Clone()
	s.Descriptor.Changed = place.Index
	anew := !bytes.Equal(old.Scope, r.Scope)
	rule := lineage.Rule{From: old.Scope, Scope: r.Scope, Version: r.Version, Policy: r.Policy, Decision: a.Proof.Entry.Hash()}
	why := lineage.Evidence{Reason: a.Proof.Entry.Evidence.Reason, Operator: a.Proof.Entry.Evidence.Operator}
	if err := s.chained(place, rule, anew, why); err != nil {
		return err
	}
	s.rule(&rule, a.Policy, a.Anchors)
	if anew && s.Descriptor.Home() {
		s.Scope = begun(a, place, s.Chain.Head())
	}
	return nil
}

// begun is the record of a scope whose home has just adopted it.
func begun(a *Adoption, place lineage.Place, entry anchormesh.Hash) *scope.Record {
	why := &a.Proof.Entry.Evidence
	v := scope.Version{
		Number: a.Proof.Entry.Rule.Version, Policy: a.Policy, Operator: why.Operator,
		Index: place.Index, Term: place.Term, Entry: entry,
	}
	if len(why.Numbers) >= 4 { // as decided wrote them
		v.Proposal, v.Approved, v.Total = why.Numbers[0], why.Numbers[1], why.Numbers[2]
		v.AtMillis = int64(min(why.Numbers[3], math.MaxInt64))
	}
	return scope.Begun(v)
}

// CompileRule says why a rule of a policy cannot be compiled; nil if it can. It is a
// policy.Compile.
func CompileRule(r policy.Rule) error {
	return rules.Check(rules.Expr{Name: r.Name, Text: r.Expr})
}

// governed is what a policy says to the keyspace; nil is no policy.
func governed(scope []byte, p *policy.Policy) *keyspace.Governed {
	if p == nil {
		return nil
	}
	w := p.Writes
	g := &keyspace.Governed{
		QuotaBytes: p.Quota.Bytes, QuotaKeys: p.Quota.Keys, OwnCompaction: p.Retention.OwnCompaction,
		Rules: rules.Rules{
			Scope: string(scope), CreateOnly: w.CreateOnly, AppendOnly: w.AppendOnly, TTLRequired: w.TTLRequired,
			KeyBytesMax: w.KeyBytesMax, ValueBytesMax: w.ValueBytesMax, Writers: w.Writers, Signed: w.Signed,
		},
	}
	for _, r := range w.Rules {
		g.Rules.Exprs = append(g.Rules.Exprs, rules.Expr{Name: r.Name, Text: r.Expr})
	}
	return g
}
