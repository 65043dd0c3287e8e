package stamps

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/mesh"
)

// Now returns the largest revision that the scope's home has given out, or a larger
// one: at or above everything acknowledged before the call. The error is ErrNoHome,
// of package line, or the context's; nothing took effect.
func (l *Lines) Now(ctx context.Context, scope []byte) (anchormesh.Revision, error) {
	told, err := l.question(ctx, scope, question{})
	return told.T, err
}

// Told is Now, and says where barriers are needed for who has passed barriers at
// since over all the scope.
func (l *Lines) Told(ctx context.Context, scope []byte, since anchormesh.Revision) (Told, error) {
	return l.question(ctx, scope, question{since: since, spread: true})
}

// Number returns a revision of the scope's line that nobody else gets, above all that
// were given out before the call: a transaction over several segments is committed at
// it. The errors are those of Now; then a number may have been given to nobody.
func (l *Lines) Number(ctx context.Context, scope []byte) (anchormesh.Revision, error) {
	told, err := l.question(ctx, scope, question{number: true})
	if err == nil && told.Number == 0 {
		err = ErrNoHome
	}
	return told.Number, err
}

func (l *Lines) question(ctx context.Context, scope []byte, q question) (Told, error) {
	type answer struct {
		told Told
		err  error
	}
	done := make(chan answer, 1)
	q.done = func(t Told, err error) { done <- answer{t, err} }
	taken := l.do(func() {
		s := l.scope(scope)
		if len(s.asking) >= l.cfg.Line.RequestsMax {
			q.done(Told{}, line.ErrOverloaded)
			return
		}
		s.asking = append(s.asking, q)
	})
	if !taken {
		return Told{}, ErrStopped
	}
	select {
	case a := <-done:
		return a.told, a.err
	case <-ctx.Done():
		return Told{}, ctx.Err()
	}
}

// barrierKey names what equal barriers have in common.
type barrierKey struct {
	segment    anchormesh.SegmentID
	generation anchormesh.Generation
	t          anchormesh.Revision
}

// barrierFlight is a barrier under way; done is closed when the rest is set.
type barrierFlight struct {
	done  chan struct{}
	index uint64
	err   error
}

