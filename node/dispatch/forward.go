package dispatch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/deposed"
	"github.com/anchormesh/anchormesh/node/etcdapi"
)

// Method is the mesh call that carries forwarded requests.
//
// Request: uvarint segment, uvarint generation, byte method, byte flags (1
// serializable, 2 at, 4 from), with at the uvarint revision to read at, with from who gave
// the request (keyspace.Origin), which is believed of nodes alone, then the client's
// bytes. Answer: uvarint log index (0
// for reads), then the encoded response. A failed answer's code says what to do:
// see the codes below.
const Method = 1

const (
	flagSerializable = 1
	flagAt           = 2
	flagFrom         = 4
)

// Codes of failed answers. Above codeStatus, the rest is a gRPC code and the
// text is the client's.
const (
	codeRetry  = 1 // took effect nowhere; the text may be a node ID: the leader
	codeStale  = 2 // wrong segment or generation; the text is fresher descriptors, each with its length
	codeLarge  = 3 // the answer is too large for a call
	codeStatus = 100
)

// forward sends a call to another node.
func (d *Dispatcher) forward(ctx context.Context, desc *anchormesh.Descriptor, call *etcdapi.Call, to anchormesh.NodeID) (codec.Chunks, error) {
	if to == "" || to == d.self {
		return nil, retry(etcdapi.ErrNoLeader)
	}
	head := binary.AppendUvarint(make([]byte, 0, 24), uint64(desc.Segment))
	head = binary.AppendUvarint(head, uint64(desc.Generation))
	head = append(head, byte(call.Method), flagsOf(call))
	if call.At != 0 {
		head = binary.AppendUvarint(head, uint64(call.At))
	}
	if !call.From.Zero() {
		head = call.From.Append(head)
	}
	watched, stop := deposed.While(ctx, to, func() anchormesh.NodeID { return d.table.Follows(desc.Segment) })
	defer stop()
	answer, err := d.caller.Call(watched, to, Method, head, call.Raw())
	if err = deposed.Error(watched, err); err != nil {
		if err = d.forwardFailed(ctx, desc, call, to, err); errors.Is(err, errAnswerTooLarge) {
			return d.fetchLarge(ctx, call, to)
		}
		return nil, err
	}
	index, n := binary.Uvarint(answer)
	if n <= 0 {
		return nil, status.Error(codes.Internal, "etcdserver: malformed answer of a node")
	}
	if r, ok := d.host.Get(desc.Segment); ok && index > 0 {
		r.Raise(index)
	}
	return codec.Chunks{answer[n:]}, nil
}

func flagsOf(call *etcdapi.Call) (flags byte) {
	if call.Serializable {
		flags |= flagSerializable
	}
	if call.At != 0 {
		flags |= flagAt
	}
	if !call.From.Zero() {
		flags |= flagFrom
	}
	return flags
}

// fetchLarge asks again over gRPC, which has no limit to an answer's size.
func (d *Dispatcher) fetchLarge(ctx context.Context, call *etcdapi.Call, to anchormesh.NodeID) (codec.Chunks, error) {
	conn, err := d.peers.Conn(to)
	if err != nil {
		return nil, err
	}
	return etcdapi.Invoke(ctx, conn, call)
}

