package segments

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// splitsAtOnce bounds the splits that cutAll has under way.
const splitsAtOnce = 16

// cutAll cuts at all boundaries (sorted) and returns how long each took.
func (k *control) cutAll(ctx context.Context, boundaries []string) ([]time.Duration, error) {
	var took []time.Duration
	for _, level := range bisecting(boundaries) {
		times, err := together(level, splitsAtOnce, func(key string) (time.Duration, error) { return k.split(ctx, key) })
		took = append(took, times...)
		if err != nil {
			return took, err
		}
	}
	return took, nil
}

// together calls f for every item, at most width at once, and returns the results
// in the items' order.
func together[I, O any](items []I, width int, f func(I) (O, error)) ([]O, error) {
	out, errs := make([]O, len(items)), make([]error, len(items))
	slots := make(chan struct{}, width)
	var wg sync.WaitGroup
	for i, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			out[i], errs[i] = f(item)
			<-slots
		})
	}
	wg.Wait()
	return out, errors.Join(errs...)
}

// seating is who anchors and leads a segment in an even spread: segment i of a mesh
// of n nodes is led by node i mod n, and the next ones follow it.
func seating(i, nodes, voters int) []int {
	var out []int
	for j := range min(voters, nodes) {
		out = append(out, (i+j)%nodes)
	}
	return out
}

// Spread says where leaders were when a benchmark began.
type Spread struct {
	Leaders []int  `json:"leaders"` // by node, in the order of names
	Unknown int    `json:"unknown"`
	Missing string `json:"missing,omitempty"` // why they are not spread
}

// Even reports whether the nodes lead equally many segments, give or take a quarter.
func (s Spread) Even() bool {
	total := s.Unknown
	for _, n := range s.Leaders {
		total += n
	}
	mean := float64(total) / float64(len(s.Leaders))
	slack := max(1, mean/4)
	for _, n := range s.Leaders {
		if float64(n) < mean-slack || float64(n) > mean+slack {
			return false
		}
	}
	return total > 0
}

func (s Spread) String() string {
	text := strings.Trim(fmt.Sprint(s.Leaders), "[]")
	if s.Unknown > 0 {
		text += fmt.Sprintf(", unknown %d", s.Unknown)
	}
	if s.Missing != "" {
		text += " (" + s.Missing + ")"
	}
	return text
}

// spread gives every segment the anchors and the leader of an even seating, as far
// as the mesh can, and says what came of it.
func (k *control) spread(ctx context.Context) (Spread, error) {
	ids, err := k.ids(ctx)
	if err != nil {
		return Spread{}, err
	}
	all, err := k.segments(ctx)
	if err != nil {
		return Spread{}, err
	}
	seats := make(map[uint64][]string, len(all))
	for i, s := range all {
		for _, n := range seating(i, len(ids), max(1, len(s.voters))) {
			seats[s.id] = append(seats[s.id], ids[n])
		}
	}
	_, refused := together(all, splitsAtOnce, func(s segment) (struct{}, error) { return struct{}{}, k.anchor(ctx, s, seats[s.id]) })
	if refused == nil {
		refused = patiently(ctx, "transfer", func(ctx context.Context) error { return k.lead(ctx, seats) })
	}
	out, err := k.leaders(ctx, ids)
	if refused != nil {
		out.Missing, _, _ = strings.Cut(refused.Error(), "\n")
	}
	return out, err
}

// anchor moves the anchors of one segment to its seats.
func (k *control) anchor(ctx context.Context, s segment, seats []string) error {
	for _, to := range seats {
		if slices.Contains(s.voters, to) {
			continue
		}
		from := s.voters[slices.IndexFunc(s.voters, func(v string) bool { return !slices.Contains(seats, v) })]
		if err := patiently(ctx, "move", func(ctx context.Context) error { return k.move(ctx, s.id, from, to) }); err != nil {
			return err
		}
		moved, err := k.moved(ctx, s.id, to)
		if err != nil {
			return err
		}
		s = moved
	}
	return nil
}

// lead asks for the leaders that the seats say, once, and says how many others
// lead still.
func (k *control) lead(ctx context.Context, seats map[uint64][]string) error {
	all, err := k.segments(ctx)
	if err != nil {
		return err
	}
	wrong := slices.DeleteFunc(all, func(s segment) bool { return len(seats[s.id]) == 0 || s.leader == seats[s.id][0] })
	if len(wrong) == 0 {
		return nil
	}
	if _, err := together(wrong, splitsAtOnce, func(s segment) (struct{}, error) {
		return struct{}{}, k.transfer(ctx, s.id, seats[s.id][0])
	}); hopeless(firstOf(err)) {
		return firstOf(err)
	}
	return fmt.Errorf("%d segments are led elsewhere", len(wrong))
}

// firstOf returns the first of joined errors.
func firstOf(err error) error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()[0]
	}
	return err
}

// moved waits until a node is a voter of a segment that is not changing.
func (k *control) moved(ctx context.Context, id uint64, node string) (found segment, err error) {
	err = k.await(ctx, func(all []segment) error {
		i := slices.IndexFunc(all, func(x segment) bool { return x.id == id })
		if i < 0 || !all[i].settled || !slices.Contains(all[i].voters, node) {
			return fmt.Errorf("segment %x has not moved", id)
		}
		found = all[i]
		return nil
	})
	return found, err
}

// await looks at the segments until f is content.
func (k *control) await(ctx context.Context, f func([]segment) error) error {
	return patiently(ctx, "waiting", func(ctx context.Context) error {
		all, err := k.segments(ctx)
		if err != nil {
			return err
		}
		return f(all)
	})
}

// leaders counts who leads how many.
func (k *control) leaders(ctx context.Context, ids []string) (Spread, error) {
	all, err := k.segments(ctx)
	out := Spread{Leaders: make([]int, len(ids))}
	for _, s := range all {
		if i := slices.Index(ids, s.leader); i >= 0 {
			out.Leaders[i]++
		} else {
			out.Unknown++
		}
	}
	return out, err
}

// settled waits until all nodes together know want segments, each with a leader.
func (k *control) settled(ctx context.Context, want int) error {
	return k.await(ctx, func(all []segment) error {
		led := 0
		for _, s := range all {
			if s.leader != "" {
				led++
			}
		}
		if led < want {
			return fmt.Errorf("%d segments with a leader are known, want %d", led, want)
		}
		return nil
	})
}
