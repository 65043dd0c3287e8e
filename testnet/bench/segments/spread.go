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

const (
	// spreadPatience is long because a mesh moves nothing to a node that it has not
	// known for half a minute, and then one replica of a segment after the other.
	spreadPatience = 3 * time.Minute
	spreadPoll     = 300 * time.Millisecond
)

// spread gives every segment the anchors and the leader of an even seating, as far
// as the mesh can, and says what came of it. The mesh may have plans of its own, so
// each order follows a fresh look.
func (k *control) spread(ctx context.Context) (Spread, error) {
	ids, err := k.ids(ctx)
	if err != nil {
		return Spread{}, err
	}
	patience, cancel := context.WithTimeout(ctx, spreadPatience)
	defer cancel()
	var missing error
	for {
		if missing = k.arrange(patience, ids); missing == nil || hopeless(missing) || pause(patience, spreadPoll) != nil {
			break
		}
	}
	out, err := k.leaders(ctx, ids)
	if missing != nil {
		out.Missing = missing.Error()
	}
	return out, err
}

// arrange looks once, orders what is next for every segment that does not sit as it
// should, and says what is missing; nil if nothing is.
func (k *control) arrange(ctx context.Context, ids []string) error {
	all, err := k.segments(ctx)
	if err != nil {
		return err
	}
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	missing, _ := together(order, splitsAtOnce, func(i int) (error, error) {
		return k.seat(ctx, all[i], seatsOf(i, ids, len(all[i].voters))), nil
	})
	missing = slices.DeleteFunc(missing, func(err error) bool { return err == nil })
	if len(missing) == 0 {
		return nil
	}
	if i := slices.IndexFunc(missing, hopeless); i >= 0 {
		return missing[i]
	}
	return fmt.Errorf("%d segments do not sit where they were ordered, one for: %w", len(missing), missing[0])
}

func seatsOf(i int, ids []string, voters int) (out []string) {
	for _, n := range seating(i, len(ids), max(1, voters)) {
		out = append(out, ids[n])
	}
	return out
}

// seat orders the next thing that brings a segment to its seats, the leader's
// first; nil if it sits.
func (k *control) seat(ctx context.Context, s segment, seats []string) error {
	if !s.settled || s.leader == "" {
		return errors.New("its group is changing")
	}
	for _, to := range seats {
		if slices.Contains(s.voters, to) {
			continue
		}
		from := s.voters[slices.IndexFunc(s.voters, func(v string) bool { return !slices.Contains(seats, v) })]
		if err := k.move(ctx, s.id, from, to); err != nil {
			return err
		}
		return errors.New("a replica is moving")
	}
	if s.leader == seats[0] {
		return nil
	}
	if err := k.transfer(ctx, s.id, seats[0]); err != nil {
		return err
	}
	return errors.New("the leadership is moving")
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
