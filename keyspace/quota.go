package keyspace

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// LeaseTTLMax is the longest TTL of a lease in seconds, as in etcd.
const LeaseTTLMax = 9_000_000_000

// Limits bounds what a segment takes in.
type Limits struct {
	// QuotaBytes is the file size above which writes that add data are refused;
	// negative is no limit. etcd's --quota-backend-bytes.
	QuotaBytes int64
}

// DefaultLimits returns etcd's defaults.
func DefaultLimits() Limits { return Limits{QuotaBytes: 2 << 30} }

// Validate says which field is out of range.
func (l Limits) Validate() error {
	if l.QuotaBytes == 0 {
		return fmt.Errorf("keyspace: QuotaBytes is 0, want a size or a negative number for none")
	}
	return nil
}

// Estimates of what a write costs besides its key and value, as in etcd.
const (
	keyOverheadBytes   = 256
	leaseOverheadBytes = 64
)

// OverQuota reports whether a command of the given cost must be refused while the
// node's file has sizeBytes. A command that adds nothing never is.
func (l Limits) OverQuota(sizeBytes, cost int64) bool {
	return l.QuotaBytes >= 0 && cost > 0 && sizeBytes+cost >= l.QuotaBytes
}

// Cost estimates the bytes a command adds: puts, the dearer branch of a
// transaction, grants. Anything else, malformed requests included, costs nothing.
func Cost(cmd []byte) int64 {
	if len(cmd) == 0 {
		return 0
	}
	switch Op(cmd[0]) {
	case OpPut:
		var r codec.PutRequest
		if codec.ParsePut(cmd[1:], &r) != nil {
			return 0
		}
		return CostPut(&r)
	case OpTxn:
		var r codec.TxnRequest
		if codec.ParseTxn(cmd[1:], &r) != nil {
			return 0
		}
		return CostTxn(&r)
	case OpLeaseGrant:
		return leaseOverheadBytes
	case OpPrepare:
		return costPrepare(cmd[1:])
	case OpStamped:
		_, inner, _ := CutStamp(cmd)
		return Cost(inner)
	case OpBy:
		_, inner, _ := cutOrigin(cmd[1:])
		return Cost(inner)
	}
	return 0
}

func costPrepare(raw []byte) (sum int64) {
	c, err := commit.DecodePrepare(raw)
	if err != nil {
		return 0
	}
	for i := range c.Writes {
		if w := &c.Writes[i]; !w.Delete {
			sum += keyOverheadBytes + int64(len(w.Key)) + int64(len(w.Value))
		}
	}
	return sum
}

// CostPut estimates the bytes a put adds.
func CostPut(r *codec.PutRequest) int64 {
	return keyOverheadBytes + int64(len(r.Key)) + int64(len(r.Value))
}

// CostTxn estimates the bytes a transaction adds: those of its dearer branch.
func CostTxn(r *codec.TxnRequest) int64 {
	return max(costOps(r.Success), costOps(r.Failure))
}

func costOps(ops []codec.RequestOp) int64 {
	sum := int64(0)
	for i := range ops {
		switch ops[i].Kind {
		case codec.KindPut:
			sum += CostPut(&ops[i].Put)
		case codec.KindTxn:
			sum += CostTxn(ops[i].Txn)
		}
	}
	return sum
}

// amount is keys and bytes: those of keys and of values that are alive.
type amount struct{ keys, bytes int64 }

func (a *amount) add(keys, bytes int64) { a.keys, a.bytes = a.keys+keys, a.bytes+bytes }

func size(key, value []byte) int64 { return int64(len(key)) + int64(len(value)) }

// shareTable holds the segment's share, under an empty key.
const shareTable = "quota-share"

// ShareWhole is the whole of a scope's quota, as parts.
const ShareWhole = 1 << 30

// Share is a segment's part of its scope's quota, in parts of ShareWhole. Version counts its
// changes; the zero Share is the whole.
type Share struct {
	Version     uint64
	Keys, Bytes uint32
}

type share struct{ Share }

