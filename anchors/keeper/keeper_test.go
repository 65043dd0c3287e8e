package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/cockroachdb/datadriven"
)

// TestScripts runs testdata/*.
//
//	report SEGMENT gN REPLICA ends T/I confs 1,2,3 [4,5]...   its holders are all that are named
//	choose SEGMENT REPLICA ends T/I
//	end SEGMENT gN | drop SEGMENT
//	show                                                      cases and floors
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var r *Record
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
				r = step(t, r, strings.Fields(line), &out)
				if again, err := Decode(r.Encode()); err != nil || !bytes.Equal(again.Encode(), r.Encode()) {
					t.Fatalf("%s: does not read back: %v", line, err)
				}
			}
			return out.String()
		})
	})
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "g"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func position(t *testing.T, s string) Position {
	term, index, _ := strings.Cut(s, "/")
	return Position{number(t, term), number(t, index)}
}

func holder(id anchormesh.ReplicaID) Holder {
	return Holder{id, anchormesh.NodeID("n" + strconv.Itoa(int(id)))}
}

func report(segment anchormesh.SegmentID, g anchormesh.Generation, id anchormesh.ReplicaID, left Position, confs ...Conf) Report {
	rep := Report{Segment: segment, Generation: g, Holder: holder(id), Left: left, Confs: confs, Holders: []Holder{holder(id)}}
	for _, c := range confs {
		for _, id := range c {
			if h := holder(id); !slices.Contains(rep.Holders, h) {
				rep.Holders = append(rep.Holders, h)
			}
		}
	}
	slices.SortFunc(rep.Holders, compareHolders)
	return rep
}

func step(t *testing.T, r *Record, f []string, out *strings.Builder) *Record {
	t.Helper()
	if f[0] == "show" {
		if r != nil {
			for _, c := range r.Cases {
				fmt.Fprintf(out, "%d: %d reports, decided %v, chosen %d\n", c.Segment, len(c.Reports), c.Decided(), c.Chosen.Replica)
			}
			for _, floor := range r.Floors {
				fmt.Fprintf(out, "%d: from generation %d\n", floor.Segment, floor.Generation)
			}
		}
		return r
	}
	segment := anchormesh.SegmentID(number(t, f[1]))
	next, err := r, error(nil)
	switch f[0] {
	case "report":
		var confs []Conf
		for _, word := range f[7:] {
			var c Conf
			for _, id := range strings.Split(word, ",") {
				c = append(c, anchormesh.ReplicaID(number(t, id)))
			}
			confs = append(confs, c)
		}
		lost := false
		next, lost, err = r.Report(report(segment, anchormesh.Generation(number(t, f[2])), anchormesh.ReplicaID(number(t, f[3])), position(t, f[5]), confs...))
		if lost {
			c, _ := next.Case(segment)
			fmt.Fprintf(out, "%d is lost: %d has most, %d/%d\n", segment, c.Best().Replica, c.Best().Left.Term, c.Best().Left.Index)
			next = next.Decide(segment, anchormesh.Hash{1})
		}
	case "choose":
		next, err = r.Choose(segment, holder(anchormesh.ReplicaID(number(t, f[2]))), position(t, f[4]))
	case "end":
		next, err = r.End(segment, anchormesh.Generation(number(t, f[2])))
	case "drop":
		next, err = r.Drop(segment)
	default:
		t.Fatalf("unknown command %q", f[0])
	}
	if err != nil {
		fmt.Fprintf(out, "%s: %v\n", f[0], err)
		return r
	}
	return next
}

// group is a group whose replicas lose power, as Raft runs it: every change of the
// configuration is on the disks of a majority of the one before it.
type group struct {
	rng   *rand.Rand
	confs []Conf                          // every one that was in force
	knows map[anchormesh.ReplicaID][]Conf // on disk
	dead  map[anchormesh.ReplicaID]bool
	next  anchormesh.ReplicaID
}

func (g *group) now() Conf { return g.confs[len(g.confs)-1] }

// change replaces some of the voters, if a majority is alive to write that down. Who has
// it on disk knows all before it.
func (g *group) change() {
	old := g.now()
	var alive Conf
	for _, id := range old {
		if !g.dead[id] {
			alive = append(alive, id)
		}
	}
	if len(alive) <= len(old)/2 {
		return
	}
	next := slices.DeleteFunc(slices.Clone(old), func(anchormesh.ReplicaID) bool { return g.rng.IntN(3) == 0 })
	for len(next) < 1+2*g.rng.IntN(3) {
		g.next++
		next = append(next, g.next)
	}
	g.rng.Shuffle(len(alive), func(i, j int) { alive[i], alive[j] = alive[j], alive[i] })
	g.confs = append(g.confs, next)
	wrote := len(old)/2 + 1 + g.rng.IntN(len(alive)-len(old)/2)
	for i, id := range append(slices.Clone(alive[:wrote]), next...) {
		if i < wrote || !slices.Contains(old, id) { // who joins came with a snapshot
			g.knows[id] = slices.Clone(g.confs)
		}
	}
}

