package verify

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
)

func kv(key, value string, create, mod, version, lease int64) check.KV {
	return check.KV{Key: key, Value: value, Create: create, Mod: mod, Version: version, Lease: lease}
}

func put(key, value string) check.Request {
	return check.Request{Kind: check.Put, Key: key, Value: value}
}

func unchanged(key string, mod int64) []check.Compare {
	return []check.Compare{{Key: key, Target: "mod", Result: "=", Int: mod}}
}

func second(s int64) int64 { return s * int64(time.Second) }

// op is an operation from second s to s+1; a nil result is an unknown outcome.
func op(s int64, r check.Request, res *check.Result) check.Op {
	o := check.Op{Client: 1, Request: r, Call: second(s), Result: res}
	if res != nil {
		o.Return = second(s + 1)
	}
	return o
}

// The keys of the good history.
const (
	reg     = "t/reg/0/1"
	list    = "t/list/0/1"
	count   = "t/count/0/1"
	account = "t/bank/0/1"
	other   = "t/bank/0/2"
	leased  = "t/lease/1"
)

// good is a history in which every promise was kept. Indexes of its operations:
const (
	opPut = iota
	opGet
	opPutAgain
	opAppend
	opAppendAgain
	opAppendFails
	opAdd
	opTransfer
	opPutLease
	opRevoke
	opUnknown
	opDelete
	opLastRegisters
	opLastList
	opLastCount
	opLastBank
	opCount
)

func good() *traffic.Log {
	bank := []check.KV{kv(account, "-1 a", 7, 7, 1, 0), kv(other, "1 b", 7, 7, 1, 0)}
	txn := func(key string, mod int64, then ...check.Request) check.Request {
		return check.Request{Kind: check.Txn, If: unchanged(key, mod), Then: then}
	}
	fails := txn(list, 4, put(list, "x z"))
	fails.Else = []check.Request{{Kind: check.Range, Key: list}}
	prev := put(reg, "v2")
	prev.Prev = true
	yes := func(rev int64) *check.Result {
		return &check.Result{Rev: rev, Succeeded: true, Sub: []check.Result{{Rev: rev}}}
	}
	ops := make([]check.Op, opCount)
	ops[opPut] = op(0, put(reg, "v1"), &check.Result{Rev: 2})
	ops[opGet] = op(2, check.Request{Kind: check.Range, Key: reg}, &check.Result{Rev: 2, Count: 1, KVs: []check.KV{kv(reg, "v1", 2, 2, 1, 0)}})
	ops[opPutAgain] = op(4, prev, &check.Result{Rev: 3, KVs: []check.KV{kv(reg, "v1", 2, 2, 1, 0)}})
	ops[opAppend] = op(6, txn(list, 0, put(list, "x")), yes(4))
	ops[opAppendAgain] = op(8, txn(list, 4, put(list, "x y")), yes(5))
	ops[opAppendFails] = op(10, fails, &check.Result{Rev: 5, Sub: []check.Result{{Rev: 5, Count: 1, KVs: []check.KV{kv(list, "x y", 4, 5, 2, 0)}}}})
	ops[opAdd] = op(12, txn(count, 0, put(count, "1 c")), yes(6))
	ops[opTransfer] = op(14, txn(account, 0, put(account, "-1 a"), put(other, "1 b")), yes(7))
	ops[opPutLease] = op(16, check.Request{Kind: check.Put, Key: leased, Value: "l", Lease: 9}, &check.Result{Rev: 8})
	ops[opRevoke] = op(18, check.Request{Kind: check.Revoke, Lease: 9}, &check.Result{Rev: 9})
	ops[opUnknown] = op(20, put(reg, "maybe"), nil)
	ops[opDelete] = op(22, check.Request{Kind: check.Delete, Key: reg}, &check.Result{Rev: 10, Count: 1})
	last := func(s int64, group string, kvs ...check.KV) check.Op {
		return op(s, check.Request{Kind: check.Range, Key: group, End: group[:len(group)-1] + "0"}, &check.Result{Rev: 10, Count: int64(len(kvs)), KVs: kvs})
	}
	ops[opLastRegisters] = last(24, "t/reg/0/")
	ops[opLastList] = last(26, "t/list/0/", kv(list, "x y", 4, 5, 2, 0))
	ops[opLastCount] = last(28, "t/count/0/", kv(count, "1 c", 6, 6, 1, 0))
	ops[opLastBank] = last(30, "t/bank/0/", bank...)
	events := []check.Event{
		{Rev: 2, KV: kv(reg, "v1", 2, 2, 1, 0)}, {Rev: 3, KV: kv(reg, "v2", 2, 3, 2, 0)},
		{Rev: 4, KV: kv(list, "x", 4, 4, 1, 0)}, {Rev: 5, KV: kv(list, "x y", 4, 5, 2, 0)},
		{Rev: 6, KV: kv(count, "1 c", 6, 6, 1, 0)}, {Rev: 7, KV: bank[0]}, {Rev: 7, KV: bank[1]},
		{Rev: 8, KV: kv(leased, "l", 8, 8, 1, 9)}, {Rev: 9, Delete: true, KV: kv(leased, "", 0, 9, 0, 0)},
		{Rev: 10, Delete: true, KV: kv(reg, "", 0, 10, 0, 0)},
	}
	responses := []check.Response{{Created: true, Rev: 1}}
	for i := 0; i < len(events); i++ {
		r := check.Response{Rev: events[i].Rev, Events: events[i : i+1]}
		if events[i].Rev == 7 {
			r.Events = events[i : i+2]
			i++
		}
		responses = append(responses, r)
	}
	return &traffic.Log{History: check.History{
		Ops: ops, Events: events,
		Watches: []check.Watch{{Key: "t/", End: "t0", Start: 2, Responses: responses}},
		Leases: []check.Lease{
			{What: check.Grant, ID: 9, TTL: 5, Sent: second(15), At: second(16)},
			{What: check.Revoke, ID: 9, Sent: second(18), At: second(18)},
			{What: check.Grant, ID: 10, TTL: 5, Sent: second(15), At: second(16)},
			{What: check.Expire, ID: 10, At: second(21)},
			{What: check.Expire, ID: 9, At: second(19)},
		},
	}}
}

