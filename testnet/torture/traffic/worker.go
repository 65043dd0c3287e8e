package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/check"
)

// worker is one client: one operation at a time.
type worker struct {
	id     int
	node   int // that it asks; -1: all
	client *clientv3.Client
	rec    *recorder
	cfg    Config
	rng    *rand.Rand
	seq    int
}

// ask carries out one operation and writes it down. Only an answer is returned.
func (w *worker) ask(ctx context.Context, name string, r check.Request) *check.Result {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	op := check.Op{Client: w.id, Request: r, Call: int64(w.rec.now())}
	res, err := do(ctx, w.client, &r)
	at := w.rec.now()
	outcome := judge(err)
	w.rec.note(name, outcome, err)
	switch {
	case outcome == answered:
		op.Return, op.Result = int64(at), res
	case outcome == refused || r.Kind == check.Range:
		return nil
	}
	w.rec.op(op)
	if outcome == answered && wrote(&r, res) {
		w.rec.ack(Ack{w.node, time.Duration(op.Call), at})
	}
	return res
}

func wrote(r *check.Request, res *check.Result) bool {
	return !res.NoLease && (r.Kind == check.Put || r.Kind == check.Txn && res.Succeeded)
}

// value is one that nobody else writes.
func (w *worker) value() string {
	w.seq++
	return fmt.Sprintf("%d.%d", w.id, w.seq)
}

// Families of keys, each with a number of keys per group.
const (
	registers = 6
	lists     = 2
	counters  = 2
	accounts  = 4
)

func (w *worker) group(family string) string {
	epoch := int(w.rec.now() / w.cfg.Epoch)
	return fmt.Sprintf("%s%s/%d/", w.cfg.Prefix, family, epoch)
}

// Boundary draws a key inside or beside the groups that are worked on now.
func (t *Traffic) Boundary(rng *rand.Rand) string {
	families := []string{"bank", "bank", "count", "lease", "list", "reg"}
	w := t.worker(0, -1)
	key := w.group(families[rng.IntN(len(families))])
	if rng.IntN(4) > 0 {
		key += strconv.Itoa(1 + rng.IntN(registers-1))
	}
	return key
}

// run works until ctx ends.
func (w *worker) run(ctx context.Context) {
	period := time.Duration(float64(time.Second) / w.cfg.Rate)
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.step(ctx)
		}
	}
}

// badShare of a hundred operations are forbidden ones, where there is a rule.
const badShare = 4

func (w *worker) step(ctx context.Context) {
	switch n := w.rng.IntN(100); {
	case n < badShare && w.cfg.Bad != "":
		w.ask(ctx, "put-forbidden", check.Request{Kind: check.Put, Key: w.register(), Value: w.cfg.Bad + w.value()})
	case n < 30:
		w.ask(ctx, "put", check.Request{Kind: check.Put, Key: w.register(), Value: w.value(), Prev: w.rng.IntN(4) == 0})
	case n < 55:
		w.ask(ctx, "get", check.Request{Kind: check.Range, Key: w.register()})
	case n < 60:
		w.ask(ctx, "get-serializable", check.Request{Kind: check.Range, Key: w.register(), Serializable: true})
	case n < 63:
		w.ask(ctx, "delete", check.Request{Kind: check.Delete, Key: w.register()})
	case n < 70:
		w.rangeOf(ctx)
	case n < 82:
		w.appendToList(ctx)
	case n < 92:
		w.addToCounter(ctx)
	default:
		w.transfer(ctx)
	}
}

func (w *worker) register() string {
	return w.group("reg") + strconv.Itoa(w.rng.IntN(registers))
}

func (w *worker) rangeOf(ctx context.Context) {
	group := w.group("reg")
	if w.rng.IntN(2) == 0 {
		group = w.group("bank")
	}
	w.ask(ctx, "range", check.Request{Kind: check.Range, Key: group, End: clientv3.GetPrefixRangeEnd(group), Serializable: w.rng.IntN(4) == 0})
}

// read returns the newest version of a key, the zero KV if there is none.
func (w *worker) read(ctx context.Context, key string) (check.KV, bool) {
	res := w.ask(ctx, "get", check.Request{Kind: check.Range, Key: key})
	if res == nil {
		return check.KV{}, false
	}
	if len(res.KVs) == 0 {
		return check.KV{Key: key}, true
	}
	return res.KVs[0], true
}

func unchanged(kv check.KV) check.Compare {
	return check.Compare{Key: kv.Key, Target: "mod", Result: "=", Int: kv.Mod}
}

func (w *worker) appendToList(ctx context.Context) {
	kv, ok := w.read(ctx, w.group("list")+strconv.Itoa(w.rng.IntN(lists)))
	if !ok {
		return
	}
	item := w.value()
	if kv.Value != "" {
		item = kv.Value + " " + item
	}
	w.ask(ctx, "append", check.Request{
		Kind: check.Txn, If: []check.Compare{unchanged(kv)},
		Then: []check.Request{{Kind: check.Put, Key: kv.Key, Value: item}},
		Else: []check.Request{{Kind: check.Range, Key: kv.Key}},
	})
}

// Number returns the number that a value of a counter or account begins with; what
// follows only makes the value unique.
func Number(value string) int {
	text, _, _ := strings.Cut(value, " ")
	n, _ := strconv.Atoi(text) // an empty value is zero
	return n
}

func (w *worker) addToCounter(ctx context.Context) {
	kv, ok := w.read(ctx, w.group("count")+strconv.Itoa(w.rng.IntN(counters)))
	if !ok {
		return
	}
	w.ask(ctx, "add", check.Request{
		Kind: check.Txn, If: []check.Compare{unchanged(kv)},
		Then: []check.Request{{Kind: check.Put, Key: kv.Key, Value: fmt.Sprintf("%d %s", Number(kv.Value)+1, w.value())}},
	})
}

// transfer moves 1 from one account to another; their sum stays zero.
func (w *worker) transfer(ctx context.Context) {
	group := w.group("bank")
	from := w.rng.IntN(accounts)
	to := (from + 1 + w.rng.IntN(accounts-1)) % accounts
	a, ok := w.read(ctx, group+strconv.Itoa(from))
	if !ok {
		return
	}
	b, ok := w.read(ctx, group+strconv.Itoa(to))
	if !ok {
		return
	}
	w.ask(ctx, "transfer", check.Request{
		Kind: check.Txn, If: []check.Compare{unchanged(a), unchanged(b)},
		Then: []check.Request{
			{Kind: check.Put, Key: a.Key, Value: fmt.Sprintf("%d %s", Number(a.Value)-1, w.value())},
			{Kind: check.Put, Key: b.Key, Value: fmt.Sprintf("%d %s", Number(b.Value)+1, w.value())},
		},
		Else: []check.Request{{Kind: check.Range, Key: group, End: clientv3.GetPrefixRangeEnd(group)}},
	})
}
