package differential

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	callTimeout   = 10 * time.Second
	settleTimeout = 5 * time.Second
	maxLift       = 20_000 // puts to bring one server to the other's revision
)

// errUnsettled is returned when neither server delivered what both should: the
// sequence itself is at fault (which shortening can cause).
var errUnsettled = errors.New("differential: streams did not settle on either server")

// Mismatch is the first difference a sequence brought.
type Mismatch struct {
	Ops       []Op // the last one, or what was pending behind it, made the difference
	Base      int64
	Reference string
	Target    string
}

func (m *Mismatch) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "difference after %d calls; revision %d in them is %d on the servers\n", len(m.Ops), origin, m.Base)
	for i, op := range m.Ops {
		fmt.Fprintf(&b, "%4d  %s\n", i+1, op)
	}
	fmt.Fprintf(&b, "reference: %s\ntarget:    %s\n", m.Reference, m.Target)
	return b.String()
}

// Compare runs ops on both servers and returns the first difference, nil if
// there is none. An error means that nothing could be concluded.
func Compare(ctx context.Context, reference, target *Server, ops []Op) (*Mismatch, error) {
	ctx, cancel := context.WithCancel(ctx) // ends the watch streams
	defer cancel()
	p := &pair{reference, target}
	if err := p.reset(ctx); err != nil {
		return nil, err
	}
	lined := target.Line
	for _, s := range p {
		s.streams = nil
		for range streams {
			w, err := s.openStream(ctx, lined)
			if err != nil {
				return nil, fmt.Errorf("differential: %s: watch: %w", s.Name, err)
			}
			s.streams = append(s.streams, w)
		}
	}
	for i, op := range ops {
		diff, err := p.step(ctx, op)
		if err != nil {
			return nil, fmt.Errorf("call %d, %s: %w", i+1, op, err)
		}
		if diff != nil {
			diff.Ops = ops[:i+1]
			return diff, nil
		}
	}
	diff, err := p.settle(ctx, allStreams...)
	if diff != nil {
		diff.Ops = ops
	}
	return diff, err
}

// pair is reference and target.
type pair [2]*Server

var allStreams = []int{0, 1, lateStream}

// both runs f on both servers at the same time.
func both[T any](p *pair, f func(*Server) T) (reference, target T) {
	done := make(chan T)
	go func() { done <- f(p[1]) }()
	reference = f(p[0])
	return reference, <-done
}

// step performs one call with what must come before and after.
func (p *pair) step(ctx context.Context, op Op) (*Mismatch, error) {
	if p[1].line != nil && leftOut(op, p[1].line) {
		return nil, nil
	}
	if op.races() {
		which := []int{op.Stream}
		if _, ok := op.Request.(*pb.CompactionRequest); ok {
			which = allStreams
		}
		if diff, err := p.settle(ctx, which...); diff != nil || err != nil {
			return diff, err
		}
	}
	for _, s := range p {
		if s.Between != nil {
			if err := s.Between(ctx); err != nil {
				return nil, fmt.Errorf("differential: %s: between calls: %w", s.Name, err)
			}
		}
	}
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, b := both(p, func(s *Server) answer { return s.do(callCtx, op) })
	if err := p.align(callCtx, op, a, b); err != nil {
		return nil, err
	}
	if p[1].line != nil && bothRefused(op, a, b) {
		return nil, nil
	}
	if diff := p.diff(a.String(), b.String()); diff != nil {
		return diff, nil
	}
	if code := status.Code(a.err); code == codes.Unavailable || code == codes.DeadlineExceeded {
		return nil, fmt.Errorf("both servers: %w", a.err)
	}
	if op.createRequest() != nil && op.Stream != lateStream {
		return p.settle(ctx, op.Stream)
	}
	return nil, nil
}

