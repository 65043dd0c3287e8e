package verify

import (
	"errors"
	"testing"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
)

// lossy is a scope in which k was shown at revision 2 and is gone, and m came later.
func lossy(cancelled bool) *traffic.Log {
	k, m := kv("s/k", "1", 2, 2, 1, 0), kv("s/m", "2", 9, 9, 1, 0)
	log := &traffic.Log{}
	log.Events = []check.Event{{Rev: 2, KV: k}, {Rev: 9, KV: m}}
	log.Ops = []check.Op{
		op(0, put("s/k", "1"), &check.Result{Rev: 2}), op(2, put("s/m", "2"), &check.Result{Rev: 9}),
		op(4, check.Request{Kind: check.Range, Key: "s/", End: "s0"}, &check.Result{Rev: 9, Count: 1, KVs: []check.KV{m}}),
	}
	w := check.Watch{Key: "s/", Responses: []check.Response{{Rev: 2, Events: log.Events[:1]}}}
	if cancelled {
		w.Responses = append(w.Responses, check.Response{Canceled: true, Compact: 8})
	} else {
		w.Responses = append(w.Responses, check.Response{Rev: 9, Events: log.Events[1:]})
	}
	log.Watches = []check.Watch{w}
	return log
}

func TestALightScopeLosesOnlyWhatItSays(t *testing.T) {
	whole := lossy(true)
	whole.Ops[2].Result.KVs = append(whole.Ops[2].Result.KVs, kv("s/k", "1", 2, 2, 1, 0))
	for _, c := range []struct {
		name string
		log  *traffic.Log
		anew int
		lost bool
		want error
	}{
		{"nothing is lost", whole, 0, false, nil},
		{"lost, and nobody says so", lossy(true), 0, true, ErrForgotten},
		{"lost, as the lineage says", lossy(true), 1, true, nil},
		{"a watch that lives on", lossy(false), 1, true, ErrWatched},
	} {
		v, lost := Light(c.log, c.anew)
		if lost != c.lost || !errors.Is(v.Err, c.want) || v.Judged != 2 {
			t.Errorf("%s: %v, lost %v", c.name, v, lost)
		}
	}
}

func TestRulesOfAScope(t *testing.T) {
	log := lossy(true)
	if v := Rules(log, "s/", "bad", 2); v.Err != nil || v.Judged != 2 {
		t.Error(v)
	}
	if v := Rules(log, "s/", "bad", 1); !errors.Is(v.Err, ErrRule) {
		t.Errorf("one key too many: %v", v)
	}
	log.Events[1].KV.Value = "bad2"
	if v := Rules(log, "s/", "bad", 0); !errors.Is(v.Err, ErrRule) {
		t.Errorf("a forbidden value: %v", v)
	}
	log = lossy(true)
	log.Ops[0].Value = "bad1"
	if v := Rules(log, "s/", "bad", 0); !errors.Is(v.Err, ErrRule) {
		t.Errorf("a forbidden value that was acknowledged: %v", v)
	}
}
