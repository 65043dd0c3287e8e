package segments

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/testnet/binaries"
	"github.com/anchormesh/anchormesh/testnet/cluster"
)

// Idle asks what segments cost that nobody uses.
type Idle struct {
	Config   // Warmup is rest before the window with one segment
	Segments int
	Rest     time.Duration // before the window with many: a process at rest gives memory back after a minute or two
}

const (
	idleCPUAim   = 0.02
	idleBytesAim = 20 << 10
	idleStartAim = 20 * time.Second
	idlePrefix   = "idle/"
	idleStartMax = 5 * time.Minute
)

// idleState is what nodes cost at rest.
type idleState struct {
	Segments int        `json:"segments"`
	Nodes    []idleNode `json:"nodes"`
	Other    float64    `json:"other"` // cores used by others meanwhile
}

// idleNode is what one node costs at rest. Memory is in bytes.
type idleNode struct {
	CPU        float64 `json:"cpu"` // cores
	RSS        int64   `json:"rss_bytes"`
	Anon       int64   `json:"anon_bytes"` // of RSS; the rest is pages of files
	Live       int64   `json:"live_bytes"` // of the heap, as the last collection found it
	Goroutines int64   `json:"goroutines"`
}

// each is what a segment takes of one kind of memory.
func (s idleSample) each(node int, of func(idleNode) int64) float64 {
	return float64(of(s.Many.Nodes[node])-of(s.One.Nodes[node])) / float64(s.Many.Segments-s.One.Segments)
}

type idleSample struct {
	One     idleState     `json:"one"` // with a single segment
	Many    idleState     `json:"many"`
	Cutting time.Duration `json:"cutting_ns"`
	Splits  Times         `json:"splits"`
	Leaders Spread        `json:"leaders"`
	Verify  time.Duration `json:"verify_ns"` // anchormesh verify
	Stop    time.Duration `json:"stop_ns"`   // of one node, in order
	Start   time.Duration `json:"start_ns"`  // of it, until it is ready and holds all its replicas
	// StopAll is the end of all nodes, one after the other: of the last ones no group has a
	// majority.
	StopAll time.Duration `json:"stop_all_ns"`
	Whole   time.Duration `json:"whole_ns"` // of all nodes at once, until every one is ready
}

// Run performs the benchmark.
func (b Idle) Run(ctx context.Context) (*Report, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	if b.Segments < 2 || b.Segments > b.Keys {
		return nil, errors.New("segments: idle needs two segments and a key for each")
	}
	report, err := newReport("idle", b.Config)
	if err != nil {
		return nil, err
	}
	report.Method = fmt.Sprintf("one mesh of %d nodes, cut into %d segments without keys, %d splits at once; CPU over %s after %s of rest (%s with one segment); "+
		"bytes per segment are RSS above that of the same nodes with one segment before; start-up is from the start of the process until it reports itself ready with all its replicas", b.Nodes, b.Segments, splitsAtOnce, b.Duration, b.Rest, b.Warmup)
	r, err := start(ctx, b.Config, cluster.Mesh, b.Nodes, nil)
	if err != nil {
		return nil, err
	}
	defer r.close()
	s, err := b.measure(ctx, r)
	b.judge(report, s)
	return report, err
}

