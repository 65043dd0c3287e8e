package dispatch

import (
	"errors"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/deposed"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/route"
)

// What became of a write is not known then; a read is repeated.
func TestADeposedLeadersWriteIsUnknown(t *testing.T) {
	d, desc := &Dispatcher{table: route.NewTable()}, &anchormesh.Descriptor{Segment: 1}
	err := errors.Join(mesh.ErrUnknownOutcome, deposed.Err)
	if got := d.forwardFailed(t.Context(), desc, &etcdapi.Call{Write: true}, "old", err); !errors.Is(got, etcdapi.ErrTimeoutLeaderFail) {
		t.Errorf("a write ends with %v", got)
	}
	if got := d.forwardFailed(t.Context(), desc, &etcdapi.Call{}, "old", err); !errors.Is(got, errRetry) {
		t.Errorf("a read ends with %v", got)
	}
}
