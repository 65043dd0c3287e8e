package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"
)

const (
	prepareTimeout = 2 * time.Minute  // filling keys, granting leases
	drainTimeout   = 30 * time.Second // for requests in flight when the window closes
	errorPause     = 10 * time.Millisecond
)

// ErrAllFailed is returned when the window saw errors and not one success: a
// throughput of zero is no measurement.
var ErrAllFailed = errors.New("load: every operation failed")

// session is what the clients of one run share.
type session struct {
	cfg   Config
	conns []*clientv3.Client
	keys  []string
	began time.Time // of timetables
	phase atomic.Int32
	first atomic.Pointer[string] // what the first failure in the window said
}

// The phases of a run, in order.
const (
	phaseWarmup int32 = iota
	phaseMeasure
	phaseDone
)

// meter collects what one client measured. Only that client uses it while the
// run lasts.
type meter struct {
	s      *session
	hist   histogram
	errors map[string]uint64
}

// done reports whether the client shall stop.
func (m *meter) done() bool { return m.s.phase.Load() == phaseDone }

// observe counts an operation that ended now, if now is in the window.
func (m *meter) observe(latency time.Duration, err error) {
	if m.s.phase.Load() != phaseMeasure {
		return
	}
	if err != nil {
		m.lost(err)
		return
	}
	m.hist.record(latency)
}

// lost counts the error that made a client give up, in whatever phase: a run
// with fewer clients than it says would flatter the server.
func (m *meter) lost(err error) {
	m.errors[codeOf(err)]++
	text := err.Error()
	m.s.first.CompareAndSwap(nil, &text)
}

// codeOf returns the name of an error's gRPC code. clientv3 turns the errors it
// knows into a type of its own.
func codeOf(err error) string {
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		return known.Code().String()
	}
	return status.Code(err).String()
}

// Run performs one run.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if err := cfg.Validate(); err != nil {
		return Result{}, err
	}
	s := &session{cfg: cfg, keys: keySpace(cfg.Prefix, cfg.Keys)}
	defer s.close()
	if err := s.dial(); err != nil {
		return Result{}, err
	}
	w := workloads[cfg.Workload]
	if err := s.prepare(ctx, w); err != nil {
		return Result{}, fmt.Errorf("load: prepare %s: %w", cfg.Workload, err)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Warmup+cfg.Duration+drainTimeout)
	defer cancel()
	meters, wait := s.start(ctx, w)
	window, err := s.measure(ctx)
	wait()
	if err != nil {
		return Result{}, err
	}
	return s.result(meters, window)
}

func keySpace(prefix string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s%010d", prefix, i)
	}
	return keys
}

func (s *session) dial() error {
	for i := range s.cfg.connections() {
		c, err := clientv3.New(clientv3.Config{
			Endpoints:   []string{s.cfg.Endpoints[i%len(s.cfg.Endpoints)]},
			DialTimeout: 5 * time.Second,
			Logger:      zap.NewNop(),
		})
		if err != nil {
			return err
		}
		s.conns = append(s.conns, c)
	}
	return nil
}

func (s *session) close() {
	for _, c := range s.conns {
		c.Close()
	}
}

func (s *session) prepare(ctx context.Context, w workload) error {
	if w.prepare == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	return w.prepare(ctx, s)
}

// start starts the clients; wait returns when all have stopped.
func (s *session) start(ctx context.Context, w workload) (meters []*meter, wait func()) {
	var wg sync.WaitGroup
	s.began = time.Now()
	for i := range s.cfg.Clients + w.extra {
		m := &meter{s: s, errors: map[string]uint64{}}
		meters = append(meters, m)
		wg.Go(func() { w.drive(ctx, s, i, m) })
	}
	return meters, wg.Wait
}

// window is the measured time and what this process spent in it.
type window struct {
	length, cpu time.Duration
}

// measure walks through the phases.
func (s *session) measure(ctx context.Context) (window, error) {
	defer s.phase.Store(phaseDone)
	if err := pause(ctx, s.cfg.Warmup); err != nil {
		return window{}, err
	}
	if s.cfg.Opened != nil {
		s.cfg.Opened()
	}
	cpu, start := ownCPU(), time.Now()
	s.phase.Store(phaseMeasure)
	err := pause(ctx, s.cfg.Duration)
	s.phase.Store(phaseDone)
	win := window{length: time.Since(start), cpu: ownCPU() - cpu}
	if s.cfg.Closed != nil {
		s.cfg.Closed()
	}
	return win, err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// ownCPU returns user and system time of this process.
func ownCPU() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func (s *session) result(meters []*meter, win window) (Result, error) {
	var all histogram
	failures := map[string]uint64{}
	for _, m := range meters {
		all.merge(&m.hist)
		for code, n := range m.errors {
			failures[code] += n
		}
	}
	r := Result{
		Workload:       s.cfg.Workload,
		Clients:        s.cfg.Clients,
		Conns:          len(s.conns),
		Keys:           s.cfg.Keys,
		ValueSize:      s.cfg.ValueSize,
		Seconds:        win.length.Seconds(),
		Ops:            all.count,
		Throughput:     float64(all.count) / win.length.Seconds(),
		Latency:        summarize(&all),
		Errors:         failures,
		LoadCPUSeconds: win.cpu.Seconds(),
	}
	if text := s.first.Load(); text != nil {
		r.FirstError = *text
	}
	if r.Ops == 0 {
		if r.Failed() > 0 {
			return r, fmt.Errorf("%w: %v, the first: %s", ErrAllFailed, failures, r.FirstError)
		}
		return r, errors.New("load: no operation completed in the window")
	}
	r.LoadCPUMicrosPerOp = micros(win.cpu) / float64(r.Ops)
	return r, nil
}

// random returns the deterministic source of one client.
func (s *session) random(id int) *rand.Rand {
	return rand.New(rand.NewPCG(s.cfg.Seed, uint64(id)))
}