// Barrier waits until nothing at or below t can appear in the segment any more. A
// replica that has applied the returned index of the segment's log has everything
// at or below t. The error is ErrNoHome, of package line, or the context's.
func (l *Lines) Barrier(ctx context.Context, d *anchormesh.Descriptor, t anchormesh.Revision) (uint64, error) {
	key := barrierKey{d.Segment, d.Generation, t}
	l.mu.Lock()
	f := l.flights[key]
	if f == nil {
		f = &barrierFlight{done: make(chan struct{})}
		l.flights[key] = f
		go l.fly(key, f)
	}
	l.mu.Unlock()
	select {
	case <-f.done:
		return f.index, f.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// fly carries one barrier to the segment's leader.
func (l *Lines) fly(key barrierKey, f *barrierFlight) {
	ctx, cancel := context.WithTimeout(context.Background(), l.cfg.CallTimeout)
	defer cancel()
	f.index, f.err = l.barrier(ctx, line.Barrier{Segment: key.segment, Generation: key.generation, T: key.t})
	l.mu.Lock()
	delete(l.flights, key)
	l.mu.Unlock()
	close(f.done)
}

func (l *Lines) barrier(ctx context.Context, b line.Barrier) (uint64, error) {
	if st, ok := l.engine.Status(b.Segment); ok && st.Leads() {
		type passed struct {
			index uint64
			err   error
		}
		done := make(chan passed, 1)
		l.barHere(b, func(index uint64, err error) { done <- passed{index, err} })
		select {
		case p := <-done:
			return p.index, p.err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	d, ok := l.table.Segment(b.Segment)
	if !ok {
		return 0, line.ErrNotLeader
	}
	answer, err := l.call(ctx, d, appendBarrier([]byte{askBarrier}, &b))
	if err != nil {
		return 0, err
	}
	index, n := binary.Uvarint(answer)
	if n <= 0 {
		return 0, errMalformed
	}
	return index, nil
}

// barHere takes a barrier to the holder on this node. The line is the holder's:
// what identifies a barrier is the segment, whose log knows its line.
func (l *Lines) barHere(b line.Barrier, done func(uint64, error)) {
	taken := l.do(func() {
		l.when(b.Segment, func() {
			s := l.led[b.Segment]
			switch {
			case s == nil:
				done(0, line.ErrNotLeader)
			case s.collector.Holder(b.Segment).Seat().Line == 0:
				l.liftedBarrier(b, done)
			default:
				l.bar(b, done)
			}
		})
	})
	if !taken {
		done(0, ErrStopped)
	}
}

// bar gives a barrier to the holder.
func (l *Lines) bar(b line.Barrier, done func(uint64, error)) {
	s := l.led[b.Segment]
	if s == nil {
		done(0, line.ErrNotLeader)
		return
	}
	h := s.collector.Holder(b.Segment)
	b.Token, b.Line = l.token(), h.Seat().Line
	s.passed[b.Token] = func(err error) {
		at, ok := l.segments.Standing(b.Segment)
		if err == nil && !ok {
			err = line.ErrNotLeader
		}
		done(at.Applied, err)
	}
	h.Barrier(l.now, b)
	s.stir(h)
}

// Serve answers another node's call; it does not block.
func (l *Lines) Serve(_ anchormesh.NodeID, payload []byte, to mesh.Responder) {
	if len(payload) == 0 {
		to.Fail(refused, errMalformed.Error())
		return
	}
	switch kind, body := payload[0], payload[1:]; kind {
	case askNumbers:
		req, err := parseRequest(body)
		if err != nil {
			to.Fail(refused, err.Error())
			return
		}
		l.serveRequest(req, to)
	case askBarrier:
		b, err := parseBarrier(body)
		if err != nil {
			to.Fail(refused, err.Error())
			return
		}
		l.barHere(b, func(index uint64, err error) {
			if err != nil {
				l.notHere(b.Segment, to, err)
				return
			}
			to.Reply(binary.AppendUvarint(nil, index))
		})
	case askAdopt:
		l.serveAdopt(body, to)
	default:
		to.Fail(refused, errMalformed.Error())
	}
}

func (l *Lines) serveRequest(req line.Request, to mesh.Responder) {
	taken := l.do(func() {
		if at, ok := l.segments.Standing(req.Segment); ok && at.Counts() {
			l.counted(req, func(a line.Answer) { l.reply(req.Segment, to, a) })
			return
		}
		l.when(req.Segment, func() {
			s := l.led[req.Segment]
			if s == nil || s.homeAt != req.Segment {
				l.notHere(req.Segment, to, line.ErrNotLeader)
				return
			}
			token := l.token()
			s.answers[token] = func(a line.Answer) { l.reply(req.Segment, to, a) }
			s.home.Request(token, req)
		})
	})
	if !taken {
		to.Fail(refused, ErrStopped.Error())
	}
}

func (l *Lines) reply(segment anchormesh.SegmentID, to mesh.Responder, a line.Answer) {
	if a.Err != nil {
		l.notHere(segment, to, a.Err)
		return
	}
	to.Reply(appendAnswer(nil, &a))
}

// Retry reports whether an error of this package means that nothing took effect and
// that another try may help.
func Retry(err error) bool {
	var remote *mesh.RemoteError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return false
	case errors.Is(err, line.ErrOverloaded), errors.Is(err, consensus.ErrOverloaded), errors.Is(err, ErrStopped):
		return false
	}
	return errors.As(err, &remote) || !errors.Is(err, errMalformed)
}

// DefaultConfig returns the limits; identity, commands and logger are the caller's.
func DefaultConfig(self anchormesh.NodeID) Config {
	return Config{Self: self, Line: line.DefaultConfig(), CallTimeout: time.Second, Pause: 20 * time.Millisecond}
}
