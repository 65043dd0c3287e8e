package line

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

var errStuck = errors.New("something is stuck")

// run lets a world run wild, then calm down, and judges it.
func (w *world) run(steps int) error {
	for range steps {
		w.turn()
	}
	w.calm = true
	w.cut = [nodeCount]bool{}
	for range 4000 {
		w.turn()
		if w.quiet() {
			return w.check()
		}
	}
	if err := w.check(); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", errStuck, w.stuck())
}

// turn is a moment of the world.
func (w *world) turn() {
	w.step++
	for n := 1 + len(w.net)/2; n > 0 && len(w.net) > 0; n-- {
		i := w.rng.IntN(len(w.net))
		m := w.net[i]
		if m.due > w.step && !w.calm {
			continue
		}
		w.net[i] = w.net[len(w.net)-1]
		w.net = w.net[:len(w.net)-1]
		m.f()
	}
	for _, g := range w.groups {
		w.turnGroup(g)
	}
	for _, n := range w.nodes {
		w.collect(n)
	}
	for _, r := range w.reads {
		if r.end == 0 && r.advance() {
			r.end = w.tick()
		}
	}
	for _, a := range w.askers {
		a.step()
	}
	for _, t := range w.txns {
		if w.rng.IntN(4) == 0 {
			t.advance(w)
		}
	}
	if !w.calm {
		w.disturb()
	}
}

func (w *world) turnGroup(g *group) {
	var chief *replica
	for _, r := range g.replicas {
		if !r.exists {
			continue
		}
		if r.leader && (chief == nil || r.term > chief.term) {
			chief = r
		}
		if len(r.outbox) > 0 && (w.rng.IntN(w.lazy) == 0 || w.calm) {
			r.flush()
		}
		for n := w.rng.IntN(4); n > 0; n-- {
			r.apply()
		}
		if r.leader {
			for _, o := range g.replicas {
				if w.rng.IntN(2) == 0 {
					r.reach(o)
				}
			}
		}
		if r.holder.Seat().Term != 0 {
			r.holder.Tick(w.now())
			r.drive()
		}
	}
	if !w.calm && w.rng.IntN(w.unrest) == 0 || chief == nil && w.rng.IntN(3) == 0 {
		g.replicas[w.rng.IntN(nodeCount)].elect(g.replicas[w.rng.IntN(nodeCount)])
	}
}

// disturb is what clients and the world do to a mesh.
func (w *world) disturb() {
	for n := w.rng.IntN(3); n > 0; n-- {
		w.write(&op{id: len(w.ops) + 1, key: w.rng.IntN(keyCount), kind: "write"})
	}
	switch w.rng.IntN(24) {
	case 0, 1, 2, 7, 8:
		w.read()
	case 3:
		w.begin()
	case 4:
		w.cut = [nodeCount]bool{}
		w.cut[w.rng.IntN(nodeCount)] = w.rng.IntN(3) > 0
	case 5:
		if len(w.askers) < 2 {
			w.asker()
		}
	case 6:
		if len(w.groups) < 8 {
			w.split(w.rng.IntN(keyCount))
		}
	}
}

// split proposes to cut a segment at a key.
func (w *world) split(key int) {
	if r := w.pick(key); r != nil && r.leader && key > r.lo {
		e := &entry{kind: "split", gen: r.gen, key: key, child: w.newGroup()}
		r.outbox = append(r.outbox, outgoing{r.term, e})
	}
}

// quiet reports whether all that was begun has ended.
func (w *world) quiet() bool { return w.stuck() == "" }

func (w *world) stuck() string {
	var top int64
	for _, g := range w.groups {
		for _, r := range g.replicas {
			top = max(top, r.last)
			if r.exists && (r.done != len(r.log) || r.done == 0) {
				return fmt.Sprintf("replica %d of %s applied %d of %d", r.node, g.id, r.done, len(r.log))
			}
		}
	}
	for i, r := range w.reads {
		if r.end == 0 {
			return fmt.Sprintf("read %d at %d needs %x", i, r.t, r.need)
		}
	}
	for _, t := range w.txns {
		if t.end == 0 {
			return fmt.Sprintf("transaction %d", t.ops[0].id)
		}
	}
	for i, a := range w.askers {
		if a.since < top {
			return fmt.Sprintf("asker %d at %d of %d", i, a.since, top)
		}
	}
	return ""
}

// seeds returns how many runs to make: the variable LINE_RUNS, or few.
func seeds(t *testing.T, few int) int {
	if n, err := strconv.Atoi(os.Getenv("LINE_RUNS")); err == nil {
		return n
	}
	if testing.Short() {
		return few / 4
	}
	return few
}

func judge(seed uint64, f fault, sum *tally) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if f == none {
				panic(p)
			}
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	w := newWorld(seed, f)
	err = w.run(150)
	sum.add(w.tally)
	return err
}

func (t *tally) add(o tally) {
	t.writes += o.writes
	t.reads += o.reads
	t.txns += o.txns
	t.splits += o.splits
	t.homes += o.homes
	t.thrown += o.thrown
	t.claims += o.claims
}

// TestModel: random worlds are strictly serializable. LINE_RUNS sets how many,
// LINE_SEED the first.
func TestModel(t *testing.T) {
	first, _ := strconv.ParseUint(os.Getenv("LINE_SEED"), 10, 64)
	var sum tally
	begun, n := time.Now(), seeds(t, 600)
	for i := range n {
		seed := first + uint64(i)
		if err := judge(seed, none, &sum); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	t.Logf("%d worlds in %v: %+v", n, time.Since(begun), sum)
	if n >= 100 && (sum.writes < 20*n || sum.reads < 10*n || sum.txns < n/2 || sum.splits < 3*n || sum.homes < 2*n || sum.thrown < n/20 || sum.claims < 4*n) {
		t.Fatalf("little happened in %d worlds: %+v", n, sum)
	}
}

// TestModelFindsFaults: the same worlds find every planted fault.
func TestModelFindsFaults(t *testing.T) {
	for f := none + 1; f < faultCount; f++ {
		t.Run(faultNames[f], func(t *testing.T) {
			for seed := range uint64(4000) {
				if err := judge(seed, f, new(tally)); err != nil && !errors.Is(err, errStuck) {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Fatal("not found in 4000 worlds")
		})
	}
}