const shareFormat = 1

func (s *Share) parts() (keys, bytes uint32) {
	if s.Version == 0 {
		return ShareWhole, ShareWhole
	}
	return s.Keys, s.Bytes
}

func (s *share) encode() []byte { return AppendShare([]byte{shareFormat}, s.Share) }

func (s *share) decode(b []byte) error {
	if len(b) > 0 && b[0] == shareFormat {
		if got, err := parseShare(b[1:]); err == nil {
			s.Share = got
			return nil
		}
	}
	return fmt.Errorf("stored share %x of a quota cannot be read: restore this replica from another", b)
}

// AppendShare appends an OpShare's request: the share, behind the version that it
// replaces. Another version in force makes it ErrShareStale.
func AppendShare(dst []byte, s Share) []byte {
	dst = binary.AppendUvarint(dst, s.Version)
	dst = binary.AppendUvarint(dst, uint64(s.Keys))
	return binary.AppendUvarint(dst, uint64(s.Bytes))
}

func parseShare(b []byte) (s Share, err error) {
	var nums [3]uint64
	for i := range nums {
		n, k := binary.Uvarint(b)
		if k <= 0 || i > 0 && n > ShareWhole {
			return s, codec.ErrMalformed
		}
		nums[i], b = n, b[k:]
	}
	if len(b) > 0 {
		return s, codec.ErrMalformed
	}
	return Share{Version: nums[0], Keys: uint32(nums[1]), Bytes: uint32(nums[2])}, nil
}

func (a *applier) setShare(raw []byte) Outcome {
	s, err := parseShare(raw)
	if err != nil {
		return Outcome{Err: err}
	}
	g := &a.s.govern
	if s.Version != g.share.Version {
		return Outcome{Err: ErrShareStale}
	}
	s.Version++
	g.share.Share = s
	a.b.PutAux(shareTable, []byte{}, g.share.encode())
	return a.done()
}

// limits is what the segment may hold; negative is no limit.
func (g *govern) limits() amount {
	keys, bytes := g.share.parts()
	return amount{part(g.policy.QuotaKeys, keys), part(g.policy.QuotaBytes, bytes)}
}

// part is a share of a quota, rounded down.
func part(quota int64, parts uint32) int64 {
	if quota <= 0 {
		return -1
	}
	hi, lo := bits.Mul64(uint64(quota), uint64(parts))
	out, _ := bits.Div64(hi, lo, ShareWhole)
	return int64(out)
}

// hasRoom reports whether the segment may grow. What does not grow always may.
func (g *govern) hasRoom(by amount) bool {
	limit, held := g.limits(), g.used
	for _, r := range g.reserved {
		held.add(r.keys, r.bytes)
	}
	return (by.keys <= 0 || limit.keys < 0 || held.keys+by.keys <= limit.keys) &&
		(by.bytes <= 0 || limit.bytes < 0 || held.bytes+by.bytes <= limit.bytes)
}

// replace counts a version of a key in place of the one that there is; valueBytes -1
// is a deletion.
func (g *govern) replace(t *mvcc.Txn, key []byte, valueBytes int64) {
	if kv, ok := t.Get(key); ok {
		g.used.add(-1, -size(key, kv.Value()))
	}
	if valueBytes >= 0 {
		g.used.add(1, int64(len(key))+valueBytes)
	}
}

// removed counts what a deletion of a range is about to delete.
func (g *govern) removed(t *mvcc.Txn, key, end []byte) {
	eachIn(t, key, end, func(kv *mvcc.KV) { g.used.add(-1, -size(kv.Key, kv.Value())) })
}

// reserve keeps room for what was prepared.
func (a *applier) reserve(id commit.TxnID) {
	if !a.s.govern.counts {
		return
	}
	r, _ := a.s.commits.Record(id)
	t := a.b.Txn()
	a.s.govern.reserve(t, id, r.Writes)
	t.End()
}

