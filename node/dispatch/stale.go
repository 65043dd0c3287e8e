package dispatch

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/route"
)

// freshMax bounds the descriptors in one answer. Who needs more asks for the rest
// of its keys next.
const freshMax = 8

// failStale answers a request that named another segment or generation than the one
// in force here.
func (d *Dispatcher) failStale(to mesh.Responder, segment anchormesh.SegmentID) {
	to.Fail(codeStale, encodeFresh(d.about(nil, segment)))
}

// failStaleCall is failStale for a call. The word on its keys is what helps: an asker
// whose old map has the parent of several splits gets to know where its key is now.
// With the parent's descriptor alone it would learn that the key is not there, go on
// routing the hole by the old one, and ask again, for ever.
func (d *Dispatcher) failStaleCall(to mesh.Responder, req *forwarded) {
	var fresh []*anchormesh.Descriptor
	if desc, ok := d.table.Lookup(req.call.Keys.Start); ok {
		fresh = append(fresh, desc)
	}
	fresh = d.about(fresh, req.segment)
	if !ofLeases(req.call.Method) {
		covering, _ := d.table.Covering(req.call.Keys)
		fresh = appendFresh(fresh, covering...)
	}
	to.Fail(codeStale, encodeFresh(fresh))
}

// about appends what is known of a segment, or of who came after it.
func (d *Dispatcher) about(fresh []*anchormesh.Descriptor, segment anchormesh.SegmentID) []*anchormesh.Descriptor {
	if desc, ok := d.table.Segment(segment); ok {
		return appendFresh(fresh, desc)
	}
	return appendFresh(fresh, d.table.Successors(segment)...)
}

func appendFresh(to []*anchormesh.Descriptor, more ...*anchormesh.Descriptor) []*anchormesh.Descriptor {
	for _, desc := range more {
		if len(to) < freshMax && !slices.Contains(to, desc) {
			to = append(to, desc)
		}
	}
	return to
}

func encodeFresh(all []*anchormesh.Descriptor) string {
	var text []byte
	for _, desc := range all {
		b := meshpb.EncodeDescriptor(desc)
		text = append(binary.AppendUvarint(text, uint64(len(b))), b...)
	}
	return string(text)
}

// learn takes in what failStale told, and reports whether it was news.
func (d *Dispatcher) learn(text []byte) (news bool) {
	for range freshMax {
		size, n := binary.Uvarint(text)
		if n <= 0 || size > uint64(len(text)-n) {
			break
		}
		if desc, err := meshpb.DecodeDescriptor(text[n : n+int(size)]); err == nil && d.table.Learn(desc) {
			news = true
		}
		text = text[n+int(size):]
	}
	return news
}

// elsewhere ends a try whose route names another generation than the replica here is
// of. As a rule the routes will know in a moment. But a replica that came as a
// snapshot from behind a split knows only what its own segment is now: while the
// other half is a hole in the map here, another anchor has to tell.
func (d *Dispatcher) elsewhere(ctx context.Context, desc, now *anchormesh.Descriptor, key []byte, try int) error {
	if routed, _ := d.table.Lookup(key); routed == desc && now.Newer(desc) {
		nodes := slices.DeleteFunc(route.Askable(now, d.caller.Connected), func(n anchormesh.NodeID) bool { return n == d.self })
		if len(nodes) > 0 {
			d.probe(ctx, desc, key, nodes[try%len(nodes)])
		}
	}
	return retry(etcdapi.ErrNotAnchor)
}

// probe asks where a key is, by a read of a generation that is no more. It asks for
// nothing else: an anchor that lags could answer it.
func (d *Dispatcher) probe(ctx context.Context, desc *anchormesh.Descriptor, key []byte, at anchormesh.NodeID) {
	q := codec.RangeRequest{Key: key, CountOnly: true}
	if len(key) == 0 {
		q.Key = []byte{0}
	}
	call, err := etcdapi.ForwardedCall(etcdapi.MethodRange, codec.AppendRange(make([]byte, 1, 64), &q))
	if err != nil {
		return
	}
	_, _ = d.forward(ctx, desc, call, at) // only what it learns by the way counts
}
