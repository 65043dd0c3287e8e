package governor

import (
	"context"
	"fmt"

	"github.com/anchormesh/anchormesh/anchors/scope"
)

func (g *Governor) judgeRecovery(p *scope.Proposal) error {
	return fmt.Errorf("%w: %s is not known here", ErrRefused, p.Kind)
}

func (g *Governor) recover(ctx context.Context, h home, p *scope.Proposal) error {
	return g.finish(ctx, h, p, scope.Abandoned, "")
}