func (b Idle) measure(ctx context.Context, r *rig) (s idleSample, err error) {
	if s.One, err = b.rest(ctx, r, 1, b.Warmup); err != nil {
		return s, err
	}
	b.say("one segment: %+v", s.One.Nodes)
	begin := time.Now()
	took, err := r.cutAll(ctx, starts(idlePrefix, b.Keys, b.Segments))
	s.Cutting, s.Splits = time.Since(begin), summarize(took)
	b.say("%d splits in %s, each p50 %s, p99 %s ms", len(took), s.Cutting.Round(time.Millisecond), ms(s.Splits.P50), ms(s.Splits.P99))
	if err != nil {
		return s, err
	}
	if err := r.settled(ctx, b.Segments); err != nil {
		return s, err
	}
	if s.Leaders, err = r.spread(ctx); err != nil {
		return s, err
	}
	if s.Many, err = b.rest(ctx, r, b.Segments, b.Rest); err != nil {
		return s, err
	}
	b.say("%d segments: %+v", b.Segments, s.Many.Nodes)
	if s.Verify, err = b.verify(ctx, r.c.Nodes[0]); err != nil {
		return s, err
	}
	b.say("verified in %s", s.Verify.Round(time.Millisecond))
	last := r.c.Nodes[len(r.c.Nodes)-1]
	if s.Stop, s.Start, err = b.restart(ctx, r, last); err != nil {
		return s, err
	}
	b.say("one node stopped in %s and started in %s", s.Stop.Round(time.Millisecond), s.Start.Round(time.Millisecond))
	s.StopAll, s.Whole, err = b.restart(ctx, r, r.c.Nodes...)
	return s, err
}

// idleVerifyMax is what verify may take for one answer: the nodes tell all they know.
const idleVerifyMax = "2m"

// verify has the program prove that the mesh is whole, and returns how long that took.
func (b Idle) verify(ctx context.Context, n *cluster.Node) (time.Duration, error) {
	program, err := binaries.AnchorMesh(ctx)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	out, err := exec.CommandContext(ctx, program, "verify", "--endpoint", n.Client, "--timeout", idleVerifyMax).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("verify: %w: %s", err, out)
	}
	return time.Since(begin), nil
}

// rest measures nodes that nobody asks anything.
func (b Idle) rest(ctx context.Context, r *rig, segments int, before time.Duration) (idleState, error) {
	out := idleState{Segments: segments}
	if err := pause(ctx, before); err != nil {
		return out, err
	}
	begin, err := r.read()
	if err != nil {
		return out, err
	}
	var then []time.Duration
	for _, n := range r.c.Nodes {
		u, err := n.Usage()
		if err != nil {
			return out, err
		}
		then = append(then, u.CPU)
	}
	if err := pause(ctx, b.Duration); err != nil {
		return out, err
	}
	for i, n := range r.c.Nodes {
		u, err := n.Usage()
		if err != nil {
			return out, err
		}
		node := idleNode{CPU: (u.CPU - then[i]).Seconds() / b.Duration.Seconds(), RSS: u.RSS, Anon: u.Anon}
		if err := node.ask(ctx, n); err != nil {
			return out, err
		}
		out.Nodes = append(out.Nodes, node)
	}
	end, err := r.read()
	out.Other = begin.until(end).Other
	return out, err
}

// ask adds what the node's runtime says of itself.
func (n *idleNode) ask(ctx context.Context, of *cluster.Node) error {
	values, err := scrape(ctx, of, "go_")
	n.Goroutines = int64(values["go_goroutines"])
	// The next collection is due when the heap has grown by so many per cent.
	n.Live = int64(values["go_memstats_next_gc_bytes"] / (1 + values["go_gc_gogc_percent"]/100))
	return err
}

// restart ends nodes one after the other, starts them together and returns how long
// it took until all had ended, and from there until all were ready.
func (b Idle) restart(ctx context.Context, r *rig, nodes ...*cluster.Node) (stop, start time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, idleStartMax)
	defer cancel()
	begin := time.Now()
	for _, n := range nodes {
		if err := n.Stop(ctx); err != nil {
			return 0, 0, err
		}
	}
	stop, begin = time.Since(begin), time.Now()
	for _, n := range nodes {
		if err := n.Start(); err != nil {
			return 0, 0, err
		}
	}
	for _, n := range nodes {
		if err := b.back(ctx, r, n); err != nil {
			return 0, 0, err
		}
	}
	return stop, time.Since(begin), nil
}

