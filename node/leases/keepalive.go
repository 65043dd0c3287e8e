package leases

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/route"
)

// Method is the mesh call that carries forwarded keep-alives.
//
// Request: uvarint lease IDs to the end. Answer: uvarint revision, uvarint
// term, then a uvarint TTL for each. A failed answer is repeated elsewhere.
const Method = 3

const (
	retryWait = 20 * time.Millisecond
	idsMax    = 1 << 16
)

// errNotCounting says that this node does not lead the leases' segment, or not
// yet; another try finds who does.
var errNotCounting = errors.New("this node does not count the leases")

// Caller sends requests to other nodes.
type Caller interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
	Connected(node anchormesh.NodeID) bool
}

// Service implements etcdapi.Leases, and answers the reads that need the
// leader's clock.
type Service struct {
	self   anchormesh.NodeID
	lessor *Lessor
	host   *host.Host
	engine *consensus.Engine
	table  *route.Table
	caller Caller
	ender  *Ender
}

// NewService returns the lease service of the node self.
func NewService(self anchormesh.NodeID, l *Lessor, h *host.Host, e *consensus.Engine, t *route.Table, c Caller) *Service {
	return &Service{self: self, lessor: l, host: h, engine: e, table: t, caller: c}
}

// SetEnder says who ends leases of several segments; before the first request.
func (s *Service) SetEnder(x *Ender) { s.ender = x }

// EndLease ends a lease whose keys may lie in several segments; see Ender.End.
func (s *Service) EndLease(ctx context.Context, r *host.Replica, id int64) error {
	return s.ender.End(ctx, r, id)
}

// OpenLease makes a segment take puts that name a lease; see Ender.Open.
func (s *Service) OpenLease(ctx context.Context, id int64, in anchormesh.KeyRange) error {
	return s.ender.Open(ctx, id, in)
}

