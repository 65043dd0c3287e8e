package traffic

import (
	"context"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh/testnet/check"
)

// probesMax bounds the probes of one node that wait for their answers; when so many
// hang the next ones are left out.
const probesMax = 16

// runProbes writes one key at a steady beat, whether or not earlier writes were
// answered: what stands still shows as a gap between answers, to the beat.
func (w *worker) runProbes(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, probesMax)
	tick := time.NewTicker(w.cfg.Probe)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		r := check.Request{Kind: check.Put, Key: w.group("probe") + w.cfg.Names[w.node], Value: w.value()}
		wg.Go(func() {
			w.ask(ctx, "probe", r)
			<-slots
		})
	}
}
