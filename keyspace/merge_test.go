package keyspace

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// pieces is one keyspace as one segment and, cut up, as several.
type pieces struct {
	t     *testing.T
	whole *Space
	parts []*Space // in key order
}

func newPieces(t *testing.T, rng *rand.Rand) *pieces {
	r, one := newReplica(t), newReplica(t)
	p := &pieces{t: t, whole: one.space, parts: []*Space{r.space}}
	for i := range 1 + rng.IntN(4) {
		at := fmt.Appendf(nil, "%c%d", 'a'+rune(rng.IntN(3)), rng.IntN(4))
		j := slices.IndexFunc(p.parts, func(s *Space) bool { return s.seg.KeyRange().Contains(at) })
		left := p.parts[j]
		if bytes.Equal(left.seg.KeyRange().Start, at) {
			continue
		}
		applied, _ := left.seg.Applied()
		b := left.seg.Begin(applied+1, 1)
		child := left.Cut(b, anchormesh.SegmentID(10+i), at, mvcc.Meta{Applied: 5, Term: 1})
		b.End()
		right, err := NewSpace(child, testIDs, DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		p.parts = slices.Insert(p.parts, j+1, right)
	}
	return p
}

// apply applies a command that names keys of one part only.
func (p *pieces) apply(s *Space, cmd []byte) {
	index, _ := s.seg.Applied()
	all, _ := p.whole.seg.Applied()
	x, y := s.Apply(index+1, 1, [][]byte{cmd}, true)[0], p.whole.Apply(all+1, 1, [][]byte{cmd}, true)[0]
	if x.Err != y.Err || !bytes.Equal(x.Response, y.Response) {
		p.t.Fatalf("%x: %x %v, in one segment %x %v", cmd, x.Response, x.Err, y.Response, y.Err)
	}
}

func (p *pieces) of(key []byte) *Space {
	return p.parts[slices.IndexFunc(p.parts, func(s *Space) bool { return s.seg.KeyRange().Contains(key) })]
}

// inPart cuts a request to a part's range.
func inPart(q codec.RangeRequest, rng anchormesh.KeyRange) (codec.RangeRequest, bool) {
	asked := anchormesh.RequestRange(q.Key, q.RangeEnd)
	if !asked.Overlaps(rng) || asked.Empty() {
		return q, false
	}
	if len(q.RangeEnd) == 0 {
		return q, true
	}
	if bytes.Compare(rng.Start, q.Key) > 0 {
		q.Key = rng.Start
	}
	if len(rng.End) > 0 && (len(asked.End) == 0 || bytes.Compare(rng.End, asked.End) < 0) {
		q.RangeEnd = rng.End
	}
	return q, true
}

// merged asks every part and puts the answers together. Some come as one piece, as
// from another node, some in any pieces at all.
func (p *pieces) merged(q codec.RangeRequest, at int64, rng *rand.Rand) (codec.Chunks, error) {
	m := codec.NewRangeMerge(q)
	for _, s := range p.parts {
		part, some := inPart(m.Part(), s.seg.KeyRange())
		if !some {
			continue
		}
		var sent codec.RangeRequest // it travels encoded
		if err := codec.ParseRange(codec.AppendRange(nil, &part), &sent); err != nil {
			p.t.Fatal(err)
		}
		c, err := s.RangeAt(context.Background(), &sent, 1, at)
		if err != nil {
			return nil, err
		}
		if rng.IntN(3) == 0 {
			c = codec.Chunks{c.Bytes()}
		} else if rng.IntN(3) == 0 {
			b := c.Bytes()
			i := rng.IntN(len(b) + 1)
			c = codec.Chunks{b[:i], b[i:]}
		}
		if err := m.Add(c); err != nil {
			return nil, err
		}
	}
	return m.Finish(p.whole.header(at, 1)), nil
}

// TestMergedAnswersAreThoseOfOneSegment compares answers to the byte: limits, sorts
// on every field, filters, keys and counts only, at any revision.
func TestMergedAnswersAreThoseOfOneSegment(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 9))
		p := newPieces(t, rng)
		m := newModel(testIDs)
		g := &traffic{rng: rng, m: m}
		stamp := int64(1)
		for range 120 {
			stamp += 1 + rng.Int64N(3)
			put := g.put()
			put.Lease, put.PrevKv = 0, false
			cmd := stampedCommand(stamp, OpPut, put)
			if g.one(4) {
				cmd = stampedCommand(stamp, OpDeleteRange, &pb.DeleteRangeRequest{Key: put.Key})
			}
			p.apply(p.of(put.Key), cmd)
			m.rev = stamp
			for range 4 {
				p.compare(g, stamp)
			}
		}
	}
}

func (p *pieces) compare(g *traffic, at int64) {
	req := g.ranges()
	req.SortOrder, req.SortTarget = pb.RangeRequest_SortOrder(g.rng.IntN(3)), pb.RangeRequest_SortTarget(g.rng.IntN(5))
	if g.one(3) {
		req.Key, req.RangeEnd = []byte{0}, []byte{0}
	}
	var q codec.RangeRequest
	if err := codec.ParseRange(command(0, req)[1:], &q); err != nil {
		p.t.Fatal(err)
	}
	want, wantErr := p.whole.RangeAt(context.Background(), &q, 1, at)
	got, err := p.merged(q, at, g.rng)
	if len(anchormesh.RequestRange(q.Key, q.RangeEnd).End) > 0 && anchormesh.RequestRange(q.Key, q.RangeEnd).Empty() {
		return // nobody is asked
	}
	if err != wantErr {
		p.t.Fatalf("%v: %v, in one segment %v", req, err, wantErr)
	}
	if err == nil && !bytes.Equal(got.Bytes(), want.Bytes()) {
		p.t.Fatalf("%v in %d parts\n got %v\nwant %v", req, len(p.parts),
			unmarshal(p.t, got.Bytes(), &pb.RangeResponse{}), unmarshal(p.t, want.Bytes(), &pb.RangeResponse{}))
	}
}

// FuzzRangeMerge: any answers are merged or refused, and what came out can be read.
func FuzzRangeMerge(f *testing.F) {
	d := newDriver(f)
	d.put("a", "1", 0)
	d.put("b", "2", 0)
	for _, q := range []codec.RangeRequest{{Key: []byte("a")}, {Key: []byte("a"), RangeEnd: []byte{0}, SortTarget: codec.SortByValue}} {
		c, err := d.space.Range(context.Background(), &q, 1)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(codec.AppendRange(nil, &q), c.Bytes(), c.Bytes())
	}
	f.Fuzz(func(t *testing.T, request, a, b []byte) {
		var q codec.RangeRequest
		if codec.ParseRange(request, &q) != nil {
			return
		}
		m := codec.NewRangeMerge(q)
		bad := m.Add(codec.Chunks{a}) != nil
		bad = m.Add(codec.Chunks{b[:len(b)/2], b[len(b)/2:]}) != nil || bad
		out := m.Finish(codec.Header{Revision: 3})
		var resp pb.RangeResponse
		if err := proto.Unmarshal(out.Bytes(), &resp); err != nil && !bad && readable(a) && readable(b) {
			t.Fatalf("%x and %x became %x: %v", a, b, out.Bytes(), err)
		}
	})
}

func readable(b []byte) bool { return proto.Unmarshal(b, &pb.RangeResponse{}) == nil }
