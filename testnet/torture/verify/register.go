package verify

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/anchormesh/anchormesh/testnet/check"
)

// access is what one operation did to one register.
type access struct {
	write bool
	value string // "": no such key
}

// register is the sequential model of one key.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, in, _ any) (bool, any) {
		a := in.(access)
		if a.write {
			return true, a.value
		}
		return state.(string) == a.value, state
	},
}

func registersVerdict(ops []check.Op, limit time.Duration) Verdict {
	v := Verdict{Name: "registers: each key is linearizable (porcupine)"}
	histories := registerHistories(ops)
	for _, key := range slices.Sorted(maps.Keys(histories)) {
		list := settle(histories[key])
		v.Judged += len(list)
		switch porcupine.CheckOperationsTimeout(register, list, limit) {
		case porcupine.Illegal:
			v.Err = fmt.Errorf("%w: key %q, %d operations", check.ErrNotLinearizable, key, len(list))
			return v
		case porcupine.Unknown:
			v.Err = fmt.Errorf("%w: key %q, %d operations in %v", check.ErrUndecided, key, len(list), limit)
		}
	}
	return v
}

// registerHistories sorts linearizable gets, puts and deletes by key.
func registerHistories(ops []check.Op) map[string][]porcupine.Operation {
	out := map[string][]porcupine.Operation{}
	for i := range ops {
		op := &ops[i]
		if !strings.Contains(op.Key, "/reg/") || op.Serializable || op.End != "" {
			continue
		}
		a := access{write: op.Kind != check.Range}
		switch {
		case op.Kind == check.Put:
			a.value = op.Value
		case op.Kind == check.Range && len(op.Result.KVs) > 0:
			a.value = op.Result.KVs[0].Value
		}
		end := op.Return
		if op.Result == nil {
			end = math.MaxInt64
		}
		out[op.Key] = append(out[op.Key], porcupine.Operation{ClientId: op.Client, Input: a, Call: op.Call, Return: end})
	}
	return out
}

// settle makes the search short: a put of unknown outcome that nobody read can be
// thought of as not done, and one that was read was done before that read ended.
// Both follow from values being unique, so neither hides or makes up anything.
func settle(ops []porcupine.Operation) []porcupine.Operation {
	seen := map[string]int64{} // value to the end of the first read of it
	for _, op := range ops {
		if a := op.Input.(access); !a.write {
			if end, ok := seen[a.value]; !ok || op.Return < end {
				seen[a.value] = op.Return
			}
		}
	}
	var out []porcupine.Operation
	for _, op := range ops {
		a := op.Input.(access)
		if op.Return == math.MaxInt64 && a.value != "" {
			end, ok := seen[a.value]
			if !ok {
				continue
			}
			// A read that ended before the put began makes no sense; let it be found.
			op.Return = max(end, op.Call+1)
		}
		out = append(out, op)
	}
	return out
}
