package check

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strings"
)

// state is a sequential etcd as a value: a step makes a new one and leaves the old
// one as it was.
type state struct {
	rev    int64
	kvs    []KV    // in key order
	leases []int64 // sorted
	sum    uint64  // of everything above, to compare quickly
}

func initial() *state { return (&state{rev: 1}).sealed() }

func (s *state) sealed() *state {
	h := fnv.New64a()
	word := func(vs ...int64) {
		var b [8]byte
		for _, v := range vs {
			for i := range b {
				b[i] = byte(v >> (8 * i))
			}
			h.Write(b[:])
		}
	}
	word(s.rev)
	for i := range s.kvs {
		kv := &s.kvs[i]
		h.Write([]byte(kv.Key))
		word(kv.Mod, kv.Create, kv.Version, kv.Lease)
		h.Write([]byte(kv.Value))
	}
	word(s.leases...)
	s.sum = h.Sum64()
	return s
}

func (s *state) equal(o *state) bool {
	return s.sum == o.sum && s.rev == o.rev && slices.Equal(s.kvs, o.kvs) && slices.Equal(s.leases, o.leases)
}

func (s *state) find(key string) (int, bool) {
	return slices.BinarySearchFunc(s.kvs, key, func(kv KV, key string) int { return strings.Compare(kv.Key, key) })
}

// span returns where etcd's (key, range_end) lies in kvs.
func (s *state) span(key, end string) (from, to int) {
	from, found := s.find(key)
	switch {
	case end == "" && found:
		return from, from + 1
	case end == "":
		return from, from
	case end == "\x00":
		return from, len(s.kvs)
	}
	to, _ = s.find(end)
	return from, max(from, to)
}

// within reports whether etcd's (key, range_end) names k.
func within(k, key, end string) bool {
	switch end {
	case "":
		return k == key
	case "\x00":
		return k >= key
	}
	return k >= key && k < end
}

// draft is a state that is being changed by one operation.
type draft struct {
	state
	base  *state
	wrote bool
	own   bool // kvs is not shared any more
}

func (s *state) draft() *draft { return &draft{state: *s, base: s} }

func (d *draft) now() int64 {
	if d.wrote {
		return d.base.rev + 1
	}
	return d.base.rev
}

func (d *draft) done() *state {
	out := &state{rev: d.now(), kvs: d.kvs, leases: d.leases}
	return out.sealed()
}

func (d *draft) touch() {
	d.wrote = true
	if !d.own {
		d.kvs, d.own = slices.Clone(d.kvs), true
	}
}

func (d *draft) put(r *Request) Result {
	d.touch()
	rev := d.now()
	kv := KV{Key: r.Key, Value: r.Value, Create: rev, Mod: rev, Version: 1, Lease: r.Lease}
	out := Result{Rev: rev}
	i, found := d.find(r.Key)
	if !found {
		d.kvs = slices.Insert(d.kvs, i, kv)
		return out
	}
	if r.Prev {
		out.KVs = []KV{d.kvs[i]}
	}
	kv.Create, kv.Version = d.kvs[i].Create, d.kvs[i].Version+1
	d.kvs[i] = kv
	return out
}

func (d *draft) delete(r *Request) Result {
	from, to := d.span(r.Key, r.End)
	out := Result{Count: int64(to - from)}
	if to > from {
		if r.Prev {
			out.KVs = slices.Clone(d.kvs[from:to])
		}
		d.touch()
		d.kvs = slices.Delete(d.kvs, from, to)
	}
	out.Rev = d.now()
	return out
}

func (d *draft) read(r *Request) Result {
	from, to := d.span(r.Key, r.End)
	out := Result{Rev: d.now(), Count: int64(to - from)}
	if r.Limit > 0 {
		to = min(to, from+int(r.Limit))
	}
	out.KVs = d.kvs[from:to]
	return out
}

func (d *draft) endLease(id int64) Result {
	at, found := slices.BinarySearch(d.leases, id)
	if !found {
		return Result{NoLease: true}
	}
	d.leases = slices.Delete(slices.Clone(d.leases), at, at+1)
	if slices.ContainsFunc(d.kvs, func(kv KV) bool { return kv.Lease == id }) {
		d.touch()
		d.kvs = slices.DeleteFunc(d.kvs, func(kv KV) bool { return kv.Lease == id })
	}
	return Result{Rev: d.now()}
}

func (d *draft) holds(c *Compare) bool {
	var kv KV
	i, found := d.find(c.Key)
	if found {
		kv = d.kvs[i]
	}
	var sign int
	switch c.Target {
	case "value":
		if !found {
			return false
		}
		sign = strings.Compare(kv.Value, c.Str)
	case "create":
		sign = cmp.Compare(kv.Create, c.Int)
	case "mod":
		sign = cmp.Compare(kv.Mod, c.Int)
	case "version":
		sign = cmp.Compare(kv.Version, c.Int)
	case "lease":
		sign = cmp.Compare(kv.Lease, c.Int)
	}
	switch c.Result {
	case "=":
		return sign == 0
	case "!=":
		return sign != 0
	case "<":
		return sign < 0
	}
	return sign > 0
}

// lacksLease reports whether a put of the requests names a lease that is not there.
func (d *draft) lacksLease(rs []Request) bool {
	return slices.ContainsFunc(rs, func(r Request) bool {
		_, found := slices.BinarySearch(d.leases, r.Lease)
		return r.Kind == Put && r.Lease != 0 && !found
	})
}

func (d *draft) txn(r *Request) Result {
	out := Result{Succeeded: true}
	for i := range r.If {
		out.Succeeded = out.Succeeded && d.holds(&r.If[i])
	}
	ops := r.Else
	if out.Succeeded {
		ops = r.Then
	}
	if d.lacksLease(ops) {
		return Result{NoLease: true}
	}
	for i := range ops {
		res := d.run(&ops[i])
		res.KVs = slices.Clone(res.KVs) // what follows writes in place
		out.Sub = append(out.Sub, res)
	}
	out.Rev = d.now()
	return out
}

// run carries a request out and returns what etcd would answer.
func (d *draft) run(r *Request) Result {
	switch r.Kind {
	case Put:
		if d.lacksLease([]Request{*r}) {
			return Result{NoLease: true}
		}
		return d.put(r)
	case Delete:
		return d.delete(r)
	case Txn:
		return d.txn(r)
	case Grant:
		if at, found := slices.BinarySearch(d.leases, r.Lease); !found {
			d.leases = slices.Insert(slices.Clone(d.leases), at, r.Lease)
		}
		return Result{Rev: d.now()}
	case Revoke, Expire:
		return d.endLease(r.Lease)
	}
	return d.read(r)
}

// fits reports whether an answer is the one expected. Nobody is told at which
// revision a lease ran out.
func fits(r *Request, want, got *Result) bool {
	if r.Kind == Expire {
		return want.NoLease == got.NoLease
	}
	return same(want, got)
}

func same(want, got *Result) bool {
	return want.Rev == got.Rev && want.Count == got.Count && want.Succeeded == got.Succeeded && want.NoLease == got.NoLease &&
		slices.Equal(want.KVs, got.KVs) &&
		slices.EqualFunc(want.Sub, got.Sub, func(a, b Result) bool { return same(&a, &b) })
}
