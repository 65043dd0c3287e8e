package explore

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	// ErrTooLarge: the model has more states than its limit.
	ErrTooLarge = errors.New("explore: more states than the limit")
	// ErrStuck: from some state nothing settled is reached without faults.
	ErrStuck = errors.New("explore: stuck")
)

// Step is one thing that may happen in a state, and the state after it.
type Step[S any] struct {
	Label string
	Fault bool // crashes, losses and the like: nothing may depend on them to end
	State S
}

// Model is what is explored.
type Model[S any] struct {
	Start S
	Key   func(S) []byte    // canonical: equal states, equal keys
	Next  func(S) []Step[S] // must leave its argument as it is
	Check func(S) error     // what holds in every state
	// Settled says where everything has come to its end. Nil: do not ask.
	Settled func(S) bool
	Most    int // states at most
}

// Report is what was found.
type Report struct {
	States, Edges, Depth int
	Err                  error
	Trace                []string // the steps from the start to the violation
}

// String is one line, and the trace of a violation below it.
func (r Report) String() string {
	line := fmt.Sprintf("%d states, %d steps, depth %d", r.States, r.Edges, r.Depth)
	if r.Err == nil {
		return line
	}
	return fmt.Sprintf("%s: %v\n  %s", line, r.Err, strings.Join(r.Trace, "\n  "))
}

type digest [16]byte

// node is what is remembered of a state that was visited.
type node struct {
	parent int32
	depth  int32
	label  string
}

type walk[S any] struct {
	m       Model[S]
	seen    map[digest]int32
	nodes   []node
	frontal []S // states not yet expanded, oldest first
	settled []bool
	edges   int
	back    [][2]int32 // steps without fault: to, from
}

// Run explores m until it is exhausted, broken or too large.
func Run[S any](m Model[S]) Report {
	w := &walk[S]{m: m, seen: make(map[digest]int32)}
	if _, err := w.visit(m.Start, -1, "start"); err != nil {
		return w.report(0, err)
	}
	for at := int32(0); int(at) < len(w.nodes); at++ {
		s := w.frontal[0]
		var none S
		w.frontal[0] = none
		w.frontal = w.frontal[1:]
		for _, step := range m.Next(s) {
			to, err := w.visit(step.State, at, step.Label)
			if err != nil {
				return w.report(to, err)
			}
			w.edges++
			if m.Settled != nil && !step.Fault {
				w.back = append(w.back, [2]int32{to, at})
			}
		}
	}
	if at := w.stuck(); at >= 0 {
		return w.report(at, ErrStuck)
	}
	return w.report(-1, nil)
}

// visit returns the number of a state, entering it if it is new.
func (w *walk[S]) visit(s S, from int32, label string) (int32, error) {
	sum := sha256.Sum256(w.m.Key(s))
	id := digest(sum[:16])
	if at, ok := w.seen[id]; ok {
		return at, nil
	}
	at := int32(len(w.nodes))
	depth := int32(0)
	if from >= 0 {
		depth = w.nodes[from].depth + 1
	}
	w.seen[id] = at
	w.nodes = append(w.nodes, node{from, depth, label})
	w.frontal = append(w.frontal, s)
	if w.m.Settled != nil {
		w.settled = append(w.settled, w.m.Settled(s))
	}
	if err := w.m.Check(s); err != nil {
		return at, err
	}
	if len(w.nodes) > w.m.Most {
		return at, ErrTooLarge
	}
	return at, nil
}

// stuck returns a state, of the least depth, that reaches nothing settled.
func (w *walk[S]) stuck() int32 {
	if w.m.Settled == nil {
		return -1
	}
	slices.SortFunc(w.back, func(a, b [2]int32) int { return int(a[0]) - int(b[0]) })
	var todo []int32
	for at, ok := range w.settled {
		if ok {
			todo = append(todo, int32(at))
		}
	}
	for len(todo) > 0 {
		to := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		i, _ := slices.BinarySearchFunc(w.back, to, func(e [2]int32, to int32) int { return int(e[0]) - int(to) })
		for ; i < len(w.back) && w.back[i][0] == to; i++ {
			if from := w.back[i][1]; !w.settled[from] {
				w.settled[from] = true
				todo = append(todo, from)
			}
		}
	}
	return int32(slices.Index(w.settled, false))
}

func (w *walk[S]) report(at int32, err error) Report {
	r := Report{States: len(w.nodes), Edges: w.edges, Depth: int(w.nodes[len(w.nodes)-1].depth), Err: err}
	for ; err != nil && at > 0; at = w.nodes[at].parent {
		r.Trace = append(r.Trace, w.nodes[at].label)
	}
	slices.Reverse(r.Trace)
	return r
}
