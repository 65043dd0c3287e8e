package load

import (
	"context"
	"encoding/binary"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// stampBytes is the time at the beginning of a value put by "watch".
const stampBytes = 8

// processStart is the zero of stamps; they never leave this process.
var processStart = time.Now()

// driveWatch is the writer for the last id and a watcher for all others.
func driveWatch(ctx context.Context, s *session, id int, m *meter) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := s.conns[id%len(s.conns)]
	if id == s.cfg.Clients {
		writeStamps(ctx, s, c, m)
		return
	}
	stop := make(chan struct{})
	defer close(stop)
	go endWith(ctx, cancel, stop, s)
	for resp := range c.Watch(ctx, s.cfg.Prefix, clientv3.WithPrefix()) {
		now := time.Since(processStart)
		if err := resp.Err(); err != nil {
			m.lost(err)
			return
		}
		for _, ev := range resp.Events {
			if sent, ok := stampOf(ev.Kv.Value); ok {
				m.observe(now-sent, nil)
			}
		}
	}
}

// phasePoll is how often a watcher without events looks whether the run is over.
const phasePoll = 50 * time.Millisecond

// endWith cancels a watch when the run is over: no event would tell it.
func endWith(ctx context.Context, cancel func(), stop <-chan struct{}, s *session) {
	tick := time.NewTicker(phasePoll)
	defer tick.Stop()
	for s.phase.Load() != phaseDone {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	cancel()
}

// writeStamps puts the time at a fixed rate. Failures are counted, successes are
// not: the watchers' events are the operations.
func writeStamps(ctx context.Context, s *session, c *clientv3.Client, m *meter) {
	rng := s.random(s.cfg.Clients)
	value := []byte(randomValue(rng, s.cfg.ValueSize))
	tick := time.NewTicker(time.Second / time.Duration(s.cfg.WatchRate))
	defer tick.Stop()
	for !m.done() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		binary.BigEndian.PutUint64(value, uint64(time.Since(processStart)))
		if _, err := c.Put(ctx, s.keys[rng.IntN(len(s.keys))], string(value)); err != nil {
			m.observe(0, err)
		}
	}
}

func stampOf(value []byte) (time.Duration, bool) {
	if len(value) < stampBytes {
		return 0, false
	}
	return time.Duration(binary.BigEndian.Uint64(value)), true
}
