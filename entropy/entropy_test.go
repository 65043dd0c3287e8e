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

// TestCharts runs testdata/charts/*: loads over time, drawn as charts. A load is
//
//	load DURATION writes=N [reads=N] [size=N] [commit=D] [queue=N] [keep=N] [count=N]
//	     [degraded] [changing] [alone] keys=PATTERN
//
// where keep and count are the bytes and keys kept at its end (they grow evenly
// until then), with the patterns
//
//	uniform:P:N   N keys below P, all alike      hot:P:N   45 % on one of them
//	zipf:P:N      few of them are busy           append:P  every key new and above
//	dirs:P:D:N    N keys in each of D folders    sweep:P:N N keys in turn
//	halves:P:N    N keys below Pa/ and Pz/      none
//
// "did ACTION" records that an action was carried out; "range START END" limits
// the segment; "again N" does all lines above N times more. Marks are offered when
// a decision seeks them. Each line of a chart is ten or more windows of a second: the pressure at
// their end (# is 100 thousandths, | the threshold), spread, hottest key, edge,
// and every decision that is new.
func TestCharts(t *testing.T) {
	datadriven.Walk(t, "testdata/charts", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			c := newChart()
			lines := strings.Split(strings.TrimSpace(d.Input), "\n")
			for i, line := range lines {
				f := strings.Fields(line)
				if f[0] != "again" {
					c.do(t, f)
					continue
				}
				n, _ := strconv.Atoi(f[1])
				for range n {
					for _, line := range lines[:i] {
						c.quiet = true
						c.do(t, strings.Fields(line))
					}
				}
			}
			return c.out.String()
		})
	})
}

type chart struct {
	out   strings.Builder
	judge *Judge
	now   time.Time
	rng   *rand.Rand
	meter sample.Meter
	shown string
	seq   int
	zipf  *rand.Zipf
	// what is kept, and whether its marks are sought
	keep, count int64
	seek        bool
	quiet       bool // draws only what is new
}

var chartStart = time.Unix(0, 0)

// chartConfig has thresholds that are cheap to reach.
func chartConfig(writes uint64) Config {
	cfg := DefaultConfig()
	t := &cfg.Thresholds
	t.WritesPerSec, t.ReadsPerSec, t.BytesPerSec, t.Size, t.Keys = writes, 20_000, 32<<20, 2<<30, 5_000_000
	return cfg
}

func newChart() *chart {
	c := &chart{now: chartStart, rng: rand.New(rand.NewPCG(1, 1))}
	cfg := chartConfig(500)
	c.judge = New(cfg, anchormesh.KeyRange{}, Birth{}, c.now)
	return c
}

func (c *chart) do(t *testing.T, f []string) {
	switch f[0] {
	case "range":
		c.judge.Resize(anchormesh.KeyRange{Start: []byte(f[1]), End: []byte(f[2])})
	case "did":
		for a := None; a <= Merge; a++ {
			if a.String() == f[1] {
				b := c.judge.Did(c.now, a)
				fmt.Fprintf(&c.out, "%7v did %v: %d reversals, split not for %v, merge not for %v\n", c.now.Sub(chartStart), a, b.Reversals,
					c.judge.rest(), c.judge.patience())
			}
		}
	case "load":
		c.load(t, f[1:])
	default:
		t.Fatalf("unknown line %q", f)
	}
}

func (c *chart) load(t *testing.T, f []string) {
	length, err := time.ParseDuration(f[0])
	if err != nil {
		t.Fatal(err)
	}
	opt := map[string]string{}
	for _, a := range f[1:] {
		k, v, _ := strings.Cut(a, "=")
		opt[k] = v
	}
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(opt[name]); err == nil {
			return n
		}
		return otherwise
	}
	keep, count := int64(number("keep", int(c.keep))), int64(number("count", int(c.count)))
	seconds := int(length / time.Second)
	every := max(10, seconds/8)
	for i := 1; i <= seconds; i++ {
		c.keep += (keep - c.keep) / int64(seconds-i+1)
		c.count += (count - c.count) / int64(seconds-i+1)
		for range number("writes", 0) {
			c.meter.Write(c.key(opt["keys"]), number("size", 100))
		}
		for range number("reads", 0) {
			c.meter.Read(c.key(opt["keys"]), number("size", 100))
		}
		w := Window{Length: time.Second, Queue: uint64(number("queue", 0)), Size: uint64(c.keep), Keys: uint64(c.count)}
		if c.seek {
			w.Marks = c.marks(opt["keys"])
		}
		w.Totals, w.Samples = c.meter.Drain()
		w.Commit, _ = time.ParseDuration(opt["commit"])
		_, w.Degraded = opt["degraded"]
		_, w.Changing = opt["changing"]
		_, w.Alone = opt["alone"]
		c.now = c.now.Add(time.Second)
		d := c.judge.Decide(c.now, w)
		c.seek = d.Seek
		c.draw(d, i%every == 0 && !c.quiet)
	}
}

// marks parts the keys of a pattern into sixteen.
func (c *chart) marks(pattern string) (out [][]byte) {
	var keys []string
	for range 1600 {
		keys = append(keys, string(c.key(pattern)))
	}
	slices.Sort(keys)
	for i := 100; i < len(keys); i += 100 {
		out = append(out, []byte(keys[i]))
	}
	return out
}

