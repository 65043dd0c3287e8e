package web

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func get(h http.Handler, path string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, w.Body.String()
}

func pass(context.Context) error { return nil }
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestReadyzNamesWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Default()
		never := make(chan struct{})
		defer close(never)
		cfg.Checks = []Check{
			{"read", hang}, {"disk", pass}, {"log", func(context.Context) error { return errors.New("corrupt") }},
			{"deaf", func(context.Context) error { <-never; return nil }},
			{"sorry", func(ctx context.Context) error { <-ctx.Done(); return errors.New("no leader") }},
		}
		begin := time.Now()
		code, body := get(Handler(cfg), "/readyz")
		want := "read failed: no answer within 3s\ndisk ok\nlog failed: corrupt\ndeaf failed: no answer within 3s\nsorry failed: no leader\n"
		if code != 503 || body != want || time.Since(begin) != 3*time.Second+wordTimeout {
			t.Fatalf("%d after %v:\n%s", code, time.Since(begin), body)
		}
	})
}

func TestReadyzPasses(t *testing.T) {
	cfg := Default()
	cfg.Checks = []Check{{"read", pass}}
	if code, body := get(Handler(cfg), "/readyz"); code != 200 || body != "read ok\n" {
		t.Fatalf("%d %q", code, body)
	}
	if code, body := get(Handler(Default()), "/readyz"); code != 200 || body != "ok\n" {
		t.Fatalf("without checks: %d %q", code, body)
	}
}

func TestReadyzIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Default()
		cfg.ChecksMax, cfg.Checks = 1, []Check{{"read", hang}}
		h := Handler(cfg)
		first := make(chan int)
		go func() { code, _ := get(h, "/readyz"); first <- code }()
		synctest.Wait()
		if code, body := get(h, "/readyz"); code != 503 || body != "more than 1 checks at once\n" {
			t.Errorf("%d %q", code, body)
		}
		<-first
		if code, body := get(h, "/readyz"); code != 503 || !strings.HasPrefix(body, "read failed") {
			t.Errorf("the room was not given back: %d %q", code, body)
		}
	})
}

func TestPaths(t *testing.T) {
	cfg := Default()
	cfg.Checks = []Check{{"read", hang}} // must not matter for /healthz
	if code, body := get(Handler(cfg), "/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/"} {
		if code, _ := get(Handler(cfg), path); code != 404 {
			t.Errorf("%s answers %d without being asked for", path, code)
		}
	}
	cfg.Pprof = true
	cfg.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "m 1\n") })
	if code, body := get(Handler(cfg), "/metrics"); code != 200 || body != "m 1\n" {
		t.Errorf("/metrics: %d %q", code, body)
	}
	if code, _ := get(Handler(cfg), "/debug/pprof/"); code != 200 {
		t.Errorf("pprof: %d", code)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, Default()) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Fatal("the port is still open")
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := Serve(t.Context(), l, Default()); err == nil || !strings.HasPrefix(err.Error(), "http: ") {
		t.Fatalf("got %v", err)
	}
}