func (g *govern) reserve(on reader, id commit.TxnID, writes []commit.Write) {
	var grows amount
	last := make(map[string]*commit.Write, len(writes))
	for i := range writes {
		last[string(writes[i].Key)] = &writes[i]
	}
	for _, w := range last { // a sum, in whatever order
		if kv, ok := on.Get(w.Key); ok {
			grows.add(-1, -size(w.Key, kv.Value()))
		}
		if !w.Delete {
			grows.add(1, size(w.Key, w.Value))
		}
	}
	if g.reserved == nil {
		g.reserved = make(map[commit.TxnID]amount)
	}
	g.reserved[id] = amount{max(0, grows.keys), max(0, grows.bytes)}
}

// count counts what is alive, and what is prepared.
func (s *Space) count() {
	g := &s.govern
	g.used, g.reserved = amount{}, nil
	v := s.seg.ReadApplied()
	defer v.Close()
	on := snapshot{v}
	eachIn(on, []byte{0}, []byte{0}, func(kv *mvcc.KV) { g.used.add(1, size(kv.Key, kv.Value())) })
	for _, r := range s.commits.Records() {
		g.reserve(on, r.Txn, r.Writes)
	}
}

// eachIn visits the keys of etcd's (key, range_end), some at a time.
func eachIn(on reader, key, end []byte, visit func(*mvcc.KV)) {
	for {
		res, err := on.Range(key, end, 0, loadPage, false)
		if err != nil {
			panic("keyspace: reading the newest revision: " + err.Error())
		}
		for i := range res.KVs {
			visit(&res.KVs[i])
		}
		if len(res.KVs) < loadPage || len(end) == 0 {
			return
		}
		last := res.KVs[len(res.KVs)-1].Key
		key = append(append(make([]byte, 0, len(last)+1), last...), 0)
	}
}

// Usage is what a segment holds and what it may.
type Usage struct {
	Counted bool // Keys and Bytes are known: a quota is in force
	// Keys and Bytes are what is alive; limits below 0 are none.
	Keys, Bytes           int64
	KeysLimit, BytesLimit int64
	Share                 Share
	// Since this replica was opened: commands that wrote something, that the scope's rules
	// refused, that its quota had no room for.
	Writes, Refused, Full int64
	Revision, Compacted   int64
}

// NearlyFull reports whether more than nine tenths of what the segment may hold are used.
func (u *Usage) NearlyFull() bool {
	return u.KeysLimit >= 0 && u.Keys > u.KeysLimit/10*9 || u.BytesLimit >= 0 && u.Bytes > u.BytesLimit/10*9
}

// Append encodes the figures, for another node.
func (u *Usage) Append(b []byte) []byte {
	b = append(b, flagOf(u.Counted))
	for _, n := range []int64{u.Keys, u.Bytes, u.KeysLimit, u.BytesLimit, u.Writes, u.Refused, u.Full, u.Revision, u.Compacted} {
		b = binary.AppendVarint(b, n)
	}
	return AppendShare(b, u.Share)
}

// ParseUsage reads what Append wrote; the error is codec.ErrMalformed.
func ParseUsage(b []byte) (u Usage, err error) {
	if len(b) == 0 || b[0] > 1 {
		return u, codec.ErrMalformed
	}
	u.Counted, b = b[0] == 1, b[1:]
	for _, n := range []*int64{&u.Keys, &u.Bytes, &u.KeysLimit, &u.BytesLimit, &u.Writes, &u.Refused, &u.Full, &u.Revision, &u.Compacted} {
		v, k := binary.Varint(b)
		if k <= 0 {
			return u, codec.ErrMalformed
		}
		*n, b = v, b[k:]
	}
	u.Share, err = parseShare(b)
	return u, err
}

// Usage returns what the segment holds now.
func (s *Space) Usage() Usage {
	s.mu.RLock()
	defer s.mu.RUnlock()
	g := &s.govern
	u := Usage{KeysLimit: -1, BytesLimit: -1, Share: g.share.Share, Writes: g.writes.Load()}
	u.Refused, u.Full = g.refused.Load(), g.full.Load()
	u.Revision, u.Compacted = s.seg.Revision()
	if g.counts {
		limit := g.limits()
		u.Counted, u.Keys, u.Bytes, u.KeysLimit, u.BytesLimit = true, g.used.keys, g.used.bytes, limit.keys, limit.bytes
	}
	return u
}

