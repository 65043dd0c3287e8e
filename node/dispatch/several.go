package dispatch

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/stamps"
)

// partsAtOnce bounds how many segments one request asks at the same time.
const partsAtOnce = 32

// several answers a call whose keys are in several segments, perhaps of several lines.
func (d *Dispatcher) several(ctx context.Context, call *etcdapi.Call) (codec.Chunks, error) {
	parts, whole := d.table.Covering(call.Keys)
	if !whole {
		return nil, retry(etcdapi.ErrNoLeader)
	}
	switch call.Method {
	case etcdapi.MethodRange:
		return d.rangeOver(ctx, parts, call)
	case etcdapi.MethodCompact:
		return d.compactOver(ctx, parts, call)
	case etcdapi.MethodAlarm:
		return d.alarmOver(ctx, parts, call)
	case etcdapi.MethodTxn, etcdapi.MethodDeleteRange:
		return d.txns.Do(ctx, call)
	}
	panic("dispatch: " + call.Method.String() + " spans segments")
}

// header is that of an answer put together here, at a revision of the scope's line.
// Its term is the home's.
func (d *Dispatcher) header(home *anchormesh.Descriptor, at anchormesh.Revision) codec.Header {
	h := codec.Header{ClusterID: uint64(home.Mesh), MemberID: d.self.MemberID(), Revision: at}
	if st, ok := d.engine.Status(home.Segment); ok {
		h.RaftTerm = st.Term
	}
	return h
}

