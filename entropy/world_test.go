package entropy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/entropy/sample"
	"github.com/cockroachdb/datadriven"
)

// TestWorlds runs testdata/worlds/*: a keyspace whose segments are really split
// and merged as they ask, each by a judge of its own, over hours. A line of a
// world is
//
//	DURATION WRITES/S PATTERN
//
// with a chart's patterns, at a threshold of 100 writes per second; "again N"
// repeats all above; "new leaders" makes every judge forget, but for what the
// evidence says; "most N" is the number of changes that may have happened so far
// and ends what is drawn only once.
// The chart shows, over time, the highest pressure, the number of segments and
// every change.
func TestWorlds(t *testing.T) {
	datadriven.Walk(t, "testdata/worlds", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w := newWorld()
			lines := strings.Split(strings.TrimSpace(d.Input), "\n")
			for i, line := range lines {
				f := strings.Fields(line)
				if f[0] != "again" {
					w.do(t, f)
					continue
				}
				for n, _ := strconv.Atoi(f[1]); n > 0; n-- {
					w.quiet = true
					for _, line := range lines[:i] {
						w.do(t, strings.Fields(line))
					}
				}
			}
			return w.out.String()
		})
	})
}

type world struct {
	out      strings.Builder
	keys     *chart // for its patterns
	config   Config
	now      time.Time
	segments []*piece
	changes  int
	owed     int // writes not sampled yet
	quiet    bool
}

// piece is one segment.
type piece struct {
	rng   anchormesh.KeyRange
	judge *Judge
	win   Window
	says  Decision
	told  Evidence // of its last change
}

func newWorld() *world {
	w := &world{keys: newChart(), config: chartConfig(100), now: chartStart}
	w.segments = []*piece{w.piece(anchormesh.KeyRange{}, Evidence{})}
	return w
}

func (w *world) piece(rng anchormesh.KeyRange, told Evidence) *piece {
	return &piece{rng: rng, told: told, judge: New(w.config, rng, told.Birth(), w.now)}
}

// worldWindow is the length of a window.
const worldWindow = 5 * time.Second

func (w *world) do(t *testing.T, f []string) {
	switch f[0] {
	case "new":
		for _, p := range w.segments {
			p.judge = New(w.config, p.rng, p.told.Birth(), w.now)
		}
		return
	case "most":
		w.quiet = false
		w.draw()
		if n, _ := strconv.Atoi(f[1]); w.changes > n {
			t.Errorf("%d changes after %v, want at most %d", w.changes, w.now.Sub(chartStart), n)
		}
		return
	}
	length, err := time.ParseDuration(f[0])
	if err != nil {
		t.Fatal(err)
	}
	perSec, _ := strconv.Atoi(f[1])
	w.keys.zipf = nil
	for end, shown := w.now.Add(length), w.now; w.now.Before(end); {
		w.window(perSec, f[2])
		if w.now.Sub(shown) >= max(length/4, 10*time.Minute) || !w.now.Before(end) {
			shown = w.now
			w.draw()
		}
	}
}

func (w *world) window(perSec int, pattern string) {
	w.now = w.now.Add(worldWindow)
	for _, p := range w.segments {
		p.win = Window{Length: worldWindow}
	}
	// Only what would be sampled is drawn; it stands for all.
	for w.owed += perSec * int(worldWindow/time.Second); w.owed >= sample.Rate; w.owed -= sample.Rate {
		key := w.keys.key(pattern)
		i, _ := slices.BinarySearchFunc(w.segments, key, func(p *piece, k []byte) int {
			if string(p.rng.Start) <= string(k) {
				return -1
			}
			return 1
		})
		win := &w.segments[i-1].win
		win.Totals.Writes += sample.Rate
		win.Samples = append(win.Samples, sample.Sample{Key: key, Write: true})
	}
	for _, p := range w.segments {
		p.says = p.judge.Decide(w.now, p.win)
	}
	w.split()
	w.merge()
}

func (w *world) split() {
	for i := 0; i < len(w.segments); i++ {
		p := w.segments[i]
		if p.says.Action != Split {
			continue
		}
		p.told = p.says.Evidence()
		p.judge.Did(w.now, Split)
		right := w.piece(anchormesh.KeyRange{Start: p.says.At, End: p.rng.End}, p.told)
		p.rng.End = p.says.At
		p.judge.Resize(p.rng)
		w.segments = slices.Insert(w.segments, i+1, right)
		i++
		w.event("split at %q: %s", right.rng.Start, p.says.Reason)
	}
}

func (w *world) merge() {
	for i := 0; i+1 < len(w.segments); i++ {
		l, r := w.segments[i], w.segments[i+1]
		if l.says.Action != Merge || r.says.Action != Merge || l.says.Numbers.Peak+r.says.Numbers.Peak > 500 {
			continue
		}
		l.told = l.says.Evidence()
		l.judge.Did(w.now, Merge)
		l.rng.End = r.rng.End
		l.judge.Resize(l.rng)
		w.segments = slices.Delete(w.segments, i+1, i+2)
		w.event("merged at %q: %s", r.rng.Start, l.says.Reason)
	}
}

func (w *world) event(format string, args ...any) {
	w.changes++
	fmt.Fprintf(&w.out, "%9v %31s %s\n", w.now.Sub(chartStart), "", fmt.Sprintf(format, args...))
}

func (w *world) draw() {
	if w.quiet {
		return
	}
	highest := uint64(0)
	for _, p := range w.segments {
		highest = max(highest, p.says.Numbers.Pressure)
	}
	bar := []byte(strings.Repeat(" ", 20))
	for i := range bar {
		if uint64(i)*100 < highest {
			bar[i] = '#'
		}
	}
	fmt.Fprintf(&w.out, "%9v %s|%s %5d %s\n", w.now.Sub(chartStart), bar[:10], bar[10:], highest, strings.Repeat("=", len(w.segments)))
}

// TestNoFlapping drives a keyspace with random loads for a simulated day and
// counts: a segment may not go back and forth, and no pressure that a split can
// cure may last.
func TestNoFlapping(t *testing.T) {
	if testing.Short() {
		t.Skip("a simulated day")
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 4))
	for range 2 {
		w := newWorld()
		w.quiet = true
		high, low := 100+rng.IntN(150), rng.IntN(20)
		on, off := time.Duration(1+rng.IntN(60))*time.Minute, time.Duration(1+rng.IntN(90))*time.Minute
		for w.now.Sub(chartStart) < 24*time.Hour {
			w.do(t, []string{on.String(), strconv.Itoa(high), "uniform:a/:1000"})
			w.do(t, []string{off.String(), strconv.Itoa(low), "uniform:a/:1000"})
		}
		// Ten waits double from half an hour to 32 hours: a pair of segments goes back
		// and forth a handful of times; four of them can be made.
		if w.changes > 24 {
			t.Errorf("seed %d: %d changes in a day of %v at %d and %v at %d writes per second:\n%s", seed, w.changes, on, high, off, low, w.out.String())
		}
	}
}