var bounds = Bounds{Lease: check.LeaseBounds{Late: 20 * time.Second}, Until: time.Minute, Limit: 10 * time.Second}

func TestGoodHistoryIsGood(t *testing.T) {
	for _, v := range All(good(), bounds) {
		if v.Err != nil || v.Judged == 0 {
			t.Errorf("%s: judged %d: %v", v.Name, v.Judged, v.Err)
		}
	}
}

// The end of a lease whose put never was done shows nowhere.
func TestALeaseThatHeldNothingEndsUnseen(t *testing.T) {
	l := good()
	l.Leases = append(l.Leases, check.Lease{What: check.Grant, ID: 11, TTL: 5, Sent: second(15), At: second(16)})
	if err := Problems(All(l, bounds)); !errors.Is(err, check.ErrLeaseForever) {
		t.Errorf("a lease that nobody put anything on: %v", err)
	}
	l.Ops = append(l.Ops, op(17, check.Request{Kind: check.Put, Key: "t/lease/3", Value: "u", Lease: 11}, nil))
	if err := Problems(All(l, bounds)); err != nil {
		t.Error(err)
	}
}

// A lease may expire after the last event that is known.
func TestWatchMaySeeMoreThanIsKnown(t *testing.T) {
	l := good()
	w := &l.Watches[0]
	w.Responses = append(w.Responses, check.Response{Rev: 11, Events: []check.Event{{Rev: 11, Delete: true, KV: kv(account, "", 0, 11, 0, 0)}}})
	if err := Problems(All(l, bounds)); err != nil {
		t.Error(err)
	}
}

