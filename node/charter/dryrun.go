package charter

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/governor"
)

// rehearsal is a dry run under way.
type rehearsal struct {
	kind   scope.Kind
	prefix []byte
	seat   *governor.View // of the scope that decides
	around *governor.View // of the scope around; nil: of the root scope
	old    *policy.Policy // what holds for the keys now
	new    *policy.Policy // what would
}

// DryRun implements meshpb.ScopesServer.
func (s *Service) DryRun(ctx context.Context, req *meshpb.DryRunRequest) (*meshpb.DryRunReply, error) {
	if err := checkNames(req.GetPrefix(), ""); err != nil {
		return nil, err
	}
	r, err := s.rehearse(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := r.judge(); err != nil {
		return nil, err
	}
	out := &meshpb.DryRunReply{
		Kind: r.kind.String(), Decides: r.seat.Prefix, Voters: weights(r.seat), Needed: r.seat.Needed, Policy: string(r.new.Encode()),
	}
	for _, c := range policy.Diff(r.old, r.new) {
		out.Changes = append(out.Changes, &meshpb.FieldChange{Field: c.Field, Old: c.Old, New: c.New})
	}
	out.Holds, out.Uncounted = s.everywhere(ctx, anchormesh.PrefixRange(r.prefix))
	s.touch(out, r)
	s.warn(ctx, out, r)
	return out, nil
}

// rehearse collects the policies before and after.
func (s *Service) rehearse(ctx context.Context, req *meshpb.DryRunRequest) (r *rehearsal, err error) {
	r = &rehearsal{prefix: req.GetPrefix()}
	own, err := s.cfg.Scopes.Show(ctx, r.prefix)
	absent := errors.Is(err, governor.ErrNoScope)
	if err != nil && !absent {
		return nil, Fault(err)
	}
	if outer, ok := s.outer(r.prefix); ok {
		if r.around, err = s.show(ctx, outer); err != nil {
			return nil, err
		}
	}
	switch {
	case req.GetKind() == "delete" && absent:
		return nil, noScope(r.prefix)
	case req.GetKind() == "delete" && r.around == nil:
		return nil, status.Error(codes.FailedPrecondition, "the root scope cannot be deleted: there is none around it")
	case req.GetKind() == "delete":
		r.kind, r.seat, r.old, r.new = scope.Delete, own, inForce(own), inForce(r.around)
		return r, nil
	case req.GetKind() != "change" && req.GetKind() != "":
		return nil, status.Errorf(codes.InvalidArgument, "a dry run of %q: want change or delete", req.GetKind())
	case absent && r.around == nil:
		return nil, status.Error(codes.Unavailable, "this node does not know yet who holds the prefix")
	case absent:
		r.kind, r.seat, r.old = scope.Create, r.around, inForce(r.around)
	default:
		r.kind, r.seat, r.old = scope.Amend, own, inForce(own)
	}
	r.new, err = s.read(req.GetPolicy(), req.GetPreset(), r.prefix)
	return r, err
}

// outer returns the innermost scope around a prefix.
func (s *Service) outer(prefix []byte) (found []byte, ok bool) {
	for _, p := range s.cfg.Scopes.List() {
		if len(p) < len(prefix) && bytes.HasPrefix(prefix, p) && (!ok || len(p) > len(found)) {
			found, ok = p, true
		}
	}
	return found, ok
}

// inForce is the policy of a scope; the mesh's default spelled out.
func inForce(v *governor.View) *policy.Policy {
	if p := v.Policy(); p != nil {
		return p
	}
	p := policy.Standard()
	p.Anchors.Count = cmp.Or(v.Anchors, p.Anchors.Count)
	return p
}

// judge says why the voters would refuse.
func (r *rehearsal) judge() error {
	if r.around == nil || r.kind == scope.Delete {
		return nil
	}
	if err := policy.Weakens(inForce(r.around), r.new); err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return nil
}

// touch lists the segments that the change concerns, the cuts that come first, and the
// anchors that are missing.
func (s *Service) touch(out *meshpb.DryRunReply, r *rehearsal) {
	keys := anchormesh.PrefixRange(r.prefix)
	segments, _ := s.cfg.Table.Covering(keys)
	for _, d := range segments {
		if len(d.Scope) > len(r.prefix) {
			continue // a scope inside keeps its own
		}
		leader, _ := s.cfg.Table.Leader(d.Segment)
		out.Segments = append(out.Segments, uint64(d.Segment))
		out.Touched = append(out.Touched, &meshpb.TouchedSegment{
			Segment: uint64(d.Segment), Start: d.Range.Start, End: d.Range.End, Leader: string(leader), Anchors: meshpb.ToPB(d).GetAnchors(),
		})
		for _, at := range [][]byte{keys.Start, keys.End} {
			if len(at) > 0 && d.Range.Contains(at) && !bytes.Equal(d.Range.Start, at) {
				out.Cuts = append(out.Cuts, &meshpb.Cut{Segment: uint64(d.Segment), At: at})
			}
		}
		if has := len(d.Voters()); has < r.new.Anchors.Count {
			out.Recruiting = append(out.Recruiting, &meshpb.Recruiting{Segment: uint64(d.Segment), Has: uint32(has), Wants: uint32(r.new.Anchors.Count)})
		}
	}
}

// warn says what would go wrong, or stay undone, as things stand.
func (s *Service) warn(ctx context.Context, out *meshpb.DryRunReply, r *rehearsal) {
	say := func(format string, args ...any) { out.Warnings = append(out.Warnings, fmt.Sprintf(format, args...)) }
	usable, zones := 0, map[string]bool{}
	for _, n := range s.cfg.Nodes() {
		if n.Alive && !n.Leaving {
			usable++
			zones[n.Zone] = true
		}
	}
	p := r.new
	if p.Anchors.Count > usable {
		say("%d anchors are wanted, and %d nodes can hold one: it goes on with fewer until more come", p.Anchors.Count, usable)
	}
	if p.Acks != (policy.Acks{}) && p.AcksWanted() > usable {
		say("%d acks are wanted, and %d nodes can hold an anchor: writes would be refused until there are more", p.AcksWanted(), usable)
	}
	for _, missing := range out.GetRecruiting() {
		if p.Acks.Count > int(missing.GetHas()) {
			say("%d acks are wanted, and segment %s has %d voters: its writes are refused until it has more; raise anchors.count first, and acks behind it",
				p.Acks.Count, anchormesh.SegmentID(missing.GetSegment()), missing.GetHas())
		}
	}
	if p.Anchors.Zones > len(zones) {
		say("anchors in %d zones are wanted, and the nodes are in %d", p.Anchors.Zones, len(zones))
	}
	if doing := r.seat.Record.Doing; doing != nil {
		say("the scope that decides is busy: it is carrying out proposal %d, to %s %q", doing.ID, doing.Kind, doing.Subject)
	}
	if r.kind == scope.Create {
		if err := Fault(s.cfg.Scopes.Fit(ctx, r.prefix)); err != nil {
			say("it would be refused now, and may be asked for later: %s", status.Convert(err).Message())
		}
	}
	if inForce(r.seat).Amend.Manual {
		say("votes are given by operators there: see anchormesh scope vote")
	}
	if r.kind == scope.Amend && len(out.GetChanges()) == 0 {
		say("the policy is what it is already")
	}
	for _, inner := range s.inner(r.prefix) {
		v, err := s.cfg.Scopes.Show(ctx, inner)
		if err != nil {
			say("scope %q inside does not answer: %v", inner, err)
			continue
		}
		if err := policy.Weakens(p, inForce(v)); err != nil {
			say("scope %q inside would be laxer than what is bound: %v", inner, err)
		}
	}
}

// inner returns the scopes directly inside a prefix.
func (s *Service) inner(prefix []byte) (out [][]byte) {
	for _, p := range s.cfg.Scopes.List() { // ascending: the outer ones come first
		inside := len(p) > len(prefix) && bytes.HasPrefix(p, prefix)
		if inside && !slices.ContainsFunc(out, func(o []byte) bool { return bytes.HasPrefix(p, o) }) {
			out = append(out, p)
		}
	}
	return out
}
