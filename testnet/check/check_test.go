package check

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"
)

// sample is a short, correct history of one line: puts, a compare-and-swap, a lease
// with a key that goes with it, a delete, reads, and a put of unknown outcome.
func sample() *History {
	kv := func(key, value string, create, mod, version, lease int64) KV {
		return KV{Key: key, Value: value, Create: create, Mod: mod, Version: version, Lease: lease}
	}
	a1, a2 := kv("a", "1", 2, 2, 1, 0), kv("a", "2", 2, 3, 2, 0)
	b, c := kv("b", "3", 4, 4, 1, 9), kv("c", "lost", 6, 6, 1, 0)
	return &History{
		Ops: []Op{
			{Request: Request{Kind: Put, Key: "a", Value: "1"}, Call: 1, Return: 10, Result: &Result{Rev: 2}},
			{Client: 1, Request: Request{Kind: Range, Key: "a"}, Call: 5, Return: 12, Result: &Result{Rev: 2, Count: 1, KVs: []KV{a1}}},
			{Request: Request{Kind: Txn, If: []Compare{{Key: "a", Target: "mod", Result: "=", Int: 2}},
				Then: []Request{{Kind: Put, Key: "a", Value: "2", Prev: true}, {Kind: Range, Key: "a", End: "z"}}},
				Call: 20, Return: 30, Result: &Result{Rev: 3, Succeeded: true, Sub: []Result{{Rev: 3, KVs: []KV{a1}}, {Rev: 3, Count: 1, KVs: []KV{a2}}}}},
			{Request: Request{Kind: Grant, Lease: 9}, Call: 31, Return: 35, Result: &Result{Rev: 3}},
			{Request: Request{Kind: Put, Key: "b", Value: "3", Lease: 9}, Call: 40, Return: 50, Result: &Result{Rev: 4}},
			{Client: 1, Request: Request{Kind: Range, Key: "a", End: "z", Limit: 1, Serializable: true}, Call: 60, Return: 61, Result: &Result{Rev: 4, Count: 2, KVs: []KV{a2}}},
			{Client: -1, Request: Request{Kind: Expire, Lease: 9}, Call: 60, Return: 70, Result: &Result{}},
			{Client: 2, Request: Request{Kind: Put, Key: "c", Value: "lost"}, Call: 65},
			{Client: 1, Request: Request{Kind: Range, Key: "a", End: "z"}, Call: 80, Return: 90, Result: &Result{Rev: 6, Count: 2, KVs: []KV{a2, c}}},
			{Request: Request{Kind: Delete, Key: "a", Prev: true}, Call: 100, Return: 110, Result: &Result{Rev: 7, Count: 1, KVs: []KV{a2}}},
			{Request: Request{Kind: Put, Key: "x", Value: "no", Lease: 9}, Call: 120, Return: 130, Result: &Result{NoLease: true}},
			{Client: 1, Request: Request{Kind: Range, Key: "a", Rev: 3}, Call: 140, Return: 150, Result: &Result{Rev: 7, Count: 1, KVs: []KV{a2}}},
		},
		Events: []Event{
			{Rev: 2, KV: a1}, {Rev: 3, KV: a2}, {Rev: 4, KV: b}, {Rev: 5, Delete: true, KV: KV{Key: "b", Mod: 5}},
			{Rev: 6, KV: c}, {Rev: 7, Delete: true, KV: KV{Key: "a", Mod: 7}},
		},
		Watches: []Watch{{Key: "a", End: "z", Start: 2, Prev: true, Through: 7, Responses: []Response{
			{Rev: 3, Created: true},
			{Rev: 3, Events: []Event{{Rev: 2, KV: a1}, {Rev: 3, KV: a2, Prev: &a1}}},
			{Rev: 4, Events: []Event{{Rev: 4, KV: b}}},
			{Rev: 4, Progress: true},
			{Rev: 6, Events: []Event{{Rev: 5, Delete: true, KV: KV{Key: "b", Mod: 5}, Prev: &b}, {Rev: 6, KV: c}}},
			{Rev: 7, Events: []Event{{Rev: 7, Delete: true, KV: KV{Key: "a", Mod: 7}, Prev: &a2}}},
		}}},
		Leases: []Lease{
			{What: Grant, ID: 9, TTL: 2, Sent: int64(time.Second), At: int64(time.Second)},
			{What: Renew, ID: 9, TTL: 2, Sent: int64(2 * time.Second), At: int64(2 * time.Second)},
			{What: Expire, ID: 9, At: int64(4 * time.Second)},
		},
	}
}

// placed gives every operation its place, as a history from the simulator has it.
func placed(h *History) *History {
	for i := range h.Ops {
		h.Ops[i].Place = int64(i + 1)
	}
	return h
}

