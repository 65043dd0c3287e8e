package charter

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/policy/document"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/governor"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/route"
)

// Mesh is what the answers need of the mesh.
type Mesh interface {
	Self() mesh.Member
	View() mesh.View
}

// Peers gives connections to other nodes.
type Peers interface {
	Conn(node anchormesh.NodeID) (grpc.ClientConnInterface, error)
}

// Config says where the answers come from.
type Config struct {
	Scopes governor.Scopes
	Mesh   Mesh
	Peers  Peers
	Host   *host.Host
	Engine *consensus.Engine
	Table  *route.Table
	// Compile says why a rule cannot be compiled.
	Compile policy.Compile
	// Nodes returns all members with what is known of how they stand.
	Nodes func() []place.Node
}

// Service implements meshpb.ScopesServer.
type Service struct {
	meshpb.UnimplementedScopesServer
	cfg Config
}

// New returns the service.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

// Fault gives an error of package governor its code.
func Fault(err error) error {
	var code codes.Code
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, governor.ErrNoScope):
		code = codes.NotFound
	case errors.Is(err, governor.ErrUnknown):
		code = codes.Unknown
	case errors.Is(err, governor.ErrRefused):
		code = codes.FailedPrecondition
	case errors.Is(err, governor.ErrUnavailable), errors.Is(err, governor.ErrNotNow):
		code = codes.Unavailable
	default:
		return err // it has one, or is nobody's fault
	}
	text := err.Error()
	for _, kind := range []error{governor.ErrRefused, governor.ErrNotNow, machine.ErrRefused} {
		text = strings.TrimPrefix(text, kind.Error()+": ") // the code says so
	}
	return status.Error(code, text)
}

// read reads a document for the scope of that prefix.
func (s *Service) read(text, preset string, prefix []byte) (*policy.Policy, error) {
	p, err := document.Read([]byte(text), preset, prefix, s.cfg.Compile)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return p, nil
}

// noScope says that there is no such scope.
func noScope(prefix []byte) error {
	return status.Errorf(codes.NotFound, "there is no scope %q", prefix)
}

// show asks for a scope.
func (s *Service) show(ctx context.Context, prefix []byte) (*governor.View, error) {
	v, err := s.cfg.Scopes.Show(ctx, prefix)
	if errors.Is(err, governor.ErrNoScope) {
		return nil, noScope(prefix)
	}
	return v, Fault(err)
}

// checkNames bounds what stands in every request.
func checkNames(prefix []byte, operator string) error {
	switch {
	case len(prefix) > scope.PrefixBytesMax:
		return status.Errorf(codes.InvalidArgument, "the prefix is %d bytes long, at most %d", len(prefix), scope.PrefixBytesMax)
	case len(operator) > scope.OperatorBytesMax:
		return status.Errorf(codes.InvalidArgument, "the operator's name is %d bytes long, at most %d", len(operator), scope.OperatorBytesMax)
	}
	return nil
}

// exists reports whether there is such a scope, as far as this node knows.
func (s *Service) exists(prefix []byte) bool {
	return slices.ContainsFunc(s.cfg.Scopes.List(), func(p []byte) bool { return bytes.Equal(p, prefix) })
}

// propose asks for a change.
func (s *Service) propose(ctx context.Context, c governor.Change) (*meshpb.ProposalReply, error) {
	r, err := s.cfg.Scopes.Propose(ctx, c)
	if errors.Is(err, governor.ErrNoScope) {
		return nil, noScope(c.Prefix)
	}
	if err != nil {
		return nil, Fault(err)
	}
	return &meshpb.ProposalReply{Scope: r.Scope, Id: r.ID}, nil
}

// Create implements meshpb.ScopesServer.
func (s *Service) Create(ctx context.Context, req *meshpb.CreateScopeRequest) (*meshpb.ProposalReply, error) {
	if err := checkNames(req.GetPrefix(), req.GetOperator()); err != nil {
		return nil, err
	}
	if s.exists(req.GetPrefix()) {
		return nil, status.Errorf(codes.AlreadyExists, "scope %q exists already: set gives it another policy", req.GetPrefix())
	}
	p, err := s.read(req.GetPolicy(), req.GetPreset(), req.GetPrefix())
	if err != nil {
		return nil, err
	}
	return s.propose(ctx, governor.Change{Kind: scope.Create, Prefix: req.GetPrefix(), Policy: p, Operator: req.GetOperator()})
}

// Set implements meshpb.ScopesServer.
func (s *Service) Set(ctx context.Context, req *meshpb.SetScopeRequest) (*meshpb.ProposalReply, error) {
	if err := checkNames(req.GetPrefix(), req.GetOperator()); err != nil {
		return nil, err
	}
	p, err := s.read(req.GetPolicy(), req.GetPreset(), req.GetPrefix())
	if err != nil {
		return nil, err
	}
	c := governor.Change{Kind: scope.Amend, Prefix: req.GetPrefix(), Policy: p, Operator: req.GetOperator(), AnyVersion: req.Expect == nil, Expect: req.GetExpect()}
	if req.Expect != nil {
		v, err := s.show(ctx, req.GetPrefix())
		if err != nil {
			return nil, err
		}
		if newest := v.Record.Newest().Number; newest != req.GetExpect() {
			return nil, status.Errorf(codes.Aborted, "the newest version of scope %q is %d, not %d", req.GetPrefix(), newest, req.GetExpect())
		}
	}
	return s.propose(ctx, c)
}