func (c *chart) draw(d Decision, regular bool) {
	news := ""
	s := d.Action.String()
	if d.Action != None || d.Numbers.Fill >= 1000 {
		s += fmt.Sprint(d.Cause, d.Seek)
	}
	if s != c.shown {
		c.shown = s
		news = fmt.Sprintf("  -> %v", d.Action)
		if d.Action == Split {
			news += fmt.Sprintf(" at %q, %d left", d.At, d.Numbers.Left)
		}
		news += ": " + d.Reason
	}
	if !regular && news == "" {
		return
	}
	n := d.Numbers
	bar := []byte(strings.Repeat(" ", 20))
	for i := range bar {
		if uint64(i)*100 < n.Pressure {
			bar[i] = '#'
		}
	}
	fill := ""
	if n.Fill > 0 {
		fill = fmt.Sprintf(" fill %4d", n.Fill)
	}
	fmt.Fprintf(&c.out, "%7v %s|%s %5d %-7s spread %4d %s hot %4d edge %4d%s%s\n", c.now.Sub(chartStart),
		bar[:10], bar[10:], n.Pressure, n.Pressing, n.Spread, dots(n.Spread), n.HotKey, n.Edge, fill, news)
}

// dots draws thousandths over ten characters.
func dots(n uint64) string {
	n = min(n, 1000) / 100
	return strings.Repeat("o", int(n)) + strings.Repeat(".", int(10-n))
}

func (c *chart) key(pattern string) []byte {
	f := strings.Split(pattern, ":")
	n := 1
	if len(f) > 2 {
		n, _ = strconv.Atoi(f[len(f)-1])
	}
	c.seq++
	switch f[0] {
	case "uniform":
		return fmt.Appendf(nil, "%s%06d", f[1], c.rng.IntN(n))
	case "hot":
		if c.rng.IntN(100) < 45 {
			return fmt.Appendf(nil, "%s%06d", f[1], n/2)
		}
		return fmt.Appendf(nil, "%s%06d", f[1], c.rng.IntN(n))
	case "zipf":
		if c.zipf == nil {
			c.zipf = rand.NewZipf(c.rng, 1.2, 1, uint64(n-1))
		}
		return fmt.Appendf(nil, "%s%06d", f[1], c.zipf.Uint64())
	case "append":
		return fmt.Appendf(nil, "%s%012d", f[1], c.seq)
	case "halves": // two ranges of N keys, with the whole keyspace between them
		return fmt.Appendf(nil, "%s%s/%06d", f[1], []string{"a", "z"}[c.rng.IntN(2)], c.rng.IntN(n))
	case "sweep":
		return fmt.Appendf(nil, "%s%06d", f[1], c.seq%n)
	case "dirs":
		d, _ := strconv.Atoi(f[2])
		return fmt.Appendf(nil, "%s%d/%06d", f[1], c.rng.IntN(d), c.rng.IntN(n))
	}
	panic("unknown pattern " + pattern)
}

// TestSketchIsBounded: whatever the keys, the sketch holds no more than its
// limit, loses no weight by joining cells, and keeps its order.
func TestSketchIsBounded(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	var s sketch
	for range 50 {
		var samples []sample.Sample
		for range sample.Keys {
			samples = append(samples, sample.Sample{Key: fmt.Appendf(nil, "%d", rng.Uint32())})
		}
		before := s.total
		s.observe(20*time.Second, time.Second, samples)
		if len(s.cells) > SketchKeys {
			t.Fatalf("seed %d: %d cells", seed, len(s.cells))
		}
		for i := 1; i < len(s.cells); i++ {
			if string(s.cells[i-1].key) >= string(s.cells[i].key) {
				t.Fatalf("seed %d: cells are out of order", seed)
			}
		}
		if want := before*20/21 + sample.Keys*unit; s.total > want || s.total < want-want/20 {
			t.Fatalf("seed %d: weight %d after %d, want about %d", seed, s.total, before, want)
		}
	}
	if s.spread() != 1000 {
		t.Errorf("seed %d: spread of random keys is %d", seed, s.spread())
	}
}

// TestSpread: n equally busy keys.
func TestSpread(t *testing.T) {
	for _, c := range []struct{ keys, want uint64 }{{1, 0}, {2, 250}, {4, 500}, {16, 1000}, {64, 1000}} {
		var s sketch
		var samples []sample.Sample
		for i := range 64 * c.keys {
			samples = append(samples, sample.Sample{Key: fmt.Appendf(nil, "%d", i%c.keys)})
		}
		s.observe(time.Second, time.Second, samples)
		if got := s.spread(); got != c.want {
			t.Errorf("%d keys: spread %d, want %d", c.keys, got, c.want)
		}
	}
}

// TestBoundary: a boundary lies above the left key, not above the right one, and
// ends at a '/' where the keys begin to differ.
func TestBoundary(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"pods/ns1/x", "pods/ns2/y", "pods/ns2/"},
		{"pods/ns1/x", "pods/ns1/y", "pods/ns1/y"},
		{"a", "b/c/d", "b/"},
		{"pods/ns1", "pods/ns1/a", "pods/ns1/"},
		{"abc", "abd", "abd"},
	} {
		got, _ := boundary([]byte(c.a), []byte(c.b))
		if string(got) != c.want {
			t.Errorf("between %q and %q: %q, want %q", c.a, c.b, got, c.want)
		}
		if string(got) <= c.a || string(got) > c.b {
			t.Errorf("%q does not lie between %q and %q", got, c.a, c.b)
		}
	}
}

// TestValidate: the default is valid; a Low that would let merged neighbours come
// near the split threshold is not.
func TestValidate(t *testing.T) {
	c := DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.Low = 251
	if c.Validate() == nil {
		t.Error("Low 251 is valid")
	}
}

func BenchmarkDecide(b *testing.B) {
	c := newChart()
	for range 8000 {
		c.meter.Write(c.key("uniform:a/:1000000"), 100)
	}
	w := Window{Length: time.Second}
	w.Totals, w.Samples = c.meter.Drain()
	b.ReportAllocs()
	for b.Loop() {
		c.now = c.now.Add(time.Second)
		c.judge.Decide(c.now, w)
	}
}
