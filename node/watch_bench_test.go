package node_test

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// BenchmarkWatchDelay writes to a mesh of three nodes in this process and reports, of
// watches through the node that leads, and through another, how long after the write
// was sent its event came: of the same writes over one segment and over four, and
// before the first split.
//
//	go test -run '^$' -bench WatchDelay -benchtime 4000x ./node
func BenchmarkWatchDelay(b *testing.B) {
	b.Run("unsplit", func(b *testing.B) { watchDelay(b, nil) })
	b.Run("split", func(b *testing.B) { watchDelay(b, []string{keyAt(250), keyAt(500), keyAt(750)}) })
}

func watchDelay(b *testing.B, cuts []string) {
	m := newMesh(b, 3)
	for _, at := range cuts {
		m.cutAt(at)
	}
	leader := m.leader()
	ctx := b.Context()
	put(ctx, b, m.client(), keyAt(0), "0")
	var all []*delays
	for _, node := range []int{leader, (leader + 1) % 3} {
		where := "leader"
		if node != leader {
			where = "other"
		}
		for _, end := range []int{250, keyspan} {
			d := &delays{name: fmt.Sprintf("%s-%dseg", where, end/250), came: make(map[int64]time.Time)}
			d.follow(m.client(node).Watch(ctx, keyAt(0), clientv3.WithRange(keyAt(end)), clientv3.WithCreatedNotify()))
			all = append(all, d)
		}
	}
	const writers = 4
	sent := make(map[int64]time.Time, b.N)
	var mu sync.Mutex
	var wait sync.WaitGroup
	b.ResetTimer()
	for w := range writers {
		c := m.client()
		wait.Go(func() {
			for n := w; n < b.N; n += writers {
				// Every fourth write goes to the segment that both watches have.
				key := keyAt((n / writers % 4 * 250) + n%250)
				start := time.Now()
				resp, err := c.Put(ctx, key, strconv.Itoa(n))
				if err != nil {
					b.Error(err)
					return
				}
				if key < keyAt(250) {
					mu.Lock()
					sent[resp.Header.Revision] = start
					mu.Unlock()
				}
			}
		})
	}
	wait.Wait()
	b.StopTimer()
	for _, d := range all {
		m.eventually(20*time.Second, "events of "+d.name, func() bool { return d.has(sent) })
		list := d.against(sent)
		b.ReportMetric(float64(list[len(list)/2].Microseconds()), d.name+"-p50-us")
		b.ReportMetric(float64(list[len(list)*99/100].Microseconds()), d.name+"-p99-us")
	}
}

// delays notes when the events of a watch came.
type delays struct {
	name string
	mu   sync.Mutex
	came map[int64]time.Time
}

// follow returns when the watch is created.
func (d *delays) follow(ch clientv3.WatchChan) {
	<-ch
	go func() {
		for r := range ch {
			now := time.Now()
			d.mu.Lock()
			for _, ev := range r.Events {
				d.came[ev.Kv.ModRevision] = now
			}
			d.mu.Unlock()
		}
	}()
}

func (d *delays) has(sent map[int64]time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for rev := range sent {
		if _, ok := d.came[rev]; !ok {
			return false
		}
	}
	return true
}

func (d *delays) against(sent map[int64]time.Time) (out []time.Duration) {
	for rev, at := range sent {
		out = append(out, d.came[rev].Sub(at))
	}
	slices.Sort(out)
	return out
}
