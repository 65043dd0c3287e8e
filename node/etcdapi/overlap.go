package etcdapi

import (
	"bytes"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// checkOverlaps refuses a transaction that would put a key twice, or put and
// delete it, in one run. It keeps etcd's rule with its corners, because clients
// were written against them:
//
//   - a put in both branches of one nested transaction is fine, in two nested
//     transactions it is not;
//   - a nested transaction's puts are held against the deletes of the level
//     above and of the nested transactions before it, not of those after it;
//   - a delete "from this key on" (range end "\x00") overlaps nothing.
func checkOverlaps(r *codec.TxnRequest) error {
	for _, branch := range [...][]codec.RequestOp{r.Success, r.Failure} {
		if len(branch) < 2 && (len(branch) == 0 || branch[0].Kind != codec.KindTxn) {
			continue // one operation overlaps nothing
		}
		if _, _, ok := overlaps(branch); !ok {
			return rpctypes.ErrGRPCDuplicateKey
		}
	}
	return nil
}

// overlaps returns the keys put and the spans deleted by ops, nested ones
// included, and whether no key is named twice. Worst case O(n log n) per level,
// for a request may hold 100,000 operations.
func overlaps(ops []codec.RequestOp) (puts map[string]struct{}, dels spans, ok bool) {
	puts = make(map[string]struct{})
	for i := range ops {
		if d := &ops[i].DeleteRange; ops[i].Kind == codec.KindDeleteRange {
			dels = append(dels, spanOf(d.Key, d.RangeEnd))
		}
	}
	dels = dels.union()
	for i := range ops {
		if ops[i].Kind != codec.KindTxn {
			continue
		}
		if dels, ok = nested(ops[i].Txn, puts, dels); !ok {
			return nil, nil, false
		}
	}
	for i := range ops {
		if ops[i].Kind != codec.KindPut {
			continue
		}
		key := ops[i].Put.Key
		if _, twice := puts[string(key)]; twice || dels.contain(key) {
			return nil, nil, false
		}
		puts[string(key)] = struct{}{}
	}
	return puts, dels, true
}

// nested adds a nested transaction's puts to those of its level and returns the
// deletes of both.
func nested(r *codec.TxnRequest, puts map[string]struct{}, dels spans) (spans, bool) {
	thenPuts, thenDels, ok := overlaps(r.Success)
	if !ok {
		return nil, false
	}
	elsePuts, elseDels, ok := overlaps(r.Failure)
	if !ok {
		return nil, false
	}
	for key := range thenPuts {
		if _, twice := puts[key]; twice || dels.contain([]byte(key)) {
			return nil, false
		}
		puts[key] = struct{}{}
	}
	for key := range elsePuts {
		_, twice := puts[key]
		_, other := thenPuts[key] // only one of the branches runs
		if twice && !other || dels.contain([]byte(key)) {
			return nil, false
		}
		puts[key] = struct{}{}
	}
	return dels.merge(thenDels).merge(elseDels), true
}

// span is [start, end).
type span struct{ start, end []byte }

func spanOf(key, end []byte) span {
	if len(end) == 0 {
		return span{key, append(bytes.Clone(key), 0)}
	}
	return span{key, end}
}

// spans are sorted and disjoint once union has been called.
type spans []span

func (s spans) union() spans {
	slices.SortFunc(s, func(a, b span) int { return bytes.Compare(a.start, b.start) })
	out := s[:0]
	for _, x := range s {
		out = out.add(x)
	}
	return out
}

// merge returns the union of two unions, in linear time.
func (s spans) merge(o spans) spans {
	if len(o) == 0 {
		return s
	}
	out := make(spans, 0, len(s)+len(o))
	for len(s) > 0 && len(o) > 0 {
		if bytes.Compare(s[0].start, o[0].start) <= 0 {
			out, s = out.add(s[0]), s[1:]
		} else {
			out, o = out.add(o[0]), o[1:]
		}
	}
	for _, x := range slices.Concat(s, o) {
		out = out.add(x)
	}
	return out
}

// add appends x, which starts at or after the last one.
func (s spans) add(x span) spans {
	switch last := len(s) - 1; {
	case bytes.Compare(x.start, x.end) >= 0: // holds no key
	case last >= 0 && bytes.Compare(x.start, s[last].end) <= 0:
		if bytes.Compare(x.end, s[last].end) > 0 {
			s[last].end = x.end
		}
	default:
		s = append(s, x)
	}
	return s
}

func (s spans) contain(key []byte) bool {
	// The last span that starts at or before key is the only candidate.
	i, exact := slices.BinarySearchFunc(s, key, func(x span, key []byte) int { return bytes.Compare(x.start, key) })
	return exact || i > 0 && bytes.Compare(key, s[i-1].end) < 0
}
