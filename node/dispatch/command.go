package dispatch

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/host"
)

// CommandMethod is the mesh call that carries commands which nodes give each other's
// segments, beside what clients ask for.
//
// Request: uvarint segment, uvarint generation, byte flags (1: to be stamped; 2: a
// question; 4: what the segment uses), then the command, or for a question the uvarint lease whose keys are
// asked for. Answers are as those of Method; keys have their lengths in front.
const CommandMethod = 6

const (
	flagStamp    = 1
	flagQuestion = 2
	flagUsage    = 4
)

// Command implements leases.Commander: it puts a command into the log of the segment
// that holds a key, wherever its leader is. stamp says that it writes keys. It is
// tried until ctx ends; that must do no harm, for the outcome of a try may be unknown.
func (d *Dispatcher) Command(ctx context.Context, key []byte, command []byte, stamp bool) (in anchormesh.KeyRange, index uint64, response []byte, err error) {
	flags := byte(0)
	if stamp {
		flags = flagStamp
	}
	return d.insist(ctx, key, flags, command)
}

// LeaseKeys implements leases.Commander: it returns the keys that hang on a lease in
// the segment that holds a key.
func (d *Dispatcher) LeaseKeys(ctx context.Context, key []byte, id int64) (in anchormesh.KeyRange, keys [][]byte, err error) {
	in, _, list, err := d.insist(ctx, key, flagQuestion, binary.AppendUvarint(nil, uint64(id)))
	for err == nil && len(list) > 0 {
		n, k := binary.Uvarint(list)
		if k <= 0 || n > uint64(len(list)-k) {
			return in, nil, errMalformed
		}
		keys, list = append(keys, list[k:k+int(n)]), list[k+int(n):]
	}
	return in, keys, err
}

// Usage asks a segment's leader what the segment uses. It is asked once.
func (d *Dispatcher) Usage(ctx context.Context, desc *anchormesh.Descriptor) (keyspace.Usage, error) {
	_, answer, err := d.tryCommand(ctx, desc, flagUsage, nil)
	if err != nil {
		return keyspace.Usage{}, err
	}
	return keyspace.ParseUsage(answer)
}

// Share gives a segment its share of the scope's quota, in place of the version that the
// share names. It is tried once.
func (d *Dispatcher) Share(ctx context.Context, desc *anchormesh.Descriptor, share keyspace.Share) error {
	_, _, err := d.tryCommand(ctx, desc, 0, keyspace.AppendShare([]byte{byte(keyspace.OpShare)}, share))
	return err
}

// insist tries until the outcome is known.
func (d *Dispatcher) insist(ctx context.Context, key []byte, flags byte, body []byte) (in anchormesh.KeyRange, index uint64, response []byte, err error) {
	for {
		changed := d.table.Changed()
		desc, ok := d.table.Lookup(key)
		if err = retry(etcdapi.ErrNoLeader); ok {
			index, response, err = d.tryCommand(ctx, desc, flags, body)
		}
		if err == nil || !errors.Is(err, errRetry) && !unknown(err) {
			if ok {
				in = desc.Range
			}
			return in, index, response, err
		}
		timer := time.NewTimer(retryWait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return in, 0, nil, gaveUp(ctx, err)
		}
		timer.Stop()
	}
}

func unknown(err error) bool {
	return errors.Is(err, etcdapi.ErrTimeoutLeaderFail) || errors.Is(err, etcdapi.ErrTimeoutConnectionLost)
}