// cutShare divides the share when the segment is cut: what the child holds goes with it, and
// half of what is free.
func (g *govern) cutShare(child amount) (right share) {
	limit, held := g.limits(), g.used
	keys, bytes := g.share.parts()
	g.used.add(-child.keys, -child.bytes)
	right.Version = g.share.Version + 1
	right.Keys, right.Bytes = divide(keys, limit.keys, held.keys, child.keys), divide(bytes, limit.bytes, held.bytes, child.bytes)
	g.share.Share = Share{Version: right.Version, Keys: keys - right.Keys, Bytes: bytes - right.Bytes}
	return right
}

// divide is the child's parts of those that the parent has.
func divide(parts uint32, limit, held, child int64) uint32 {
	total := uint64(limit)
	want := uint64(child) + uint64(max(0, limit-held))/2
	if limit <= 0 || held > limit { // by what they hold
		total, want = uint64(max(held, 1)), uint64(child)
	}
	hi, lo := bits.Mul64(uint64(parts), min(want, total))
	out, _ := bits.Div64(hi, lo, total)
	return uint32(out)
}

// joinShare takes over the right neighbour's at an absorb. whole: the two are the scope.
func (g *govern) joinShare(right *govern, whole bool) {
	g.used.add(right.used.keys, right.used.bytes)
	for id, r := range right.reserved {
		if g.reserved == nil {
			g.reserved = make(map[commit.TxnID]amount)
		}
		ours := g.reserved[id]
		ours.add(r.keys, r.bytes)
		g.reserved[id] = ours
	}
	keys, bytes := g.share.parts()
	k, b := right.share.parts()
	g.share.Share = Share{Version: max(g.share.Version, right.share.Version) + 1, Keys: min(ShareWhole, keys+k), Bytes: min(ShareWhole, bytes+b)}
	if whole {
		g.share.Keys, g.share.Bytes = ShareWhole, ShareWhole
	}
}

// cutGovern takes the child's share out, in the batch of a cut at a key. Without a quota
// there is none.
func (s *Space) cutGovern(b *mvcc.Batch, at []byte) *share {
	if !s.govern.counts {
		return nil
	}
	var child amount
	t := b.Txn()
	eachIn(t, at, []byte{0}, func(kv *mvcc.KV) { child.add(1, size(kv.Key, kv.Value())) })
	t.End()
	right := s.govern.cutShare(child)
	b.PutAux(shareTable, []byte{}, s.govern.share.encode())
	return &right
}

// recountReserved follows a cut: some of what was prepared has gone to the child.
func (s *Space) recountReserved(b *mvcc.Batch) {
	if !s.govern.counts {
		return
	}
	s.govern.reserved = nil
	t := b.Txn()
	for _, r := range s.commits.Records() {
		s.govern.reserve(t, r.Txn, r.Writes)
	}
	t.End()
}

// absorbGovern takes in what the right neighbour counts and remembers.
func (s *Space) absorbGovern(b *mvcc.Batch, right *Space) {
	for _, r := range s.govern.signers.Join(&right.govern.signers) {
		putSigner(b, r)
	}
	if !s.govern.counts && s.govern.share.Version == 0 && right.govern.share.Version == 0 {
		return
	}
	s.govern.joinShare(&right.govern, s.wholeWith(right))
	b.PutAux(shareTable, []byte{}, s.govern.share.encode())
}

// wholeWith reports whether this segment and its right neighbour hold all of the scope.
func (s *Space) wholeWith(right *Space) bool {
	if s.govern.policy == nil {
		return false
	}
	return s.seg.KeyRange().Hull(right.seg.KeyRange()).Covers(anchormesh.PrefixRange([]byte(s.govern.policy.Rules.Scope)))
}
