package differential

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/target"
)

var (
	firstSeed = flag.Uint64("seed", 1, "first seed of the differential test")
	seeds     = flag.Int("seeds", 0, "number of seeds; 0: 40, with -short 8")
	length    = flag.Int("length", 150, "calls per sequence")
)

// shrinkTries bounds the effort to shorten a failing sequence.
const shrinkTries = 150

// TestTargetAnswersLikeEtcd is the differential test. The target is chosen by
// package target, or by TESTNET_ENDPOINT, the client URL of a server whose
// data may be destroyed.
//
//	go test ./testnet/differential -run Target -args -seed 17 -seeds 1
func TestTargetAnswersLikeEtcd(t *testing.T) {
	endpoint, name, isEtcd := os.Getenv("TESTNET_ENDPOINT"), "endpoint", false
	if endpoint == "" {
		c := target.Start(t, 1)
		endpoint, name, isEtcd = c.Nodes[0].Endpoint(), string(c.Kind), c.Kind == cluster.Etcd
	}
	subject := dial(t, name, endpoint)
	subject.Etcd = isEtcd
	compareSeeds(t, startReference(t), subject)
}

// A multi-node target answers the same through a node that may not lead.
func TestThreeNodesAnswerLikeEtcd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three more nodes")
	}
	c := target.Start(t, 3)
	subject := dial(t, string(c.Kind), c.Nodes[2].Endpoint())
	subject.Etcd = c.Kind == cluster.Etcd
	compareSeeds(t, startReference(t), subject)
}

func compareSeeds(t *testing.T, reference, subject *Server) {
	n := *seeds
	if n == 0 {
		n = 30
		if testing.Short() || subject.Line {
			n = 8
		}
	}
	for seed := *firstSeed; seed < *firstSeed+uint64(n); seed++ {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		diff, err := Compare(ctx, reference, subject, Generate(seed, *length))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if diff != nil {
			t.Errorf("seed %d: %s", seed, Shrink(ctx, reference, subject, diff, shrinkTries))
		}
		cancel()
		if t.Failed() {
			return
		}
	}
	t.Logf("%d seeds from %d, %d calls each", n, *firstSeed, *length)
}

// startReference starts the real etcd. It need not survive a crash.
func startReference(t *testing.T) *Server {
	c := target.StartKind(t, cluster.Etcd, 1, "--unsafe-no-fsync")
	s := dial(t, "etcd", c.Nodes[0].Endpoint())
	s.Etcd = true
	return s
}

func dial(t *testing.T, name, endpoint string) *Server {
	s, err := Dial(name, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// A seed is a test case: it must always mean the same calls.
func TestGenerateIsAFunctionOfTheSeed(t *testing.T) {
	a, b, c := Generate(3, 300), Generate(3, 300), Generate(4, 300)
	same := true
	for i := range a {
		if a[i].String() != b[i].String() {
			t.Fatalf("call %d differs between two runs: %s, %s", i, a[i], b[i])
		}
		same = same && a[i].String() == c[i].String()
	}
	if same {
		t.Fatal("two seeds gave the same calls")
	}
}

// Differences planted into answers of a real etcd are found, and shortened to
// about the calls that are needed to show them.
func TestPlantedDifferencesAreCaught(t *testing.T) {
	reference, subject := startReference(t), startReference(t)
	for name, plant := range map[string]struct {
		tamper func(Op, *answer)
		atMost int // calls that the shortened sequence may have; a revision in a call holds on to the writes before it
	}{
		"more is lost": {func(_ Op, a *answer) {
			if r, ok := a.message.(*pb.RangeResponse); ok && a.err == nil {
				r.More = false
			}
		}, 15},
		"deleted counts one too many": {func(_ Op, a *answer) {
			if r, ok := a.message.(*pb.DeleteRangeResponse); ok && a.err == nil && r.Deleted > 1 {
				r.Deleted++
			}
		}, 15},
		"hash": {func(_ Op, a *answer) {
			if r, ok := a.message.(*pb.HashKVResponse); ok && a.err == nil {
				r.Hash++
			}
		}, 1},
		"error text": {func(_ Op, a *answer) {
			if a.err != nil {
				a.err = context.DeadlineExceeded
			}
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			subject.tamper = plant.tamper
			defer func() { subject.tamper = nil }()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			var diff *Mismatch
			var err error
			for seed := uint64(1); diff == nil && err == nil && seed <= 10; seed++ {
				diff, err = Compare(ctx, reference, subject, Generate(seed, 100))
			}
			if err != nil || diff == nil {
				t.Fatalf("not caught: %v", err)
			}
			short := Shrink(ctx, reference, subject, diff, shrinkTries)
			if len(short.Ops) > plant.atMost {
				t.Errorf("shortened to %d calls, expected at most %d:\n%s", len(short.Ops), plant.atMost, short)
			}
		})
	}
}

// An event that a watch did not get is found: a stream on one server misses it.
func TestAMissingEventIsCaught(t *testing.T) {
	reference, subject := startReference(t), startReference(t)
	ops := []Op{
		{Request: creation(&pb.WatchCreateRequest{Key: []byte("a")})},
		{Request: &pb.PutRequest{Key: []byte("a"), Value: []byte("1")}},
	}
	subject.tamper = func(op Op, _ *answer) {
		if op.createRequest() == nil { // after the put
			w := subject.streams[0]
			_ = w.wait(t.Context(), func() bool { return len(w.logs[0]) > 1 })
			w.mu.Lock()
			w.logs[0] = w.logs[0][:1]
			w.mu.Unlock()
		}
	}
	diff, err := Compare(t.Context(), reference, subject, ops)
	if err != nil || diff == nil || !strings.HasPrefix(diff.Reference, "watch 0: kv:") {
		t.Fatalf("diff %v, error %v", diff, err)
	}
}

// The generator reaches what it is there for: a comparison of nothing but errors
// would find no difference either.
func TestGenerateReachesWhatMatters(t *testing.T) {
	reference, subject := startReference(t), startReference(t)
	var seen strings.Builder
	subject.tamper = func(op Op, a *answer) { fmt.Fprintln(&seen, a) }
	for seed := range uint64(12) {
		diff, err := Compare(t.Context(), reference, subject, Generate(1000+seed, 150))
		if err != nil || diff != nil {
			t.Fatalf("seed %d: %v, %v", 1000+seed, err, diff)
		}
		for _, w := range subject.streams {
			fmt.Fprintln(&seen, strings.Join(w.transcript(), "\n"))
		}
	}
	text := strings.Join(strings.Fields(seen.String()), " ") // prototext varies its blanks
	for _, want := range []string{
		"more:true", "prev_kvs:", "prev_kv:", "succeeded:true", "TxnResponse{header:{revision:", "response_txn:{",
		"response_delete_range:{", "lease:", "hash:", "grantedTTL:", "TTL:-1", "version:4",
		"required revision has been compacted", "required revision is a future revision", "requested lease not found",
		"lease already exists", "too large lease TTL", "duplicate key given in txn request", "key is not provided",
		"value is provided", "lease is provided", "invalid sort option", "too many operations in txn request", "key not found",
		"RangeStream does not support", "watcher range is empty", "watch ID provided on the WatchStream",
		"canceled, compact revision", "type:DELETE",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no answer holds %q", want)
		}
	}
}