// KeepAlive implements etcdapi.Leases.
func (s *Service) KeepAlive(ctx context.Context, ids []int64) (codec.Header, []int64, error) {
	for {
		changed := s.table.Changed()
		header, ttls, err := s.try(ctx, ids)
		if err == nil || ctx.Err() != nil || errors.Is(err, etcdapi.ErrTooManyRequests) {
			return header, ttls, err
		}
		timer := time.NewTimer(retryWait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

func (s *Service) try(ctx context.Context, ids []int64) (codec.Header, []int64, error) {
	d, ok := s.table.Lookup(nil)
	if !ok {
		return codec.Header{}, nil, etcdapi.ErrNoLeader
	}
	leader, _ := s.table.Leader(d.Segment)
	if leader != s.self {
		return s.forward(ctx, d, leader, ids)
	}
	r, here := s.host.Get(d.Segment)
	if !here {
		return codec.Header{}, nil, errNotCounting
	}
	return s.renew(ctx, r, ids)
}

// renew is the leader's part.
func (s *Service) renew(ctx context.Context, r *host.Replica, ids []int64) (codec.Header, []int64, error) {
	segment := r.Machine.Descriptor().Segment
	led := make(chan error, 1)
	s.engine.ReadIndex(segment, func(_ uint64, err error) { led <- err })
	select {
	case err := <-led:
		if err != nil {
			return codec.Header{}, nil, err
		}
	case <-ctx.Done():
		return codec.Header{}, nil, ctx.Err()
	}
	st, ok := s.engine.Status(segment)
	if !ok || !st.Leads() {
		return codec.Header{}, nil, errNotCounting
	}
	header := r.Machine.Space().Header(st.Term)
	b := s.lessor.renew(segment, ids)
	select {
	case <-b.done:
	case <-ctx.Done():
		return codec.Header{}, nil, ctx.Err()
	}
	if errors.Is(b.err, consensus.ErrOverloaded) {
		return codec.Header{}, nil, etcdapi.ErrTooManyRequests
	}
	return header, b.ttls, b.err
}

func (s *Service) forward(ctx context.Context, d *anchormesh.Descriptor, leader anchormesh.NodeID, ids []int64) (codec.Header, []int64, error) {
	if leader == "" {
		if leader = s.guess(d); leader == "" {
			return codec.Header{}, nil, etcdapi.ErrNoLeader
		}
	}
	var body []byte
	for _, id := range ids {
		body = binary.AppendUvarint(body, uint64(id))
	}
	answer, err := s.caller.Call(ctx, leader, Method, body)
	var remote *mesh.RemoteError
	if errors.As(err, &remote) {
		s.table.Guess(d.Segment, anchormesh.NodeID(remote.Text))
	}
	if err != nil {
		return codec.Header{}, nil, err
	}
	return parseAnswer(answer, codec.Header{ClusterID: uint64(d.Mesh), MemberID: s.self.MemberID()}, len(ids))
}

// guess picks an anchor to ask when no leader is known: another one at each try.
func (s *Service) guess(d *anchormesh.Descriptor) anchormesh.NodeID {
	nodes := route.Askable(d, s.caller.Connected)
	for _, i := range rand.Perm(len(nodes)) {
		if nodes[i] != s.self {
			return nodes[i]
		}
	}
	return ""
}

var errMalformed = errors.New("malformed keep-alive between nodes")

func parseAnswer(b []byte, h codec.Header, n int) (codec.Header, []int64, error) {
	values := make([]uint64, 0, n+2)
	for len(b) > 0 {
		v, k := binary.Uvarint(b)
		if k <= 0 {
			return h, nil, errMalformed
		}
		values, b = append(values, v), b[k:]
	}
	if len(values) != n+2 {
		return h, nil, errMalformed
	}
	h.Revision, h.RaftTerm = int64(values[0]), values[1]
	ttls := make([]int64, n)
	for i, v := range values[2:] {
		ttls[i] = int64(v)
	}
	return h, ttls, nil
}

// Serve answers forwarded keep-alives; it is the mesh's call handler.
func (s *Service) Serve(_ anchormesh.NodeID, payload []byte, to mesh.Responder) {
	var ids []int64
	for len(payload) > 0 && len(ids) < idsMax {
		v, k := binary.Uvarint(payload)
		if k <= 0 {
			to.Fail(2, "")
			return
		}
		ids, payload = append(ids, int64(v)), payload[k:]
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		d, ok := s.table.Lookup(nil)
		if !ok {
			to.Fail(1, "")
			return
		}
		r, here := s.host.Get(d.Segment)
		leader, _ := s.table.Leader(d.Segment)
		if !here || leader != s.self {
			to.Fail(1, string(leader))
			return
		}
		header, ttls, err := s.renew(ctx, r, ids)
		if err != nil {
			to.Fail(1, "")
			return
		}
		out := binary.AppendUvarint(nil, uint64(header.Revision))
		out = binary.AppendUvarint(out, header.RaftTerm)
		for _, ttl := range ttls {
			out = binary.AppendUvarint(out, uint64(ttl))
		}
		to.Reply(out)
	}()
}

// LeaseRead answers LeaseTimeToLive and LeaseLeases; the caller made sure that
// this node leads.
func (s *Service) LeaseRead(ctx context.Context, r *host.Replica, term uint64, method etcdapi.Method, raw []byte) ([]byte, error) {
	space := r.Machine.Space()
	header := space.Header(term)
	if method == etcdapi.MethodLeaseLeases {
		all := space.Leases()
		ids := make([]int64, len(all))
		for i, l := range all {
			ids[i] = l.ID
		}
		return codec.AppendLeaseLeasesResponse(nil, header, ids), nil
	}
	var req codec.LeaseTimeToLiveRequest
	if err := codec.ParseLeaseTimeToLive(raw, &req); err != nil {
		return nil, err
	}
	row, ok := space.Lease(req.ID)
	if !ok {
		return codec.AppendLeaseTimeToLiveResponse(nil, header, req.ID, -1, 0, nil), nil
	}
	left, ok := s.lessor.Remaining(ctx, r.Machine.Descriptor().Segment, req.ID)
	if !ok {
		left = time.Duration(row.TTL) * time.Second
	}
	var keys [][]byte
	if req.Keys {
		keys = space.LeaseKeys(req.ID)
		if r.Machine.State().Line != 0 {
			others, err := s.ender.Keys(ctx, r, req.ID)
			if err != nil {
				return nil, err
			}
			keys = append(keys, others...)
		}
	}
	return codec.AppendLeaseTimeToLiveResponse(nil, header, req.ID, int64(left/time.Second), row.TTL, keys), nil
}

var _ etcdapi.Leases = (*Service)(nil)