// Every checker finds the fault that is planted for it.
func TestPlantedFaults(t *testing.T) {
	for name, plant := range map[string]struct {
		want error
		do   func(*traffic.Log)
	}{
		"acknowledged write is lost":    {ErrLost, func(l *traffic.Log) { l.Events = slices.Delete(l.Events, 1, 2) }},
		"acknowledged write is other":   {ErrLost, func(l *traffic.Log) { l.Events[1].KV.Value = "v3" }},
		"acknowledged delete is lost":   {ErrLost, func(l *traffic.Log) { l.Events = l.Events[:9] }},
		"half of a transaction is lost": {ErrLost, func(l *traffic.Log) { l.Events = slices.Delete(l.Events, 6, 7) }},
		"wrong previous version":        {ErrReplaced, func(l *traffic.Log) { l.Ops[opPutAgain].Result.KVs[0].Value = "v0" }},
		"write that nobody asked for": {check.ErrUnexplained, func(l *traffic.Log) {
			l.Events = append(l.Events, check.Event{Rev: 11, KV: kv(reg, "ghost", 11, 11, 1, 0)})
		}},
		"write applied twice": {check.ErrUnexplained, func(l *traffic.Log) {
			l.Events = append(l.Events, check.Event{Rev: 11, KV: kv(reg, "v1", 11, 11, 1, 0)})
		}},
		"refused transaction applied": {check.ErrUnexplained, func(l *traffic.Log) {
			l.Events[5].KV.Value = "nobody"
		}},
		"revision goes back":             {ErrRealTime, func(l *traffic.Log) { l.Ops[opGet].Call, l.Ops[opGet].Return = second(23), second(24) }},
		"two writes with one revision":   {ErrRealTime, func(l *traffic.Log) { l.Ops[opPutAgain].Result.Rev = 2 }},
		"compare held and was denied":    {ErrVerdict, func(l *traffic.Log) { l.Ops[opAppendFails].If[0].Int = 5 }},
		"compare failed and was granted": {ErrVerdict, func(l *traffic.Log) { l.Ops[opAppendAgain].If[0].Int = 3 }},
		"stale value in a read":          {check.ErrRead, func(l *traffic.Log) { l.Ops[opGet].Result.KVs[0].Value = "v2" }},
		"stale read in a transaction":    {check.ErrRead, func(l *traffic.Log) { l.Ops[opAppendFails].Result.Sub[0].KVs[0].Value = "x" }},
		"read of a lost register":        {check.ErrNotLinearizable, func(l *traffic.Log) { l.Ops[opGet].Result.KVs = nil }},
		"stale read of a register":       {check.ErrNotLinearizable, func(l *traffic.Log) { l.Ops[opGet].Call, l.Ops[opGet].Return = second(6), second(7) }},
		"item is lost":                   {ErrList, func(l *traffic.Log) { l.Ops[opLastList].Result.KVs[0].Value = "x" }},
		"item is there twice":            {ErrList, func(l *traffic.Log) { l.Ops[opLastList].Result.KVs[0].Value = "x y x" }},
		"items are out of order":         {ErrList, func(l *traffic.Log) { l.Ops[opLastList].Result.KVs[0].Value = "y x" }},
		"item of nobody":                 {ErrList, func(l *traffic.Log) { l.Ops[opLastList].Result.KVs[0].Value = "x y w" }},
		"addition is lost":               {ErrCounter, func(l *traffic.Log) { l.Ops[opLastCount].Result.KVs[0].Value = "0 c" }},
		"addition counts twice":          {ErrCounter, func(l *traffic.Log) { l.Ops[opLastCount].Result.KVs[0].Value = "2 c" }},
		"half a transfer":                {ErrSum, func(l *traffic.Log) { l.Ops[opLastBank].Result.KVs = l.Ops[opLastBank].Result.KVs[:1] }},
		"nobody read at the end":         {ErrNoFinal, func(l *traffic.Log) { l.Ops[opLastList].Result = nil }},
		"watch leaves an event out":      {check.ErrReliable, func(l *traffic.Log) { l.Watches[0].Responses = slices.Delete(l.Watches[0].Responses, 3, 4) }},
		"watch resumes too late":         {check.ErrResumable, func(l *traffic.Log) { l.Watches[0].Responses = slices.Delete(l.Watches[0].Responses, 1, 2) }},
		"watch shows an event twice": {check.ErrUnique, func(l *traffic.Log) {
			l.Watches[0].Responses = slices.Insert(l.Watches[0].Responses, 3, l.Watches[0].Responses[2])
		}},
		"watch is out of order": {check.ErrOrdered, func(l *traffic.Log) {
			r := l.Watches[0].Responses
			r[2], r[3] = r[3], r[2]
		}},
		"watch tears a transaction": {check.ErrAtomic, func(l *traffic.Log) {
			r := l.Watches[0].Responses[6]
			l.Watches[0].Responses[6].Events = r.Events[:1]
			l.Watches[0].Responses = slices.Insert(l.Watches[0].Responses, 7, check.Response{Rev: 7, Events: r.Events[1:]})
		}},
		"lease ends early": {check.ErrLeaseEarly, func(l *traffic.Log) { l.Leases[3].At = second(19) }},
		"lease never ends": {check.ErrLeaseForever, func(l *traffic.Log) { l.Leases = slices.Delete(l.Leases, 3, 4) }},
		"lease is undead": {check.ErrLeaseUndead, func(l *traffic.Log) {
			l.Leases = append(l.Leases, check.Lease{What: check.Renew, ID: 10, TTL: 5, Sent: second(22), At: second(23)})
		}},
		"key outlives revoke": {ErrRevoked, func(l *traffic.Log) { l.Events = slices.Delete(l.Events, 8, 9) }},
	} {
		t.Run(name, func(t *testing.T) {
			l := good()
			plant.do(l)
			if err := Problems(All(l, bounds)); !errors.Is(err, plant.want) {
				t.Errorf("got %v, want %v", err, plant.want)
			}
		})
	}
}

