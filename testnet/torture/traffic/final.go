package traffic

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/anchormesh/anchormesh/testnet/check"
)

// insist repeats a request until it is answered. Each try writes a value of its own.
func (w *worker) insist(ctx context.Context, r check.Request) (*check.Result, error) {
	for {
		if res := w.ask(ctx, "final", r); res != nil {
			return res, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("traffic: the last requests are not answered: %w", ctx.Err())
		}
		if r.Value != "" {
			r.Value = w.value()
		}
		w.pause(ctx, retryPause)
	}
}

// groups returns every group that was asked for, in order.
func (w *worker) groups() []string {
	w.rec.mu.Lock()
	defer w.rec.mu.Unlock()
	out := map[string]bool{}
	for i := range w.rec.log.Ops {
		op := &w.rec.log.Ops[i]
		for _, r := range append([]check.Request{op.Request}, op.Then...) {
			if r.Key != "" {
				out[Group(r.Key)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// Group returns the group of a key: its text up to the last '/'.
func Group(key string) string { return key[:strings.LastIndexByte(key, '/')+1] }