// Delete implements meshpb.ScopesServer.
func (s *Service) Delete(ctx context.Context, req *meshpb.DeleteScopeRequest) (*meshpb.ProposalReply, error) {
	if err := checkNames(req.GetPrefix(), req.GetOperator()); err != nil {
		return nil, err
	}
	if len(req.GetPrefix()) == 0 {
		return nil, status.Error(codes.FailedPrecondition, "the root scope cannot be deleted: there is none around it")
	}
	return s.propose(ctx, governor.Change{Kind: scope.Delete, Prefix: req.GetPrefix(), Operator: req.GetOperator()})
}

// Recover implements meshpb.ScopesServer.
func (s *Service) Recover(ctx context.Context, req *meshpb.RecoverScopeRequest) (*meshpb.ProposalReply, error) {
	if err := checkNames(nil, req.GetOperator()); err != nil {
		return nil, err
	}
	d, ok := s.cfg.Table.Segment(anchormesh.SegmentID(req.GetSegment()))
	if !ok {
		return nil, status.Error(codes.NotFound, "this node knows no such segment")
	}
	survivor, err := s.node(req.GetSurvivor())
	if err != nil {
		return nil, err
	}
	if _, anchor := d.AnchorOn(survivor); !anchor {
		return nil, status.Errorf(codes.FailedPrecondition, "node %s is no anchor of segment %s", survivor.Short(), d.Segment)
	}
	return s.propose(ctx, governor.Change{Kind: scope.Recover, Prefix: d.Scope, Segment: d.Segment, Survivor: survivor, Operator: req.GetOperator()})
}

// RecoverHere implements meshpb.ScopesServer.
func (s *Service) RecoverHere(ctx context.Context, req *meshpb.RecoverHereRequest) (*meshpb.RecoverHereReply, error) {
	if err := checkNames(nil, req.GetOperator()); err != nil {
		return nil, err
	}
	d, ok := s.cfg.Table.Segment(anchormesh.SegmentID(req.GetSegment()))
	switch {
	case !ok:
		return nil, status.Error(codes.NotFound, "this node knows no such segment")
	case len(d.Scope) > 0 || !d.Home():
		return nil, status.Errorf(codes.FailedPrecondition, "segment %s is not the root scope's home: that decides how it is recovered", d.Segment)
	}
	now, err := s.cfg.Scopes.RecoverHere(ctx, d.Segment, req.GetOperator())
	if err != nil {
		return nil, Fault(err)
	}
	return &meshpb.RecoverHereReply{Generation: uint64(now.Generation)}, nil
}

// Vote implements meshpb.ScopesServer.
func (s *Service) Vote(ctx context.Context, req *meshpb.VoteRequest) (*meshpb.VoteReply, error) {
	node := s.cfg.Mesh.Self().ID
	if req.GetNode() != "" {
		var err error
		if node, err = s.node(req.GetNode()); err != nil {
			return nil, err
		}
	}
	if len(req.GetWhy()) > scope.NoteBytesMax {
		return nil, status.Errorf(codes.InvalidArgument, "the reason is %d bytes long, at most %d", len(req.GetWhy()), scope.NoteBytesMax)
	}
	v, err := s.show(ctx, req.GetScope())
	if err != nil {
		return nil, err
	}
	if !slices.Contains(v.Voters, node) {
		return nil, status.Errorf(codes.FailedPrecondition, "node %s does not vote in scope %q; its voters are %s", node.Short(), req.GetScope(), shorts(v.Voters))
	}
	err = s.cfg.Scopes.Vote(ctx, governor.Receipt{Scope: req.GetScope(), ID: req.GetId()}, node, req.GetApprove(), req.GetWhy())
	if err != nil {
		return nil, Fault(err)
	}
	return &meshpb.VoteReply{Node: string(node)}, nil
}

func shorts(nodes []anchormesh.NodeID) string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Short())
	}
	return strings.Join(out, ", ")
}

// Withdraw implements meshpb.ScopesServer.
func (s *Service) Withdraw(ctx context.Context, req *meshpb.WithdrawRequest) (*meshpb.WithdrawReply, error) {
	if err := checkNames(req.GetScope(), req.GetOperator()); err != nil {
		return nil, err
	}
	if err := s.cfg.Scopes.Withdraw(ctx, governor.Receipt{Scope: req.GetScope(), ID: req.GetId()}, req.GetOperator()); err != nil {
		return nil, Fault(err)
	}
	return &meshpb.WithdrawReply{}, nil
}

// node finds a member by its ID, or by its name if no other has it.
func (s *Service) node(word string) (anchormesh.NodeID, error) {
	var found []anchormesh.NodeID
	for _, m := range s.cfg.Mesh.View().Members() {
		if string(m.ID) == word {
			return m.ID, nil
		}
		if m.Name == word && m.State != mesh.Left {
			found = append(found, m.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", status.Errorf(codes.NotFound, "this node knows no node %q; `anchormesh nodes` lists them", word)
	case 1:
		return found[0], nil
	}
	return "", status.Errorf(codes.FailedPrecondition, "%d nodes are called %q: name it by its ID", len(found), word)
}