// judgeAll is the first broken promise of a history.
func judgeAll(h *History) error {
	for _, err := range []error{
		Linearizable(h.Ops, 0), Reads(h.Ops, h.Events), Explained(h.Ops, h.Events), Watches(h.Watches, h.Events),
		Leases(h.Leases, time.Minute, LeaseBounds{Late: time.Minute}),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestCorrectHistoryPasses(t *testing.T) {
	if err := errors.Join(judgeAll(sample()), judgeAll(placed(sample()))); err != nil {
		t.Fatal(err)
	}
}

// TestPlantedFaultsAreFound breaks the correct history in one place each, and names
// the checker that must see it.
func TestPlantedFaultsAreFound(t *testing.T) {
	events := func(h *History, response int) *[]Event { return &h.Watches[0].Responses[response].Events }
	for name, c := range map[string]struct {
		plant func(h *History)
		want  error
	}{
		"stale read":                       {func(h *History) { h.Ops[8].Result = &Result{Rev: 4, Count: 1, KVs: h.Ops[5].Result.KVs} }, ErrNotLinearizable},
		"lost write":                       {func(h *History) { h.Ops[8].Result.KVs, h.Ops[8].Result.Count = h.Ops[8].Result.KVs[1:], 1 }, ErrNotLinearizable},
		"revision used twice":              {func(h *History) { h.Ops[4].Result.Rev = 3 }, ErrNotLinearizable},
		"wrong branch":                     {func(h *History) { h.Ops[2].Result.Succeeded = false }, ErrNotLinearizable},
		"wrong previous":                   {func(h *History) { h.Ops[9].Result.KVs[0].Value = "1" }, ErrNotLinearizable},
		"wrong count":                      {func(h *History) { h.Ops[9].Result.Count = 2 }, ErrNotLinearizable},
		"wrong version":                    {func(h *History) { h.Ops[1].Result.KVs[0].Version = 2 }, ErrNotLinearizable},
		"put with dead lease":              {func(h *History) { h.Ops[10].Result = &Result{Rev: 8} }, ErrNotLinearizable},
		"key outlives lease":               {func(h *History) { h.Ops = append(h.Ops[:6:6], h.Ops[7:]...) }, ErrNotLinearizable},
		"acked after return":               {func(h *History) { h.Ops[0].Call, h.Ops[0].Return = 25, 28 }, ErrNotLinearizable},
		"known too late":                   {func(h *History) { h.Ops[7].RevMin, h.Ops[7].RevMax = 6, 6 }, ErrNotLinearizable},
		"never took effect":                {func(h *History) { h.Ops = append(h.Ops[:7:7], h.Ops[8:]...) }, ErrNotLinearizable},
		"serializable read of no revision": {func(h *History) { h.Ops[5].Result.KVs[0].Value = "?" }, ErrRead},
		"read at another revision":         {func(h *History) { h.Ops[11].Rev = 2 }, ErrRead},
		"read from the future":             {func(h *History) { h.Ops[11].Rev = 9 }, ErrRead},
		"events contradict":                {func(h *History) { h.Events[1].KV.Version = 7 }, ErrEvents},
		"Ordered":                          {func(h *History) { e := *events(h, 1); e[0], e[1] = e[1], e[0] }, ErrOrdered},
		"Unique":                           {func(h *History) { *events(h, 2) = append(*events(h, 2), (*events(h, 2))[0]) }, ErrUnique},
		"Unique over responses":            {func(h *History) { h.Watches[0].Responses = append(h.Watches[0].Responses, h.Watches[0].Responses[5]) }, ErrUnique},
		"Reliable":                         {func(h *History) { *events(h, 4) = (*events(h, 4))[1:] }, ErrReliable},
		"Reliable at the end":              {func(h *History) { h.Watches[0].Responses = h.Watches[0].Responses[:5] }, ErrReliable},
		"Resumable":                        {func(h *History) { *events(h, 1) = (*events(h, 1))[1:] }, ErrResumable},
		"Bookmarkable":                     {func(h *History) { h.Watches[0].Responses[3].Rev = 5 }, ErrBookmarkable},
		"Bookmarkable goes back":           {func(h *History) { h.Watches[0].Responses[3].Rev = 3 }, ErrBookmarkable},
		"PrevKV":                           {func(h *History) { (*events(h, 5))[0].Prev = (*events(h, 1))[1].Prev }, ErrPrevKV},
		"PrevKV not asked for":             {func(h *History) { h.Watches[0].Prev = false }, ErrPrevKV},
		"IsCreate":                         {func(h *History) { (*events(h, 1))[1].KV.Create = 3 }, ErrIsCreate},
		"Filter by key":                    {func(h *History) { h.Watches[0].End = "c" }, ErrFilter},
		"Filter by kind":                   {func(h *History) { h.Watches[0].NoDelete = true }, ErrFilter},
		"Filter by start":                  {func(h *History) { h.Watches[0].Start = 3 }, ErrFilter},
		"false event":                      {func(h *History) { (*events(h, 2))[0].KV.Value = "4" }, ErrFalseEvent},
		"event before Created":             {func(h *History) { h.Watches[0].Responses = h.Watches[0].Responses[1:] }, ErrProtocol},
		"event after Canceled":             {func(h *History) { h.Watches[0].Responses[3].Canceled = true }, ErrProtocol},
		"lease ends early":                 {func(h *History) { h.Leases[2].At = int64(3 * time.Second) }, ErrLeaseEarly},
		"lease renewed after its end": {func(h *History) {
			h.Leases = append(h.Leases, Lease{What: Renew, ID: 9, TTL: 2, Sent: int64(5 * time.Second), At: int64(6 * time.Second)})
		}, ErrLeaseUndead},
	} {
		t.Run(name, func(t *testing.T) {
			for _, h := range []*History{sample(), placed(sample())} {
				c.plant(h)
				if err := judgeAll(h); !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
			}
		})
	}
}

func TestUnexplainedEventsAreFound(t *testing.T) {
	h := sample()
	if err := Explained(h.Ops[1:], h.Events); !errors.Is(err, ErrUnexplained) {
		t.Errorf("got %v, want %v", err, ErrUnexplained)
	}
	if err := Explained(h.Ops, append(h.Events, h.Events[0])); !errors.Is(err, ErrUnexplained) {
		t.Errorf("twice: got %v, want %v", err, ErrUnexplained)
	}
}

func TestAtomicIsJudged(t *testing.T) {
	two := []Event{
		{Rev: 2, KV: KV{Key: "a", Create: 2, Mod: 2, Version: 1}}, {Rev: 2, KV: KV{Key: "b", Create: 2, Mod: 2, Version: 1}},
	}
	whole := Watch{Key: "a", End: "z", Start: 1, Responses: []Response{{Created: true}, {Rev: 2, Events: two}}}
	if err := Watches([]Watch{whole}, two); err != nil {
		t.Fatal(err)
	}
	whole.Responses = []Response{{Created: true}, {Rev: 2, Events: two[:1]}, {Rev: 2, Events: two[1:]}}
	if err := Watches([]Watch{whole}, two); !errors.Is(err, ErrAtomic) {
		t.Errorf("got %v, want %v", err, ErrAtomic)
	}
}

func TestLeaseThatNeverEndsIsFound(t *testing.T) {
	list := sample().Leases[:2]
	if err := Leases(list, 4*time.Second, LeaseBounds{Late: time.Second}); err != nil {
		t.Error(err)
	}
	if err := Leases(list, time.Minute, LeaseBounds{Late: time.Second}); !errors.Is(err, ErrLeaseForever) {
		t.Errorf("got %v, want %v", err, ErrLeaseForever)
	}
}

func TestGroupCheckersFindPlantedFaults(t *testing.T) {
	var leaders Leaders
	if err := errors.Join(leaders.Leads(1, 1, "a"), leaders.Leads(1, 1, "a"), leaders.Leads(1, 2, "b"), leaders.Leads(2, 1, "b")); err != nil {
		t.Error(err)
	}
	if err := leaders.Leads(1, 1, "b"); !errors.Is(err, ErrTwoLeaders) {
		t.Errorf("got %v, want %v", err, ErrTwoLeaders)
	}
	var log Log
	if err := errors.Join(log.Applied(1, 1, 7, "a"), log.Applied(1, 1, 7, "b"), log.Applied(2, 1, 8, "b"), log.Acknowledged(1, 1, 7)); err != nil {
		t.Error(err)
	}
	if err := log.Applied(1, 1, 9, "c"); !errors.Is(err, ErrDiverged) {
		t.Errorf("got %v, want %v", err, ErrDiverged)
	}
	if err := log.Acknowledged(1, 2, 7); !errors.Is(err, ErrLost) {
		t.Errorf("got %v, want %v", err, ErrLost)
	}
	var states States
	if err := errors.Join(states.At(1, 1, 7, "a"), states.At(1, 1, 7, "b")); err != nil {
		t.Error(err)
	}
	if err := states.At(1, 1, 8, "c"); !errors.Is(err, ErrStates) {
		t.Errorf("got %v, want %v", err, ErrStates)
	}
}

func TestHistoryComesBackFromItsFile(t *testing.T) {
	h := sample()
	var file bytes.Buffer
	if err := h.Write(&file); err != nil {
		t.Fatal(err)
	}
	var back History
	if err := back.Read(&file); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(h, &back) {
		t.Errorf("wrote %+v, read %+v", h, &back)
	}
	if err := back.Read(bytes.NewBufferString(`{"op":`)); err == nil {
		t.Error("a torn history is read without error")
	}
}
