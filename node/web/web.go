package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"
)

const (
	// headerTimeout cuts off clients that never finish asking.
	headerTimeout = 5 * time.Second
	// idleTimeout closes connections that nobody uses.
	idleTimeout = time.Minute
	// stopTimeout is how long answers under way may take once the node stops.
	stopTimeout = time.Second
	// wordTimeout is how long a check whose time is over may take to say why.
	wordTimeout = 100 * time.Millisecond
)

// Check is one condition of readiness.
type Check struct {
	Name string // one word
	Func func(context.Context) error
}

// Config says what is served.
type Config struct {
	// Checks must all pass for the node to be ready.
	Checks []Check
	// CheckTimeout bounds each check: less than a monitor's own timeout, more
	// than an election.
	CheckTimeout time.Duration
	// ChecksMax bounds the /readyz requests at work at once.
	ChecksMax int
	// Metrics answers /metrics; nil: not found.
	Metrics http.Handler
	// Pprof serves /debug/pprof/.
	Pprof bool
	// Logger hears what the HTTP server has to say about bad clients.
	Logger *slog.Logger
}

// Default returns a configuration without checks.
func Default() Config {
	return Config{CheckTimeout: 3 * time.Second, ChecksMax: 8, Logger: slog.New(slog.DiscardHandler)}
}

// Validate reports the first field that cannot work.
func (c *Config) Validate() error {
	switch {
	case c.CheckTimeout <= 0:
		return errors.New("web: the check timeout must be above zero")
	case c.ChecksMax <= 0:
		return errors.New("web: at least one check must be allowed at once")
	case c.Logger == nil:
		return errors.New("web: no logger")
	}
	return nil
}

// Handler serves what cfg, which must be valid, describes.
func Handler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("GET /readyz", &readiness{cfg: cfg, room: make(chan struct{}, cfg.ChecksMax)})
	if cfg.Metrics != nil {
		mux.Handle("GET /metrics", cfg.Metrics)
	}
	if cfg.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// Serve answers on l until ctx ends, then lets answers under way finish for a
// second. It closes l.
func Serve(ctx context.Context, l net.Listener, cfg Config) error {
	server := &http.Server{
		Handler: Handler(cfg), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err := server.Shutdown(grace)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
		stopped <- err
	})
	err := server.Serve(l)
	if stop() { // ctx has not ended: the listener failed
		return fmt.Errorf("http: %w", err)
	}
	return <-stopped
}

// readiness answers /readyz.
type readiness struct {
	cfg  Config
	room chan struct{}
}

func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	select {
	case r.room <- struct{}{}:
		defer func() { <-r.room }()
	default:
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "more than %d checks at once\n", r.cfg.ChecksMax)
		return
	}
	lines, ready := r.checkAll(req.Context())
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprint(w, strings.Join(lines, ""))
}

// checkAll runs all checks at once and returns one line for each, in their order.
func (r *readiness) checkAll(ctx context.Context) (lines []string, ready bool) {
	late, end := context.WithTimeout(ctx, r.cfg.CheckTimeout+wordTimeout)
	defer end()
	ctx, cancel := context.WithTimeout(late, r.cfg.CheckTimeout)
	defer cancel()
	results := make([]chan error, len(r.cfg.Checks))
	for i, c := range r.cfg.Checks {
		results[i] = make(chan error, 1)
		go func() { results[i] <- c.Func(ctx) }()
	}
	ready = true
	for i, c := range r.cfg.Checks {
		var err error
		select {
		case err = <-results[i]:
		case <-late.Done():
			// A check that does not heed its context is left behind; one that
			// answered while another was waited for is not.
			select {
			case err = <-results[i]:
			default:
				err = context.DeadlineExceeded
			}
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v", r.cfg.CheckTimeout)
		}
		if err != nil {
			ready = false
			lines = append(lines, fmt.Sprintf("%s failed: %v\n", c.Name, err))
			continue
		}
		lines = append(lines, c.Name+" ok\n")
	}
	if len(lines) == 0 {
		lines = append(lines, "ok\n")
	}
	return lines, ready
}
