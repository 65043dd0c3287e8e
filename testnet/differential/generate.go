package differential

import (
	"math"
	"math/rand/v2"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Few keys, so that calls meet; with sentinelKey not more than 12 (see the
// package comment).
var keys = []string{"a", "a/", "a/1", "a/2", "ab", "b", "b/\x00", "c", "\x00", "\xff", "\xff\xff"}

const (
	leaseIDs    = 5 // leases 1..leaseIDs
	watchIDs    = 4 // explicit watch IDs 1..watchIDs; others are assigned by the server
	streams     = 3 // watch streams; the last is for future revisions
	lateStream  = streams - 1
	sentinelID  = 1000 // of the watch on every stream that settles it
	sentinelKey = "~"  // also the key that lifts revisions in reset
)

// generator makes Ops. It knows no state of a server, only bounds of its
// revision: every write so far did happen (most) or may have.
type generator struct {
	*rand.Rand
	least, most int64 // bounds of the relative revision now
	compacted   map[int64]bool
}

// Generate returns n Ops that depend on nothing but the seed.
func Generate(seed uint64, n int) []Op {
	g := &generator{
		Rand: rand.New(rand.NewPCG(seed, 0)), least: origin, most: origin, compacted: map[int64]bool{},
	}
	ops := make([]Op, n)
	for i := range ops {
		ops[i] = g.op()
	}
	return ops
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

// choices are the calls and how often they come.
var choices = []struct {
	weight int
	make   func(g *generator) Op
}{
	{20, func(g *generator) Op { r := g.put(); g.written(r); return Op{Request: r} }},
	{20, func(g *generator) Op { return Op{Request: g.rangeRequest()} }},
	{4, func(g *generator) Op { return Op{Request: g.rangeRequest(), RangeStream: true} }},
	{8, func(g *generator) Op { g.most++; return Op{Request: g.deleteRange()} }},
	{18, func(g *generator) Op { g.most++; return Op{Request: g.txn(0, g.chance(50))} }},
	{3, func(g *generator) Op { return Op{Request: g.compaction()} }},
	{8, func(g *generator) Op { return Op{Request: g.leaseGrant()} }},
	{3, func(g *generator) Op { g.most++; return Op{Request: &pb.LeaseRevokeRequest{ID: g.lease()}} }},
	{2, func(g *generator) Op { return Op{Request: &pb.LeaseKeepAliveRequest{ID: g.lease()}} }},
	{3, func(g *generator) Op {
		return Op{Request: &pb.LeaseTimeToLiveRequest{ID: g.lease(), Keys: g.chance(60)}}
	}},
	{2, func(g *generator) Op { return Op{Request: &pb.LeaseLeasesRequest{}} }},
	{4, func(g *generator) Op { return Op{Request: g.hashKV()} }},
	{6, (*generator).watchCreate},
	{2, (*generator).watchCancel},
}

func (g *generator) op() Op {
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	pick := g.IntN(total)
	for _, c := range choices {
		if pick -= c.weight; pick < 0 {
			return c.make(g)
		}
	}
	panic("differential: weights do not add up")
}

func (g *generator) key() []byte {
	if g.chance(1) {
		return nil
	}
	return []byte(keys[g.IntN(len(keys))])
}

// span returns a key and a range end: none, to the end, by prefix, or any.
func (g *generator) span() (key, end []byte) {
	key = g.key()
	switch g.IntN(6) {
	case 0, 1:
		return key, nil
	case 2:
		return key, []byte{0}
	case 3:
		return key, append(append([]byte{}, key...), 0xff)
	case 4:
		return []byte{0}, []byte{0}
	default:
		return key, g.key()
	}
}

// revision returns a relative revision that is likely to mean something, or 0.
func (g *generator) revision() int64 {
	switch g.IntN(20) {
	case 0:
		return -g.Int64N(3)
	case 1:
		return 1 + g.Int64N(origin)
	case 2:
		return g.most + 1 + g.Int64N(5)
	case 3:
		return math.MaxInt64 - g.Int64N(2)
	default:
		return origin + g.Int64N(g.most-origin+2)
	}
}

// maybeRevision is 0 most of the time.
func (g *generator) maybeRevision(percent int) int64 {
	if !g.chance(percent) {
		return 0
	}
	return g.revision()
}

func (g *generator) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{
		Revision:          g.maybeRevision(30),
		KeysOnly:          g.chance(15),
		CountOnly:         g.chance(10),
		Serializable:      g.chance(20),
		MinModRevision:    g.maybeRevision(7),
		MaxModRevision:    g.maybeRevision(7),
		MinCreateRevision: g.maybeRevision(7),
		MaxCreateRevision: g.maybeRevision(7),
	}
	r.Key, r.RangeEnd = g.span()
	if g.chance(30) {
		r.Limit = g.Int64N(6) - 1
	}
	if g.chance(40) {
		r.SortOrder = pb.RangeRequest_SortOrder(g.IntN(3))
		r.SortTarget = pb.RangeRequest_SortTarget(g.IntN(5))
	}
	if g.chance(1) {
		r.SortOrder = 7
	}
	if g.chance(1) {
		r.SortTarget = 9
	}
	return r
}

func (g *generator) value() []byte {
	if g.chance(5) {
		return nil
	}
	return []byte(strings.Repeat(string(rune('u'+g.IntN(6))), 1+g.IntN(4)))
}

func (g *generator) lease() int64 { return g.Int64N(leaseIDs + 1) } // 0 is "no lease"

func (g *generator) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.chance(30)}
	if g.chance(25) {
		r.Lease = g.lease()
	}
	if g.chance(10) {
		r.IgnoreValue = true
		if g.chance(80) {
			r.Value = nil
		}
	}
	if g.chance(10) {
		r.IgnoreLease = true
		if g.chance(80) {
			r.Lease = 0
		}
	}
	return r
}

