package governor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/internal/fields"
)

var _ Scopes = (*Governor)(nil)

// Propose implements Scopes.
func (g *Governor) Propose(ctx context.Context, c Change) (Receipt, error) {
	if len(c.Operator) > scope.OperatorBytesMax || len(c.Prefix) > scope.PrefixBytesMax {
		return Receipt{}, fmt.Errorf("%w: a prefix has at most %d bytes, an operator's name %d", ErrRefused, scope.PrefixBytesMax, scope.OperatorBytesMax)
	}
	at, err := g.seat(&c)
	if err != nil {
		return Receipt{}, err
	}
	q := &question{kind: askPropose, body: c.encode()}
	answer, err := g.awaitHome(ctx, at, q)
	if err != nil {
		return Receipt{}, err
	}
	r := reader{fields.Reader{Rest: answer}}
	id := r.Number()
	return Receipt{Scope: at, ID: id, Kind: c.Kind}, r.end()
}

// seat returns the scope in whose home a change is decided.
func (g *Governor) seat(c *Change) ([]byte, error) {
	switch c.Kind {
	case scope.Create:
	case scope.Recover:
		return g.arbiter(c.Segment)
	case scope.Split, scope.Merge, scope.Move:
		d, ok := g.table.Segment(c.Segment)
		if !ok {
			return nil, fmt.Errorf("%w: this node knows no segment %s", ErrRefused, c.Segment)
		}
		return d.Scope, nil
	default:
		return c.Prefix, nil
	}
	around, ok := g.Around(c.Prefix)
	switch {
	case len(c.Prefix) == 0:
		return nil, fmt.Errorf("%w: the root scope is there already: change it with set", ErrRefused)
	case !ok:
		return nil, fmt.Errorf("%w: this node does not know yet who holds %q", ErrUnavailable, c.Prefix)
	case bytes.Equal(around, c.Prefix):
		return nil, fmt.Errorf("%w: scope %q exists", ErrRefused, c.Prefix)
	}
	return around, nil
}

// Around implements Scopes.
func (g *Governor) Around(key []byte) ([]byte, bool) {
	d, ok := g.table.Lookup(key)
	if !ok {
		return nil, false
	}
	return d.Scope, true
}

// List implements Scopes.
func (g *Governor) List() [][]byte {
	var out [][]byte
	for _, d := range g.table.All() {
		if d.Home() {
			out = append(out, d.Scope)
		}
	}
	slices.SortFunc(out, bytes.Compare)
	return slices.CompactFunc(out, bytes.Equal)
}

// Show implements Scopes.
func (g *Governor) Show(ctx context.Context, prefix []byte) (*View, error) {
	answer, err := g.askHome(ctx, prefix, &question{kind: askShow})
	if err != nil {
		return nil, err
	}
	return parseView(answer)
}

// Vote implements Scopes.
func (g *Governor) Vote(ctx context.Context, r Receipt, node anchormesh.NodeID, approve bool, why string) error {
	if len(why) > scope.NoteBytesMax {
		return fmt.Errorf("%w: a reason has at most %d bytes", ErrRefused, scope.NoteBytesMax)
	}
	d, ok := g.lookHome(r.Scope)
	if !ok {
		return fmt.Errorf("%w: %q", ErrNoScope, r.Scope)
	}
	_, err := g.call(ctx, node, &question{kind: askSign, segment: d.Segment, id: r.ID, flag: approve, text: []byte(why)})
	return err
}

// Withdraw implements Scopes.
func (g *Governor) Withdraw(ctx context.Context, r Receipt, operator string) error {
	_, err := g.awaitHome(ctx, r.Scope, &question{kind: askClose, id: r.ID, text: []byte(operator)})
	return err
}

// awaitEvery is how often Await looks.
const awaitEvery = 100 * time.Millisecond

// Await implements Scopes.
func (g *Governor) Await(ctx context.Context, r Receipt) (scope.Closed, error) {
	for {
		v, err := g.Show(ctx, r.Scope)
		switch {
		case err == nil:
			if c, ok := v.Record.Ended(r.ID); ok && (c.Outcome != scope.Decided || c.Kind != scope.Amend || v.Record.InForce >= c.Version) {
				return c, nil
			}
		case errors.Is(err, ErrNoScope) && r.Kind == scope.Delete: // with the scope went its record
			return scope.Closed{ID: r.ID, Kind: r.Kind, Outcome: scope.Decided}, nil
		case errors.Is(err, ErrNoScope):
			return scope.Closed{}, err
		}
		select {
		case <-time.After(awaitEvery):
		case <-ctx.Done():
			return scope.Closed{}, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
		}
	}
}