// rangeOver reads all parts at one revision, to which all their lines are raised. A serializable
// range over several segments is read like a linearizable one: what the replicas
// here have applied is no snapshot.
func (d *Dispatcher) rangeOver(ctx context.Context, parts []*anchormesh.Descriptor, call *etcdapi.Call) (codec.Chunks, error) {
	at := call.At
	if at == 0 {
		var err error
		if at, err = d.nowOver(ctx, parts); err != nil {
			return nil, err
		}
	}
	if call.Range.Revision > at {
		return nil, etcdapi.ErrFutureRevision
	}
	merge := codec.NewRangeMerge(call.Range)
	answers := make([]codec.Chunks, len(parts))
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(partsAtOnce)
	for i, desc := range parts {
		group.Go(func() (err error) {
			answers[i], err = d.part(inner, desc, merge.Part(), at)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, a := range answers {
		if err := merge.Add(a); err != nil {
			return nil, err
		}
	}
	return merge.Finish(d.header(parts[0], at)), nil
}

// part reads one segment's part of a range at a revision of the scope's line.
func (d *Dispatcher) part(ctx context.Context, desc *anchormesh.Descriptor, q codec.RangeRequest, at anchormesh.Revision) (codec.Chunks, error) {
	q.Serializable = false
	clip(&q, desc.Range)
	call, err := etcdapi.ForwardedCall(etcdapi.MethodRange, codec.AppendRange(make([]byte, 1, 64), &q))
	if err != nil {
		return nil, err
	}
	call.At = at
	if r, here := d.host.Get(desc.Segment); here {
		return d.readLocal(ctx, r, desc, call)
	}
	answer, err := d.forward(ctx, desc, call, d.anchor(ctx, desc, 0))
	if errors.Is(err, errAnswerTooLarge) {
		// As a request of its own it may be of any size; the revision pins it.
		if q.Revision == 0 {
			q.Revision = at
		}
		if call, err = etcdapi.ForwardedCall(etcdapi.MethodRange, codec.AppendRange(make([]byte, 1, 64), &q)); err == nil {
			return d.fetchLarge(ctx, call, d.anchor(ctx, desc, 0))
		}
	}
	return answer, err
}

// clip cuts a range request to the keys of a segment. No key is etcd's word for the
// first one, and one zero byte that for the end of the keyspace.
func clip(q *codec.RangeRequest, to anchormesh.KeyRange) {
	keys := anchormesh.RequestRange(q.Key, q.RangeEnd).Intersect(to)
	q.Key, q.RangeEnd = keys.Start, keys.End
	if len(q.Key) == 0 {
		q.Key = []byte{0}
	}
	if len(q.RangeEnd) == 0 {
		q.RangeEnd = []byte{0}
	}
}

// compactOver compacts every part, the first at last: while it has not, the request may
// be repeated, and those that were compacted already do not mind. A line that is not at
// the revision yet is compacted up to where it is: the number is the client's, and
// moves no line.
func (d *Dispatcher) compactOver(ctx context.Context, parts []*anchormesh.Descriptor, call *etcdapi.Call) (codec.Chunks, error) {
	var req pb.CompactionRequest
	if err := proto.Unmarshal(call.Raw(), &req); err != nil {
		return nil, err
	}
	newest, at := map[string]anchormesh.Revision{}, anchormesh.Revision(0)
	for _, line := range stamps.LinesOf(parts) {
		t, err := d.now(ctx, line)
		if err != nil {
			return nil, err
		}
		newest[string(line)], at = t, max(at, t)
	}
	if req.Revision > at {
		return nil, etcdapi.ErrFutureRevision
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(partsAtOnce)
	for _, desc := range parts[1:] {
		group.Go(func() error {
			if err := d.compactPart(inner, desc, &req, newest[string(desc.Line)]); err != nil && !compacted(err) {
				return err
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := d.compactPart(ctx, parts[0], &req, newest[string(parts[0].Line)]); err != nil {
		return nil, err
	}
	return codec.Chunks{codec.AppendHeader(nil, 1, d.header(parts[0], at))}, nil
}

func compacted(err error) bool {
	return etcdapi.Status(err).Message() == etcdapi.Status(etcdapi.ErrCompacted).Message()
}

// compactPart compacts one segment, in which nothing at or below the newest revision of
// its line can come any more.
func (d *Dispatcher) compactPart(ctx context.Context, desc *anchormesh.Descriptor, req *pb.CompactionRequest, newest anchormesh.Revision) error {
	if _, err := d.lines.Barrier(ctx, desc, newest); err != nil {
		return lineFailed(ctx, err)
	}
	own := pb.CompactionRequest{Revision: min(req.GetRevision(), newest), Physical: req.GetPhysical()}
	call, err := compaction(&own)
	if err != nil {
		return err
	}
	_, err = d.tryPart(ctx, desc, call, newest)
	return err
}

func compaction(req *pb.CompactionRequest) (*etcdapi.Call, error) {
	raw, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	return etcdapi.ForwardedCall(etcdapi.MethodCompact, append([]byte{byte(keyspace.OpCompact)}, raw...))
}

// tryPart takes a call to one segment, whatever its keys.
func (d *Dispatcher) tryPart(ctx context.Context, desc *anchormesh.Descriptor, part *etcdapi.Call, at anchormesh.Revision) (codec.Chunks, error) {
	own, err := etcdapi.ForwardedCall(part.Method, append(make([]byte, 1, 1+len(part.Raw())), part.Raw()...))
	if err != nil {
		return nil, err
	}
	own.At = at
	return d.run(ctx, desc, own, 0)
}

// alarmOver asks or tells every part, and names each alarm once.
func (d *Dispatcher) alarmOver(ctx context.Context, parts []*anchormesh.Descriptor, call *etcdapi.Call) (codec.Chunks, error) {
	var all []codec.AlarmMember
	seen := map[codec.AlarmMember]bool{}
	for _, desc := range parts {
		answer, err := d.tryPart(ctx, desc, call, 0)
		if err != nil {
			return nil, err
		}
		var resp pb.AlarmResponse
		if err := proto.Unmarshal(answer.Bytes(), &resp); err != nil {
			return nil, err
		}
		for _, a := range resp.GetAlarms() {
			m := codec.AlarmMember{MemberID: a.GetMemberID(), Alarm: codec.AlarmType(a.GetAlarm())}
			if !seen[m] {
				seen[m] = true
				all = append(all, m)
			}
		}
	}
	at, err := d.nowOver(ctx, parts)
	if err != nil {
		return nil, err
	}
	return codec.Chunks{codec.AppendAlarmResponse(nil, d.header(parts[0], at), all)}, nil
}

// CompactOwn compacts the history of one segment, led here, below a revision that it has
// reached: for the retention of its scope.
func (d *Dispatcher) CompactOwn(ctx context.Context, segment anchormesh.SegmentID, revision int64) error {
	r, here := d.host.Get(segment)
	if !here {
		return consensus.ErrNoGroup
	}
	raw, err := proto.Marshal(&pb.CompactionRequest{Revision: revision})
	if err != nil {
		return err
	}
	done := make(chan consensus.Result, 1)
	command := keyspace.AppendCommand(nil, keyspace.OpCompactOwn, raw)
	d.engine.Propose(segment, r.Machine.Descriptor().Generation, command, func(res consensus.Result) { done <- res })
	select {
	case res := <-done:
		return res.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Compact compacts the history of a line below revision; for automatic compaction, on the
// leader of its home.
func (d *Dispatcher) Compact(ctx context.Context, segment anchormesh.SegmentID, revision int64) error {
	desc, ok := d.table.Segment(segment)
	if !ok {
		return retry(etcdapi.ErrNoLeader)
	}
	call, err := compaction(&pb.CompactionRequest{Revision: revision})
	if err != nil {
		return err
	}
	if call.Keys = (anchormesh.KeyRange{}); !desc.Stamped {
		_, err = d.run(ctx, desc, call, 0)
		return err
	}
	parts, whole := d.table.Covering(anchormesh.PrefixRange(desc.Line))
	if !whole {
		return retry(etcdapi.ErrNoLeader)
	}
	parts = slices.DeleteFunc(parts, func(p *anchormesh.Descriptor) bool { return !bytes.Equal(p.Line, desc.Line) })
	_, err = d.compactOver(ctx, parts, call)
	return err
}