// newest returns the configurations that a replica's state and log name: those from the
// one it has applied on.
func (g *group) named(id anchormesh.ReplicaID) []Conf {
	all := g.knows[id]
	return all[g.rng.IntN(len(all)):]
}

// TestWhatIsLostCannotElect: whatever replicas lose power, in whatever order they report,
// behind whatever changes of the configuration: a segment is given up only when a majority
// of the configuration in force is dead, so that nobody can elect or commit beside the
// new generation; and no two keepers who share no reporter give it up both.
func TestWhatIsLostCannotElect(t *testing.T) {
	base, lost := rand.Uint64(), 0
	for i := range uint64(20000) {
		seed := base + i
		g := &group{rng: rand.New(rand.NewPCG(seed, 4)), knows: map[anchormesh.ReplicaID][]Conf{}, dead: map[anchormesh.ReplicaID]bool{}}
		first := Conf{}
		for range 1 + 2*g.rng.IntN(3) {
			g.next++
			first = append(first, g.next)
		}
		g.confs = []Conf{first}
		for _, id := range first {
			g.knows[id] = g.confs
		}
		var keepers [2]*Record
		gaveUp := 0
		for range 12 {
			if g.rng.IntN(2) == 0 {
				g.change()
				continue
			}
			conf := g.confs[g.rng.IntN(len(g.confs))]
			id := conf[g.rng.IntN(len(conf))]
			if g.dead[id] || g.knows[id] == nil {
				continue
			}
			g.dead[id] = true
			k := g.rng.IntN(8) / 7
			next, gone, err := keepers[k].Report(report(7, 1, id, Position{1, uint64(i)}, g.named(id)...))
			if errors.Is(err, ErrReport) { // it names more replicas than a report may
				continue
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			keepers[k] = next
			if !gone {
				continue
			}
			lost++
			gaveUp++
			alive := slices.DeleteFunc(slices.Clone(g.now()), func(id anchormesh.ReplicaID) bool { return g.dead[id] })
			if len(alive) > len(g.now())/2 {
				t.Fatalf("seed %d: given up, and %v of %v can elect", seed, alive, g.now())
			}
			break
		}
		if gaveUp > 0 { // the other keeper hears of all that are left
			other := keepers[0]
			if c, _ := keepers[0].Case(7); c != nil && c.Lost() {
				other = keepers[1]
			}
			for id := range g.knows {
				if g.dead[id] {
					continue
				}
				next, gone, err := other.Report(report(7, 1, id, Position{1, 1}, g.knows[id]...))
				if errors.Is(err, ErrReport) {
					continue
				}
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if other = next; gone {
					t.Fatalf("seed %d: two keepers gave it up", seed)
				}
			}
		}
	}
	if lost < 100 {
		t.Errorf("seeds from %d: only %d groups were lost", base, lost)
	}
}

// Beyond the limits reports are refused, and nothing that is known is forgotten.
func TestLimits(t *testing.T) {
	var r *Record
	var err error
	for s := range anchormesh.SegmentID(CasesMax) {
		if r, _, err = r.Report(report(s+1, 1, 1, Position{1, 1}, Conf{1, 2, 3})); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := r.Report(report(CasesMax+1, 1, 1, Position{1, 1}, Conf{1, 2, 3})); !errors.Is(err, ErrFull) {
		t.Errorf("a case too many: %v", err)
	}
	if _, lost, err := r.Report(report(1, 1, 2, Position{1, 1}, Conf{1, 2, 3})); err != nil || !lost {
		t.Errorf("a case that is waited for: %v, %v", lost, err)
	}
	for s := range anchormesh.SegmentID(FloorsMax) {
		if r, err = r.End(s+1, 9); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := r.Report(report(FloorsMax+1, 1, 1, Position{1, 1}, Conf{1})); !errors.Is(err, ErrFull) {
		t.Errorf("a segment too many to remember: %v", err)
	}
	if _, lost, err := r.Report(report(5, 9, 1, Position{1, 1}, Conf{1})); err != nil || !lost {
		t.Errorf("a segment that is remembered: %v, %v", lost, err)
	}
	if b := r.Encode(); len(b) > 64<<10 {
		t.Errorf("%d bytes", len(b))
	}
}

func FuzzDecode(f *testing.F) {
	r, _, err := (*Record)(nil).Report(report(7, 1, 2, Position{3, 4}, Conf{1, 2}, Conf{2}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Encode())
	f.Add(r.Cases[0].Reports[0].Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := Decode(data); err == nil && !bytes.Equal(r.Encode(), data) {
			t.Errorf("%x read back as %x", data, r.Encode())
		}
		if rep, err := DecodeReport(data); err == nil && !bytes.Equal(rep.Encode(), data) {
			t.Errorf("report %x read back as %x", data, rep.Encode())
		}
	})
}