// back waits until a node says that it is ready and holds replicas of all.
func (b Idle) back(ctx context.Context, r *rig, n *cluster.Node) error {
	c, err := r.c.Client(n)
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		attempt, cancel := context.WithTimeout(ctx, controlAttempt)
		reply, err := meshpb.NewMeshClient(c.ActiveConnection()).Status(attempt, &meshpb.StatusRequest{})
		cancel()
		if err == nil && reply.GetReady() && int(reply.GetSegments()) >= b.Segments {
			return nil
		}
		if !n.Running() {
			return fmt.Errorf("%s ended: %s", n.Name, n.LogTail())
		}
		if pause(ctx, controlPoll) != nil {
			return fmt.Errorf("%s holds %d of %d replicas, problems %v: %w", n.Name, reply.GetSegments(), b.Segments, reply.GetProblems(), ctx.Err())
		}
	}
}

func (b Idle) judge(report *Report, s idleSample) {
	report.Samples = s
	if len(s.One.Nodes) == 0 || len(s.Many.Nodes) == 0 {
		return
	}
	n := s.Many.Segments
	report.Table = [][]string{{"node", "CPU, 1 segment", fmt.Sprintf("CPU, %d", n), "RSS MiB, 1", fmt.Sprintf("RSS MiB, %d", n),
		"KiB per segment", "own memory", "file pages", "live on the heap", "goroutines, 1", fmt.Sprintf("%d", n)}}
	var cpu, bytes float64
	for i, many := range s.Many.Nodes {
		one := s.One.Nodes[i]
		each := s.each(i, func(n idleNode) int64 { return n.RSS })
		cpu, bytes = max(cpu, many.CPU), max(bytes, each)
		kib := func(bytes float64) string { return fmt.Sprintf("%.1f", bytes/1024) }
		report.Table = append(report.Table, []string{fmt.Sprintf("n%d", i+1),
			fmt.Sprintf("%.2f %%", 100*one.CPU), fmt.Sprintf("%.2f %%", 100*many.CPU),
			fmt.Sprintf("%.1f", float64(one.RSS)/(1<<20)), fmt.Sprintf("%.1f", float64(many.RSS)/(1<<20)), kib(each),
			kib(s.each(i, func(n idleNode) int64 { return n.Anon })), kib(s.each(i, func(n idleNode) int64 { return n.RSS - n.Anon })),
			kib(s.each(i, func(n idleNode) int64 { return n.Live })), fmt.Sprint(one.Goroutines), fmt.Sprint(many.Goroutines)})
	}
	report.Notes = []string{
		fmt.Sprintf("%d splits took %s; one request p50 %s, p99 %s, max %s ms", s.Splits.Count, s.Cutting.Round(time.Millisecond), ms(s.Splits.P50), ms(s.Splits.P99), ms(s.Splits.Max)),
		"leaders by node: " + s.Leaders.String(),
		fmt.Sprintf("other processes used %.2f cores meanwhile", s.Many.Other),
		fmt.Sprintf("anchormesh verify took %s", s.Verify.Round(time.Millisecond)),
		fmt.Sprintf("one node stopped in order in %s, all one after the other in %s", s.Stop.Round(time.Millisecond), s.StopAll.Round(time.Millisecond)),
		fmt.Sprintf("all nodes started together in %s", s.Whole.Round(time.Millisecond)),
	}
	report.Verdicts = []Verdict{
		{Aim: fmt.Sprintf("%d idle segments under %.0f %% of a core on every node", n, 100*idleCPUAim), Found: fmt.Sprintf("at most %.2f %%", 100*cpu), Met: cpu < idleCPUAim},
		{Aim: fmt.Sprintf("under %d KiB of memory each", idleBytesAim>>10), Found: fmt.Sprintf("at most %.1f KiB", bytes/1024), Met: bytes < idleBytesAim},
		{Aim: fmt.Sprintf("a node with %d segments starts in under %s", n, idleStartAim), Found: s.Start.Round(time.Millisecond).String(), Met: s.Start > 0 && s.Start < idleStartAim},
	}
}
