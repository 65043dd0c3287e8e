package trust

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/anchormesh/anchormesh"
)

// TestScripts: one ledger per script.
//
//	entries N [present=a,b]   N entries in which the present voters report; lines say who
//	  BY OF KIND              is not well: KIND is slow, lagging, dead, corrupt, invalid, unseen; BY may be *
//	voters a,b,c              the group from now on
//	votes [threshold=1/2]     effective weights
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		var l *Ledger
		voters := letters(3)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "voters":
				voters = nodes(strings.Split(d.CmdArgs[0].Key, ",")...)
				return ""
			case "entries":
				count, err := strconv.Atoi(d.CmdArgs[0].Key)
				if err != nil {
					t.Fatal(err)
				}
				present := voters
				if d.HasArg("present") {
					var list string
					d.ScanArgs(t, "present", &list)
					present = nodes(strings.Split(list, ",")...)
				}
				see := script(t, d.Input)
				var out strings.Builder
				for i := range count {
					p, reports := poll(l, voters, present, see)
					next, err := l.Next(p, reports, 10*l.Version()+50, 3)
					if err != nil {
						fmt.Fprintf(&out, "%d: %v\n", i+1, err)
						break
					}
					l = next
				}
				return out.String() + show(l, voters)
			case "votes":
				var th Threshold
				if d.HasArg("threshold") {
					var text string
					d.ScanArgs(t, "threshold", &text)
					if err := th.UnmarshalText([]byte(text)); err != nil {
						t.Fatal(err)
					}
				}
				e := Elect(l.Of(voters), th)
				var out strings.Builder
				for _, v := range e.Voters() {
					fmt.Fprintf(&out, "%s %d\n", v.Node, v.Weight)
				}
				fmt.Fprintf(&out, "needed %d of %d\n", e.Need(th), e.Sum())
				return out.String()
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func script(t *testing.T, text string) func(by, of anchormesh.NodeID) Measure {
	kinds := map[string]Measure{"slow": slow, "lagging": lagging, "dead": dead, "corrupt": corrupt, "invalid": {Answered: 30, Invalid: 1}, "unseen": {}}
	said := make(map[[2]anchormesh.NodeID]Measure)
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		kind, ok := kinds[words[2]]
		if !ok {
			t.Fatalf("no kind %q", words[2])
		}
		said[[2]anchormesh.NodeID{anchormesh.NodeID(words[0]), anchormesh.NodeID(words[1])}] = kind
	}
	return func(by, of anchormesh.NodeID) Measure {
		for _, who := range []anchormesh.NodeID{by, "*"} {
			if m, ok := said[[2]anchormesh.NodeID{who, of}]; ok {
				return m
			}
		}
		return well
	}
}

func show(l *Ledger, voters []anchormesh.NodeID) string {
	var out strings.Builder
	fmt.Fprintf(&out, "version %d:", l.Version())
	for _, w := range l.Weights() {
		fmt.Fprintf(&out, " %s %d", w.Node, w.Weight)
		if !slices.Contains(voters, w.Node) {
			out.WriteString(" (gone)")
		}
	}
	return out.String() + "\n"
}

// TestEveryStepIsBounded walks every combination of what three voters may say.
func TestEveryStepIsBounded(t *testing.T) {
	kinds := []Measure{well, slow, dead, corrupt, {}}
	for _, start := range [][]uint32{{100, 100, 100}, {20, 20, 20}, {100, 21, 10}, {10, 10, 10}, {1, 25, 100}} {
		l := &Ledger{version: 1, made: &past{history: []Step{{Version: 1}}}}
		for i, n := range letters(3) {
			l.weights = append(l.weights, Weight{n, start[i]})
		}
		for code := range 5 * 5 * 5 * 5 * 5 * 5 {
			digits := code
			p, reports := poll(l, letters(3), letters(3), func(_, _ anchormesh.NodeID) Measure {
				digits /= 5
				return kinds[digits%5]
			})
			next, err := l.Next(p, reports, 9, 3)
			if errors.Is(err, ErrUnchanged) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			fell := 0
			for i, n := range letters(3) {
				w := next.Weight(n)
				if w < Least || w > Cap || w+StepMax < start[i] || w > start[i]+StepMax {
					t.Fatalf("%d: %s from %d to %d", code, n, start[i], w)
				}
				if start[i] >= Floor && w < Floor {
					fell++
				}
			}
			if below := next.BelowFloor(letters(3)); fell > 0 && below > 1 {
				t.Fatalf("%d: from %v to %v: evidence brought somebody below the floor beside another", code, start, next.Weights())
			}
		}
	}
}