// A put whose outcome nobody knows may have happened: whoever reads it afterwards is
// right, and so is who does not. It must not come and go.
func TestUnknownPut(t *testing.T) {
	read := func(s int64, value string) check.Op {
		return op(s, check.Request{Kind: check.Range, Key: reg}, &check.Result{KVs: []check.KV{{Key: reg, Value: value}}})
	}
	first := op(0, put(reg, "a"), &check.Result{})
	unknown := op(2, put(reg, "b"), nil)
	for name, c := range map[string]struct {
		ops  []check.Op
		good bool
	}{
		"not done":      {[]check.Op{first, unknown, read(4, "a"), read(6, "a")}, true},
		"done":          {[]check.Op{first, unknown, read(4, "b"), read(6, "b")}, true},
		"done later":    {[]check.Op{first, unknown, read(4, "a"), read(6, "b")}, true},
		"done, undone":  {[]check.Op{first, unknown, read(4, "b"), read(6, "a")}, false},
		"read too soon": {[]check.Op{first, read(1, "b"), op(4, put(reg, "b"), nil)}, false},
	} {
		if v := registersVerdict(c.ops, bounds.Limit); (v.Err == nil) != c.good {
			t.Errorf("%s: %v", name, v.Err)
		}
	}
}

func TestOutage(t *testing.T) {
	s := time.Second
	acks := []traffic.Ack{{Node: 0, At: 1 * s}, {Node: 1, At: 2 * s}, {Node: 0, At: 6 * s}, {Node: 1, At: 7 * s}}
	for _, c := range []struct {
		nodes          map[int]bool
		from, to, want time.Duration
	}{
		{nil, 0, 8 * s, 4 * s},
		{nil, 3 * s, 4 * s, 3 * s}, // lasts beyond the window
		{nil, 5 * s, 8 * s, 1 * s}, // counts from the window's begin
		{nil, 7 * s, 9 * s, 2 * s}, // nothing comes any more
		{map[int]bool{0: true}, 0, 8 * s, 5 * s},
		{map[int]bool{2: true}, 0, 8 * s, 8 * s},
	} {
		if got := Outage(acks, c.nodes, c.from, c.to); got != c.want {
			t.Errorf("nodes %v from %v to %v: %v, want %v", c.nodes, c.from, c.to, got, c.want)
		}
	}
}