func (d *Dispatcher) tryCommand(ctx context.Context, desc *anchormesh.Descriptor, flags byte, body []byte) (uint64, []byte, error) {
	if st, ok := d.engine.Status(desc.Segment); ok && st.Leads() {
		r, here := d.host.Get(desc.Segment)
		if !here || r.Machine.Descriptor().Generation != desc.Generation {
			return 0, nil, retry(consensus.ErrNoGroup)
		}
		done := make(chan consensus.Result, 1)
		d.command(r, desc, flags, body, func(res consensus.Result) { done <- res })
		select {
		case res := <-done:
			return res.Index, res.Response, translate(res.Err)
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
	d.engine.Seek(desc.Segment)
	to := d.anchor(ctx, desc, 0)
	if to == "" || to == d.self {
		return 0, nil, retry(etcdapi.ErrNoLeader)
	}
	head := binary.AppendUvarint(binary.AppendUvarint(make([]byte, 0, 24), uint64(desc.Segment)), uint64(desc.Generation))
	answer, err := d.caller.Call(ctx, to, CommandMethod, append(head, flags), body)
	if err != nil {
		return 0, nil, known(d.forwardFailed(ctx, desc, &etcdapi.Call{Write: true}, to, err))
	}
	index, n := binary.Uvarint(answer)
	if n <= 0 {
		return 0, nil, errMalformed
	}
	return index, answer[n:], nil
}

// known gives another node's word about a lease its error back.
func known(err error) error {
	for _, k := range []error{keyspace.ErrLeaseNotFound, keyspace.ErrLeaseStale, keyspace.ErrLeaseSpread} {
		if etcdapi.Status(err).Message() == etcdapi.Status(k).Message() {
			return k
		}
	}
	return err
}

func isLeaseNotFound(err error) bool {
	return err != nil && etcdapi.Status(err).Message() == etcdapi.Status(etcdapi.ErrLeaseNotFound).Message()
}

// command carries a command or a question out on the leader.
func (d *Dispatcher) command(r *host.Replica, desc *anchormesh.Descriptor, flags byte, body []byte, done func(consensus.Result)) {
	switch {
	case flags&flagUsage != 0:
		u := r.Machine.Space().Usage()
		done(consensus.Result{Response: u.Append(nil)})
	case flags&flagQuestion != 0:
		id, _ := binary.Uvarint(body)
		d.engine.ReadIndex(desc.Segment, func(_ uint64, err error) {
			var list []byte
			for _, key := range r.Machine.Space().LeaseKeys(int64(id)) {
				list = append(binary.AppendUvarint(list, uint64(len(key))), key...)
			}
			done(consensus.Result{Response: list, Err: err})
		})
	case flags&flagStamp != 0 && ordered(r):
		d.txns.Propose(desc, body, done)
	default:
		d.engine.Propose(desc.Segment, desc.Generation, body, done)
	}
}

// allowed says which commands other nodes may give.
func allowed(op keyspace.Op) bool {
	return op >= keyspace.OpLeaseRegister && op <= keyspace.OpLeaseForget || op == keyspace.OpShare
}

// wellFormed looks at flags and what is behind them.
func wellFormed(b []byte) bool {
	switch {
	case len(b) > 0 && b[0] == flagUsage:
		return len(b) == 1
	case len(b) < 2:
		return false
	}
	return b[0]&flagQuestion != 0 || allowed(keyspace.Op(b[1]))
}

// ServeCommand answers another node's command; it does not block.
func (d *Dispatcher) ServeCommand(_ anchormesh.NodeID, payload []byte, to mesh.Responder) {
	segment, n := binary.Uvarint(payload)
	if n <= 0 {
		to.Fail(codeStatus+uint16(codes.InvalidArgument), errMalformed.Error())
		return
	}
	generation, k := binary.Uvarint(payload[n:])
	if k <= 0 || !wellFormed(payload[n+k:]) {
		to.Fail(codeStatus+uint16(codes.InvalidArgument), errMalformed.Error())
		return
	}
	flags, body := payload[n+k], payload[n+k+1:]
	id := anchormesh.SegmentID(segment)
	r, here := d.host.Get(id)
	if !here || r.Machine.Descriptor().Generation != anchormesh.Generation(generation) {
		d.failStale(to, id)
		return
	}
	d.command(r, r.Machine.Descriptor(), flags, body, func(res consensus.Result) {
		if res.Err != nil {
			d.failWith(to, id, translate(res.Err))
			return
		}
		to.Reply(binary.AppendUvarint(make([]byte, 0, 10), res.Index), res.Response)
	})
}
