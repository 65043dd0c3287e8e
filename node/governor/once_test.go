package governor

import (
	"context"
	"errors"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh"
)

// broken is a mesh whose calls end with an error.
type broken struct{ err error }

func (b broken) Call(context.Context, anchormesh.NodeID, uint8, ...[]byte) ([]byte, error) {
	return nil, b.err
}
func (b broken) Connected(anchormesh.NodeID) bool { return true }

// A proposal whose answer was lost may stand in the log: nobody puts it again, as is done
// where the call never arrived, and with questions that change nothing.
func TestALostProposalIsNotPutAgain(t *testing.T) {
	for _, c := range []struct {
		kind byte
		err  error
		want error
	}{
		{askPropose, context.DeadlineExceeded, ErrUnknown},
		{askPropose, mesh.ErrClosed, ErrUnknown},
		{askClose, context.DeadlineExceeded, ErrUnknown},
		{askPropose, mesh.ErrUnreachable, ErrUnavailable},
		{askShow, context.DeadlineExceeded, ErrUnavailable},
	} {
		g := &Governor{mesh: broken{c.err}}
		if _, err := g.call(t.Context(), "other", &question{kind: c.kind}); !errors.Is(err, c.want) {
			t.Errorf("question %d, %v: %v, want %v", c.kind, c.err, err, c.want)
		}
	}
}
