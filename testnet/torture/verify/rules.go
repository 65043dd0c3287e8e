package verify

import (
	"errors"
	"fmt"
	"strings"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
)

// ErrRule: what a scope's policy forbids was written.
var ErrRule = errors.New("the scope's policy forbids what was written")

// Rules judges what a scope holds: no value begins with bad, and there never are more
// than keysMax keys (0: there is no bound). A write that a rule forbids was refused, or
// its outcome is unknown.
func Rules(log *traffic.Log, prefix, bad string, keysMax int64) Verdict {
	v := Verdict{Name: "rules: nothing forbidden was written"}
	alive := map[string]bool{}
	for i := range log.Events {
		e := &log.Events[i]
		v.Judged++
		if e.Delete {
			delete(alive, e.KV.Key)
			continue
		}
		alive[e.KV.Key] = true
		last := i+1 == len(log.Events) || log.Events[i+1].Rev != e.Rev
		switch {
		case strings.HasPrefix(e.KV.Value, bad):
			v.Err = fmt.Errorf("%w: %+v", ErrRule, e.KV)
		case last && keysMax > 0 && int64(len(alive)) > keysMax:
			v.Err = fmt.Errorf("%w: %d keys below %q at revision %d, %d are allowed", ErrRule, len(alive), prefix, e.Rev, keysMax)
		}
	}
	for i := range log.Ops {
		if op := &log.Ops[i]; op.Kind == check.Put && op.Result != nil && strings.HasPrefix(op.Value, bad) {
			v.Err = fmt.Errorf("%w: a put of %q was acknowledged at revision %d", ErrRule, op.Key, op.Result.Rev)
		}
	}
	return v
}