func (d *Dispatcher) forwardFailed(ctx context.Context, desc *anchormesh.Descriptor, call *etcdapi.Call, to anchormesh.NodeID, err error) error {
	var remote *mesh.RemoteError
	switch {
	case errors.As(err, &remote):
		return d.remoteFailed(desc, to, remote)
	case errors.Is(err, mesh.ErrOverloaded):
		return etcdapi.ErrTooManyRequests
	case errors.Is(err, mesh.ErrTooLarge):
		return etcdapi.ErrTooLarge
	case errors.Is(err, mesh.ErrUnreachable), errors.Is(err, mesh.ErrNoHandler), errors.Is(err, mesh.ErrRefused):
		d.forgetLeader(desc.Segment, to)
		return retry(etcdapi.ErrNoLeader)
	case errors.Is(err, mesh.ErrClosed):
		return etcdapi.ErrStopped
	case errors.Is(err, mesh.ErrUnknownOutcome) && !call.Write:
		d.forgetLeader(desc.Segment, to)
		return retry(err)
	case errors.Is(err, deposed.Err):
		return etcdapi.ErrTimeoutLeaderFail
	case errors.Is(err, mesh.ErrUnknownOutcome):
		return etcdapi.ErrTimeoutConnectionLost
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

// forgetLeader drops a hint that did not help.
func (d *Dispatcher) forgetLeader(segment anchormesh.SegmentID, node anchormesh.NodeID) {
	if known, ok := d.table.Leader(segment); ok && known == node {
		d.table.Guess(segment, "")
	}
}

func (d *Dispatcher) remoteFailed(desc *anchormesh.Descriptor, from anchormesh.NodeID, e *mesh.RemoteError) error {
	switch {
	case e.Code == codeRetry:
		d.table.Guess(desc.Segment, anchormesh.NodeID(e.Text))
		return retry(etcdapi.ErrNoLeader)
	case e.Code == codeStale:
		if !d.learn([]byte(e.Text)) {
			d.forgetLeader(desc.Segment, from) // it knows no more than this node: ask another
		}
		return retry(etcdapi.ErrNotAnchor)
	case e.Code == codeLarge:
		return errAnswerTooLarge
	case e.Code >= codeStatus && e.Code < codeStatus+32:
		return status.Error(codes.Code(e.Code-codeStatus), e.Text)
	}
	return retry(e)
}

// Serve answers a forwarded request; it is the mesh's call handler and does not
// block: writes answer from the apply goroutine, reads from one of their own.
func (d *Dispatcher) Serve(_ anchormesh.NodeID, payload []byte, to mesh.Responder) {
	req, err := parseForwarded(payload)
	if err != nil {
		to.Fail(codeStatus+uint16(codes.InvalidArgument), err.Error())
		return
	}
	r, here := d.host.Get(req.segment)
	if !here {
		d.failStaleCall(to, &req)
		return
	}
	desc := r.Machine.Descriptor()
	if desc.Generation != req.generation {
		d.failStaleCall(to, &req)
		return
	}
	if !req.call.Write || ends(r, req.call) {
		go d.serveSlow(req, to)
		return
	}
	if err := pace(r, req.call); err != nil {
		fail(to, err)
		return
	}
	command := commandOf(r, req.call)
	if err := d.Admit(r, desc, command); err != nil {
		fail(to, err)
		return
	}
	r.Meter.Write(req.call.Keys.Start, len(command))
	d.submit(r, desc, req.call.Method, command, func(res consensus.Result) {
		if res.Err != nil {
			d.failWith(to, req.segment, translate(res.Err))
			return
		}
		to.Reply(binary.AppendUvarint(make([]byte, 0, 10), res.Index), res.Response)
	})
}

// serveSlow answers what has to wait for others.
func (d *Dispatcher) serveSlow(req forwarded, to mesh.Responder) {
	ctx := context.Background()
	deadline := to.Deadline()
	if deadline.IsZero() {
		deadline = time.Now().Add(serveTimeout)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	r, here := d.host.Get(req.segment)
	if !here || r.Machine.Descriptor().Generation != req.generation {
		d.failStaleCall(to, &req)
		return
	}
	desc := r.Machine.Descriptor()
	var answer codec.Chunks
	var err error
	if req.call.Write || leaderOnly(req.call.Method) {
		st, ok := d.engine.Status(req.segment)
		if !ok || !st.Leads() {
			d.failWith(to, req.segment, retry(etcdapi.ErrNoLeader))
			return
		}
		answer, err = d.runLocal(ctx, r, desc, st.Term, req.call)
	} else {
		answer, err = d.readLocal(ctx, r, desc, req.call)
	}
	switch {
	case err != nil:
		d.failWith(to, req.segment, err)
	case answer.Size() > maxAnswerBytes:
		to.Fail(codeLarge, "answer is too large for a call")
	default:
		to.Reply(append([][]byte{{0}}, answer...)...)
	}
}

// serveTimeout bounds a forwarded read whose caller named no deadline.
const serveTimeout = 10 * time.Second

// maxAnswerBytes is the largest answer that travels as a call; larger ones are
// streamed by gRPC between the nodes.
const maxAnswerBytes = 1 << 20

// failWith answers with what the asking node needs to go on. An engine that is
// stopping took nothing in: that is the end for a client of this node, but another
// node's client need not hear of it.
func (d *Dispatcher) failWith(to mesh.Responder, segment anchormesh.SegmentID, err error) {
	if errors.Is(err, etcdapi.ErrStopped) {
		to.Fail(codeRetry, "")
		return
	}
	if !errors.Is(err, errRetry) {
		fail(to, err)
		return
	}
	d.engine.Seek(segment)
	leader := ""
	if st, ok := d.engine.Status(segment); ok {
		leader = string(st.Leader)
	}
	to.Fail(codeRetry, leader)
}

func fail(to mesh.Responder, err error) {
	st := etcdapi.Status(err)
	to.Fail(codeStatus+uint16(st.Code()), st.Message())
}

// forwarded is a parsed request of another node.
type forwarded struct {
	segment    anchormesh.SegmentID
	generation anchormesh.Generation
	call       *etcdapi.Call
}

var errMalformed = errors.New("malformed forwarded request")

func parseForwarded(b []byte) (forwarded, error) {
	segment, n := binary.Uvarint(b)
	if n <= 0 {
		return forwarded{}, errMalformed
	}
	generation, k := binary.Uvarint(b[n:])
	if k <= 0 || len(b) < n+k+2 {
		return forwarded{}, errMalformed
	}
	rest := b[n+k:]
	method, flags := etcdapi.Method(rest[0]), rest[1]
	at := uint64(0)
	if flags&flagAt != 0 {
		if at, n = binary.Uvarint(rest[2:]); n <= 0 || at == 0 || at > math.MaxInt64 {
			return forwarded{}, errMalformed
		}
		rest = rest[n:]
	}
	var from keyspace.Origin
	if flags&flagFrom != 0 {
		var behind []byte
		var ok bool
		if from, behind, ok = keyspace.ParseOrigin(rest[2:]); !ok {
			return forwarded{}, errMalformed
		}
		rest = rest[len(rest)-len(behind)-2:]
		from.Proof = bytes.Clone(from.Proof) // what lies in front of the request is written over
	}
	// The byte in front of the request is free now: it takes the command's op.
	call, err := etcdapi.ForwardedCall(method, rest[1:])
	if err != nil {
		return forwarded{}, err
	}
	call.Serializable = flags&flagSerializable != 0 && !call.Write
	call.At, call.From = anchormesh.Revision(at), from
	return forwarded{anchormesh.SegmentID(segment), anchormesh.Generation(generation), call}, nil
}