// TestOneLiarOfThreeMovesNobodyDown: whatever one anchor says about the others, and
// however often.
func TestOneLiarOfThreeMovesNobodyDown(t *testing.T) {
	for _, lie := range []Measure{slow, dead, corrupt, {Invalid: 1 << 30}} {
		for _, first := range []int{0, 20} {
			l := after(t, nil, first, letters(3), letters(3), allWell)
			before := l.Of(letters(3))
			l = after(t, l, 50, letters(3), letters(3), func(by, _ anchormesh.NodeID) Measure {
				if by == "c" {
					return lie
				}
				return well
			})
			for i, w := range l.Of(letters(3)) {
				if w.Weight < before[i].Weight {
					t.Errorf("%+v: the liar lowered %s from %d to %d", lie, w.Node, before[i].Weight, w.Weight)
				}
			}
		}
	}
}

// TestFewerThanAMajorityReportNothing: nor do strangers, nor anybody twice.
func TestFewerThanAMajorityReportNothing(t *testing.T) {
	p, reports := poll(nil, letters(5), letters(2), allWell)
	if _, err := (*Ledger)(nil).Next(p, reports, 9, 3); !errors.Is(err, ErrReports) {
		t.Errorf("two of five: %v", err)
	}
	p, reports = poll(nil, letters(3), letters(2), allWell)
	if _, err := (*Ledger)(nil).Next(p, append(reports, reports[1]), 9, 3); !errors.Is(err, ErrReports) {
		t.Errorf("one twice: %v", err)
	}
	reports[1].By = "z"
	if _, err := (*Ledger)(nil).Next(p, reports, 9, 3); !errors.Is(err, ErrReports) {
		t.Errorf("a stranger: %v", err)
	}
	p.Version = 1
	if _, err := (*Ledger)(nil).Next(p, reports, 9, 3); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v", err)
	}
}

// TestNewcomersCannotCapture is experiment 4: however many fresh nodes the mesh takes
// in, those that get a vote of a trusted group while others of it stay neither decide
// nor block, and one vote a node counts everywhere else would have let them.
func TestNewcomersCannotCapture(t *testing.T) {
	for n := 3; n <= 7; n += 2 {
		voters := letters(n)
		l := after(t, nil, 60, voters, voters, allWell)
		fresh := (n - 1) / 2
		for i := range fresh {
			voters[n-1-i] = anchormesh.NodeID(fmt.Sprintf("z-new-%d", i))
		}
		slices.Sort(voters)
		for _, th := range thresholdsOf(n) {
			e := Elect(l.Of(voters), th)
			news, trusted := uint32(0), uint32(0)
			for _, v := range e.Voters() {
				if strings.HasPrefix(string(v.Node), "z-") {
					news += v.Weight
				} else {
					trusted += v.Weight
				}
			}
			if e.Reached(th, news) || e.Lost(th, news) || !e.Reached(th, trusted) {
				t.Errorf("%d of %d are fresh, threshold %v: %v", fresh, n, th, e.Voters())
			}
		}
		if below := l.BelowFloor(voters); below != fresh {
			t.Errorf("%d of %d fresh ones count as below the floor", below, fresh)
		}
	}
}
