package structure

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// tallyEvery is how often nodes are asked what they have done: what one did since,
// when it is killed, is not counted.
const tallyEvery = 400 * time.Millisecond

// Tally counts what nodes do to their structure by themselves, from their metrics. It
// counts at most what happened: a node that is killed takes its last moments with it.
type Tally struct {
	running sync.WaitGroup
	stop    context.CancelFunc
	nodes   []tallied
	count   map[string]int
}

// tallied is what a node's process has said last, by kind of change.
type tallied map[string]int

// automatic are the samples that count changes nobody ordered.
var automatic = map[string]string{
	`anchormesh_structure_splits_total{cause="load"}`:   "split",
	`anchormesh_structure_merges_total{outcome="load"}`: "merge",
}

// StartTally begins to count at the given metrics URLs; Stop ends it.
func StartTally(ctx context.Context, urls []string) *Tally {
	t := &Tally{nodes: make([]tallied, len(urls)), count: map[string]int{}}
	ctx, t.stop = context.WithCancel(ctx)
	t.running.Go(func() {
		tick := time.NewTicker(tallyEvery)
		defer tick.Stop()
		for {
			for i, url := range urls {
				t.look(ctx, i, url)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return t
}

// Stop ends the count and returns it, by kind of change.
func (t *Tally) Stop() map[string]int {
	t.stop()
	t.running.Wait()
	return t.count
}

// look asks one node. One that does not answer is asked again at the next look.
func (t *Tally) look(ctx context.Context, i int, url string) {
	ctx, cancel := context.WithTimeout(ctx, tallyEvery)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	if now, err := samples(answer.Body); err == nil {
		t.take(i, now)
	}
}

// take adds what a node has done since it was last asked. Counters that fell, or are
// gone, are a new process's.
func (t *Tally) take(i int, now tallied) {
	before := t.nodes[i]
	for _, kind := range automatic {
		if now[kind] < before[kind] {
			before = nil
		}
	}
	for _, kind := range automatic {
		t.count[kind] += now[kind] - before[kind]
	}
	t.nodes[i] = now
}

// samples reads the counters from a page of metrics.
func samples(page io.Reader) (tallied, error) {
	out := tallied{}
	lines := bufio.NewScanner(page)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if kind, wanted := automatic[name]; wanted {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return nil, fmt.Errorf("metrics: %q: %w", lines.Text(), err)
			}
			out[kind] = int(n)
		}
	}
	return out, lines.Err()
}
