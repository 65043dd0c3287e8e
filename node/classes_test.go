package node_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/node/governor"
)

func classed(c anchormesh.Class) *policy.Policy {
	return &policy.Policy{Class: c, Anchors: policy.Anchors{Count: 3}}
}

// A scope goes from normal to light and back under load: no write that was acknowledged
// is lost, no client is stuck, and the change is in force when every anchor has said that
// it is on disk.
func TestAScopeBecomesLightAndNormalAgainUnderLoad(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c := m.client()
	prefix := "/light/"
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte(prefix), Policy: classed(anchormesh.Normal)})
	stop := make(chan struct{})
	var writers sync.WaitGroup
	acked := make([]int, 4)
	for w := range acked {
		writers.Go(func() {
			for k := 1; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := c.Put(ctx, fmt.Sprintf("%s%d", prefix, w), fmt.Sprint(k)); err == nil {
					acked[w] = k
				} else if ctx.Err() != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, class := range []anchormesh.Class{anchormesh.Light, anchormesh.Normal, anchormesh.Light, anchormesh.Normal} {
		m.mustGovern(ctx, 1, governor.Change{Kind: scope.Amend, Prefix: []byte(prefix), Policy: classed(class), AnyVersion: true})
	}
	close(stop)
	writers.Wait()
	for w, k := range acked {
		resp, err := c.Get(ctx, fmt.Sprintf("%s%d", prefix, w))
		if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) < fmt.Sprint(k) && len(resp.Kvs[0].Value) <= len(fmt.Sprint(k)) {
			t.Errorf("writer %d was told of %d, and reads %v, %v", w, k, resp, err)
		}
		if k < 10 {
			t.Errorf("writer %d wrote %d times only", w, k)
		}
	}
}

// A transaction over a light scope and anything else is refused, whatever it does there,
// with a sentence; one that only has a light scope between its keys is not, nor one inside
// it. Ranges and watches go over both.
func TestALightScopeAmongOthers(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte("m/"), Policy: classed(anchormesh.Light)})
	m.split("m/5")
	c := m.client()
	watch := c.Watch(ctx, "a", clientv3.WithFromKey(), clientv3.WithCreatedNotify())
	<-watch
	refused := func(what string, err error) {
		t.Helper()
		if s, _ := status.FromError(err); s.Code() != codes.FailedPrecondition || !strings.Contains(err.Error(), "must not mix keys of a light scope with others") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := c.Txn(ctx).Then(clientv3.OpPut("a", "1"), clientv3.OpPut("m/1", "1")).Commit()
	refused("puts on both sides", err)
	_, err = c.Txn(ctx).If(clientv3.Compare(clientv3.Version("m/1"), "=", 0)).Then(clientv3.OpPut("a", "1")).Commit()
	refused("a compare in the light scope", err)
	_, err = c.Txn(ctx).Then(clientv3.OpPut("m/1", "1")).Else(clientv3.OpGet("z")).Commit()
	refused("a read elsewhere, on a branch that is not taken", err)
	_, err = c.Delete(ctx, "a", clientv3.WithFromKey())
	refused("a deletion over both", err)
	if got, err := c.Get(ctx, "a", clientv3.WithFromKey(), clientv3.WithCountOnly()); err != nil || got.Count != 0 {
		t.Errorf("%v behind refusals, %v", got, err)
	}
	outer, err := c.Txn(ctx).Then(clientv3.OpPut("a", "1"), clientv3.OpPut("z", "1")).Commit()
	if err != nil {
		t.Fatalf("a light scope between the keys: %v", err)
	}
	inner, err := c.Txn(ctx).Then(clientv3.OpPut("m/1", "1"), clientv3.OpPut("m/7", "1")).Commit()
	if err != nil {
		t.Fatalf("two segments of the light scope: %v", err)
	}
	got, err := c.Get(ctx, "a", clientv3.WithFromKey())
	if err != nil || len(got.Kvs) != 4 || got.Kvs[0].ModRevision != outer.Header.Revision || got.Kvs[2].ModRevision != inner.Header.Revision {
		t.Errorf("a range over both: %v, %v", got, err)
	}
	for seen := 0; seen < 4; {
		resp, ok := <-watch
		if !ok || resp.Err() != nil {
			t.Fatalf("a watch over both ended after %d events: %v", seen, resp.Err())
		}
		for _, e := range resp.Events {
			if want := []string{"a", "z", "m/1", "m/7"}[seen]; string(e.Kv.Key) != want {
				t.Errorf("event %d is of %s, want %s", seen, e.Kv.Key, want)
			}
			seen++
		}
	}
}

// BenchmarkClasses puts into scopes of different classes of one mesh.
func BenchmarkClasses(b *testing.B) {
	m := newMesh(b, 3)
	ctx := b.Context()
	c := m.client()
	for name, p := range map[string]*policy.Policy{"normal": classed(anchormesh.Normal), "light": classed(anchormesh.Light)} {
		m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte("/" + name + "/"), Policy: p})
	}
	for _, clients := range []int{1, 32} {
		for _, name := range []string{"light", "normal"} {
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				var mu sync.Mutex
				var took []time.Duration
				var wg sync.WaitGroup
				each := (b.N + clients - 1) / clients
				b.ResetTimer()
				for w := range clients {
					wg.Go(func() {
						mine := make([]time.Duration, 0, each)
						for k := range each {
							begin := time.Now()
							if _, err := c.Put(ctx, fmt.Sprintf("/%s/%d/%d", name, w, k%100), "value"); err != nil {
								b.Error(err)
								return
							}
							mine = append(mine, time.Since(begin))
						}
						mu.Lock()
						defer mu.Unlock()
						took = append(took, mine...)
					})
				}
				wg.Wait()
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
			})
		}
	}
}