// align translates the target's answer, if it has a line of its own.
func (p *pair) align(ctx context.Context, op Op, a, b answer) error {
	l, ha, hb := p[1].line, a.header(), b.header()
	if l == nil || ha == nil || hb == nil || op.createRequest() != nil {
		return nil
	}
	if ofLeases(op.Request) {
		if last, _ := l.last(); ha.Revision > last { // keys went, in whatever segments
			now, err := p[1].kv.Range(ctx, &pb.RangeRequest{Key: []byte(sentinelKey), CountOnly: true})
			if err != nil {
				return err
			}
			l.note(ha.Revision, now.Header.Revision)
		}
		ha.Revision, hb.Revision = 0, 0
		return nil
	}
	if mayBeBehind(op.Request) {
		ha.Revision, hb.Revision = 0, 0
	} else {
		l.note(ha.Revision, hb.Revision)
	}
	l.translate(b.message.ProtoReflect())
	for _, answer := range []answer{a, b} {
		if txn, ok := answer.message.(*pb.TxnResponse); ok {
			for _, r := range txn.Responses {
				bareHeaders(r.ProtoReflect())
			}
		}
	}
	for _, w := range p[1].streams {
		w.mu.Lock()
		_, w.answered = l.last()
		w.mu.Unlock()
	}
	return nil
}

func (p *pair) diff(reference, target string) *Mismatch {
	if reference == target {
		return nil
	}
	return &Mismatch{Base: p[0].base, Reference: reference, Target: target}
}

// settle settles streams on both servers and compares what their watches saw.
func (p *pair) settle(ctx context.Context, which ...int) (*Mismatch, error) {
	settleCtx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	a, b := both(p, func(s *Server) error { return s.settle(settleCtx, which...) })
	if a != nil && b != nil {
		return nil, fmt.Errorf("%w: %w", errUnsettled, a)
	}
	if a != nil || b != nil {
		return p.diff(fmt.Sprintf("settled: %v", a), fmt.Sprintf("settled: %v", b)), nil
	}
	if l := p[1].line; l != nil {
		l.note(p[0].seen, p[1].seen)
	}
	for _, stream := range which {
		seenA, seenB := p[0].streams[stream].transcript(), p[1].streams[stream].transcript()
		if diff := p.diff(firstDifference(seenA, seenB)); diff != nil {
			return diff, nil
		}
	}
	return nil, nil
}

// firstDifference returns the first lines that differ, "" and "" if none do.
func firstDifference(a, b []string) (string, string) {
	for i := range max(len(a), len(b)) {
		lineA, lineB := "nothing more", "nothing more"
		if i < len(a) {
			lineA = a[i]
		}
		if i < len(b) {
			lineB = b[i]
		}
		if lineA != lineB {
			return lineA, lineB
		}
	}
	return "", ""
}

// reset cleans both servers and brings them to one revision: no lease, nothing
// but sentinelKey, created at base, and everything below base compacted.
// HashKV covers absolute revisions, so equal ones are needed.
func (p *pair) reset(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 6*callTimeout)
	defer cancel()
	for _, s := range p {
		if err := s.clean(ctx); err != nil {
			return fmt.Errorf("differential: clean %s: %w", s.Name, err)
		}
	}
	goal := max(p[0].seen, p[1].seen) + 1
	if p[1].Line {
		goal = 0
	}
	a, b := both(p, func(s *Server) error { return s.lift(ctx, goal) })
	if p[1].line = nil; p[1].Line && a == nil && b == nil {
		p[1].line = &line{}
		p[1].line.begin(p[0].base, p[1].base)
	}
	return errors.Join(a, b)
}

func (s *Server) clean(ctx context.Context) error {
	leases, err := s.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	if err != nil {
		return err
	}
	for _, l := range leases.Leases {
		if _, err := s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: l.ID}); err != nil {
			return err
		}
	}
	r, err := s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		return err
	}
	s.seen = r.Header.Revision
	return nil
}

// lift brings a clean server to revision goal+2, or, if that is zero, to wherever it gets.
func (s *Server) lift(ctx context.Context, goal int64) error {
	if goal-s.seen > maxLift {
		return fmt.Errorf("differential: %s is %d revisions behind, more than %d", s.Name, goal-s.seen, maxLift)
	}
	put := func() error {
		r, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte(sentinelKey)})
		if err == nil {
			s.seen = r.Header.Revision
		}
		return err
	}
	for s.seen < goal {
		if err := put(); err != nil {
			return err
		}
	}
	if _, err := s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(sentinelKey)}); err != nil {
		return err
	}
	if err := put(); err != nil {
		return err
	}
	if s.base = s.seen; goal > 0 && s.base != goal+2 {
		return fmt.Errorf("differential: %s is at revision %d instead of %d: somebody else writes, or revisions do not grow by one", s.Name, s.base, goal+2)
	}
	_, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: s.base, Physical: true})
	return err
}
