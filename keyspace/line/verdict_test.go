package line

import (
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// ---- The verdict

// truth is what every key went through, in the end.
func (w *world) truth() (out [keyCount][]version, err error) {
	for _, g := range w.groups {
		best := g.replicas[0]
		for _, r := range g.replicas {
			if r.exists && (!best.exists || r.done > best.done) {
				best = r
			}
		}
		for k := best.lo; best.exists && k < best.hi; k++ {
			if out[k] != nil {
				return out, fmt.Errorf("key %d has two owners", k)
			}
			out[k] = append([]version{}, best.keys[k]...)
			slices.SortFunc(out[k], func(a, b version) int { return int(a.rev - b.rev) })
		}
	}
	return out, nil
}

func upTo(vs []version, t anchormesh.Revision) []version {
	n := 0
	for n < len(vs) && vs[n].rev <= t {
		n++
	}
	return vs[:n]
}

func (w *world) check() error {
	truth, err := w.truth()
	if err != nil {
		return err
	}
	for _, f := range []func([keyCount][]version) error{w.checkUnique, w.checkReads, w.checkAskers, w.checkTime} {
		if err := f(truth); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) checkUnique(truth [keyCount][]version) error {
	by := make(map[anchormesh.Revision]int)
	applied := make(map[int]int)
	for k := range truth {
		for _, v := range truth[k] {
			if id, ok := by[v.rev]; ok && id != v.id {
				return fmt.Errorf("revision %d was given to %d and %d", v.rev, id, v.id)
			}
			by[v.rev] = v.id
			applied[v.id]++
		}
	}
	for _, o := range w.ops {
		if o.kind == "write" && o.status == acked && applied[o.id] != 1 || applied[o.id] > 1 && o.kind == "write" {
			return fmt.Errorf("write %d at %d was acknowledged and applied %d times", o.id, o.stamp, applied[o.id])
		}
	}
	for _, t := range w.txns {
		if n := applied[t.ops[0].id]; t.end != 0 && t.c != 0 && n != 2 || (t.end == 0 || t.c == 0) && n == 1 {
			return fmt.Errorf("transaction %d has %d of its 2 writes", t.ops[0].id, n)
		}
	}
	return nil
}

// checkReads compares every read with the truth at its T: so two reads at T agree,
// and nothing at or below T came later.
func (w *world) checkReads(truth [keyCount][]version) error {
	for i, r := range w.reads {
		for k := range keyCount {
			var want version
			if vs := upTo(truth[k], r.t); len(vs) > 0 {
				want = vs[len(vs)-1]
			}
			if r.end != 0 && r.got[k] != want {
				return fmt.Errorf("read %d at %d found %v in key %d, there is %v", i, r.t, r.got[k], k, want)
			}
		}
	}
	return nil
}

// checkAskers: when a barrier at T was complete, all that is at or below T had been
// told.
func (w *world) checkAskers(truth [keyCount][]version) error {
	for i, a := range w.askers {
		w.claims += len(a.claims)
		for k := range keyCount {
			for _, v := range truth[k] {
				claim, covered := slices.BinarySearch(a.claims, v.rev)
				covered = covered || claim < len(a.claims)
				if told, ok := a.seen[k][v]; covered && (!ok || told > claim) {
					return fmt.Errorf("asker %d was at %d and not told of %v of key %d", i, a.claims[claim], v, k)
				}
			}
		}
	}
	return nil
}

// span is an operation in real time, with its place on the line.
type span struct {
	start, end int64
	rev        anchormesh.Revision
	read       bool
	name       string
}

// checkTime: whatever ended before something began is before it on the line.
func (w *world) checkTime([keyCount][]version) error {
	var all []span
	for _, o := range w.ops {
		if o.kind == "write" && o.status == acked {
			w.writes++
			all = append(all, span{o.start, o.end, o.stamp, false, fmt.Sprint("write ", o.id)})
		}
	}
	for _, t := range w.txns {
		if t.end != 0 && t.c != 0 {
			w.tally.txns++
			all = append(all, span{t.start, t.end, t.c, false, fmt.Sprint("transaction ", t.ops[0].id)})
		}
	}
	for i, r := range w.reads {
		if r.end != 0 {
			w.tally.reads++
			all = append(all, span{r.start, r.end, r.t, true, fmt.Sprint("read ", i)})
		}
	}
	ends := slices.Clone(all)
	slices.SortFunc(ends, func(a, b span) int { return int(a.end - b.end) })
	slices.SortFunc(all, func(a, b span) int { return int(a.start - b.start) })
	var floor span
	next := 0
	for _, s := range all {
		for next < len(ends) && ends[next].end < s.start {
			if ends[next].rev > floor.rev {
				floor = ends[next]
			}
			next++
		}
		if s.rev < floor.rev || s.rev == floor.rev && !s.read && floor.name != "" {
			return fmt.Errorf("%s is at %d, but %s ended before it began, at %d", s.name, s.rev, floor.name, floor.rev)
		}
	}
	return nil
}
