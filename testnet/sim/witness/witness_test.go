package witness

import (
	"fmt"
	"testing"

	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/machine"
)

// What a frozen segment's log holds of a write that was tried again behind the merge has
// not happened twice (seed 206).
func TestTookEffect(t *testing.T) {
	for _, err := range append([]error{fmt.Errorf("frozen: %w", machine.ErrFrozen)}, Nowhere...) {
		if tookEffect(err) {
			t.Errorf("%v: it took effect nowhere", err)
		}
	}
	for _, err := range []error{nil, keyspace.ErrLeaseNotFound, keyspace.ErrCompacted} {
		if !tookEffect(err) {
			t.Errorf("%v: a client is told so, and must not try again", err)
		}
	}
}