// written moves the bounds past a put.
func (g *generator) written(r *pb.PutRequest) {
	g.most++
	if len(r.Key) > 0 && r.Lease == 0 && !r.IgnoreValue && !r.IgnoreLease {
		g.least++
	}
}

func (g *generator) deleteRange() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{PrevKv: g.chance(40)}
	r.Key, r.RangeEnd = g.span()
	return r
}

const (
	txnDepth = 2   // nesting below the outermost
	tooMany  = 129 // operations; etcd allows 128
)

// txn makes a transaction. With deletes it holds no put that ignores value or
// lease, on any level: etcd panics over some of these.
func (g *generator) txn(depth int, deletes bool) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range g.IntN(3) {
		r.Compare = append(r.Compare, g.compare())
	}
	for range g.IntN(4) {
		r.Success = append(r.Success, g.requestOp(depth, deletes))
	}
	for range g.IntN(3) {
		r.Failure = append(r.Failure, g.requestOp(depth, deletes))
	}
	if depth == 0 && g.chance(1) {
		for range tooMany {
			r.Success = append(r.Success, g.requestOp(txnDepth, deletes))
		}
	}
	return r
}

func (g *generator) requestOp(depth int, deletes bool) *pb.RequestOp {
	switch n := g.IntN(100); {
	case n < 1:
		return &pb.RequestOp{}
	case n < 20 && depth < txnDepth:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth+1, deletes)}}
	case n < 40 && deletes:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.deleteRange()}}
	case n < 60:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest()}}
	default:
		put := g.put()
		if deletes {
			put.IgnoreValue, put.IgnoreLease = false, false
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
	}
}

func (g *generator) compare() *pb.Compare {
	c := &pb.Compare{
		Result: pb.Compare_CompareResult(g.IntN(4)),
		Target: pb.Compare_CompareTarget(g.IntN(5)),
		Key:    g.key(),
	}
	if g.chance(25) {
		c.Key, c.RangeEnd = g.span()
	}
	switch {
	case g.chance(2): // no value at all
	case c.Target == pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: g.Int64N(4)}
	case c.Target == pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.maybeRevision(80)}
	case c.Target == pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.maybeRevision(80)}
	case c.Target == pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: g.value()}
	default:
		c.TargetUnion = &pb.Compare_Lease{Lease: g.lease()}
	}
	return c
}

func (g *generator) compaction() *pb.CompactionRequest {
	g.settled()
	r := &pb.CompactionRequest{Revision: g.revision(), Physical: g.chance(70)}
	g.compacted[r.Revision] = true
	return r
}

// settled counts the put by which streams are settled.
func (g *generator) settled() {
	g.least++
	g.most++
}

// hashKV avoids revisions that were compacted at and those before the sequence.
func (g *generator) hashKV() *pb.HashKVRequest {
	rev := g.maybeRevision(60)
	if rev > 0 && rev <= origin || g.compacted[rev] {
		rev = 0
	}
	return &pb.HashKVRequest{Revision: rev}
}

// leaseGrant asks for lifetimes far longer than any test, and for an ID: servers
// would choose different ones.
func (g *generator) leaseGrant() *pb.LeaseGrantRequest {
	id := 1 + g.Int64N(leaseIDs)
	r := &pb.LeaseGrantRequest{ID: id, TTL: 10_000 * id}
	if g.chance(3) {
		r.TTL = math.MaxInt64
	}
	return r
}

func (g *generator) watchCreate() Op {
	c := &pb.WatchCreateRequest{PrevKv: g.chance(50), ProgressNotify: g.chance(20), Fragment: g.chance(20)}
	c.Key, c.RangeEnd = g.span()
	if g.chance(50) {
		c.Key, c.RangeEnd = []byte{0}, []byte{0}
	}
	if g.chance(30) {
		c.WatchId = 1 + g.Int64N(watchIDs)
	}
	for _, f := range []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE} {
		if g.chance(15) {
			c.Filters = append(c.Filters, f)
		}
	}
	stream := g.IntN(lateStream)
	switch n := g.IntN(100); {
	case n < 15:
		stream, c.StartRevision = lateStream, g.most+1+g.Int64N(20)
	case n < 18:
		c.StartRevision = -1
	case n < 60: // from the past, certainly
		c.StartRevision = max(1, origin-2+g.Int64N(g.least-origin+3))
	}
	if stream != lateStream {
		g.settled()
	}
	return Op{Stream: stream, Request: creation(c)}
}

// watchCancel names an ID that may exist.
func (g *generator) watchCancel() Op {
	c := &pb.WatchCancelRequest{WatchId: g.Int64N(watchIDs + 1)}
	g.settled()
	return Op{Stream: g.IntN(streams), Request: &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: c}}}
}
