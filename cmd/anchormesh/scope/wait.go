package scope

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// lookEvery paces the question how far a change is.
const lookEvery = 200 * time.Millisecond

// standing is how far a change is.
type standing struct {
	done   bool
	failed bool // it will never be
	text   string
}

func (s standing) err() error {
	if s.failed {
		return errors.New(s.text)
	}
	return nil
}

// waiter waits until a proposal is decided and carried out.
type waiter struct {
	*order
	ref  *meshpb.ProposalReply
	say  io.Writer // hears how far it is whenever that changes
	said string
}

// propose proposes, again while it cannot be taken for a reason that may pass.
func (w *waiter) propose(ctx context.Context, do func(context.Context, meshpb.ScopesClient) (*meshpb.ProposalReply, error)) (reply *meshpb.ProposalReply, err error) {
	for begun := time.Now(); ; {
		err = w.Scopes(ctx, func(ctx context.Context, c meshpb.ScopesClient) (err error) {
			reply, err = do(ctx, c)
			return err
		})
		if status.Code(err) != codes.Unavailable || time.Since(begun) >= w.patience {
			return reply, err
		}
		w.tell(err.Error())
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(lookEvery):
		}
	}
}

// wait returns when it is done or has failed, or how far it is when patience ends.
func (w *waiter) wait(ctx context.Context) standing {
	ctx, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := standing{text: "it was proposed"}
	for {
		now, err := w.look(ctx)
		switch {
		case err == nil:
			last = now
		case ctx.Err() == nil: // no leader for a moment, perhaps
			w.tell(err.Error())
		}
		end := last
		if end.failed || end.done && w.writable(ctx, &end) {
			return end
		}
		w.tell(end.text)
		select {
		case <-ctx.Done():
			return end
		case <-tick.C:
		}
	}
}

// writable reports whether as many anchors are there as writes have to be acknowledged by,
// and notes how many are missing. Where that cannot be told it is not waited for.
func (w *waiter) writable(ctx context.Context, s *standing) bool {
	if w.segment != "" {
		return true
	}
	scope, err := w.show(ctx, []byte(w.prefix))
	if err != nil {
		return true
	}
	p, err := policyOf(scope.GetPolicy(), scope.GetAnchors())
	if err != nil {
		return true
	}
	var list *meshpb.ListScopesReply
	err = w.Scopes(ctx, func(ctx context.Context, c meshpb.ScopesClient) (err error) {
		list, err = c.List(ctx, &meshpb.ListScopesRequest{})
		return err
	})
	i := slices.IndexFunc(list.GetScopes(), func(one *meshpb.ScopeSummary) bool { return string(one.GetPrefix()) == w.prefix })
	if err != nil || i < 0 {
		return true
	}
	has := int(list.GetScopes()[i].GetAnchors())
	if has < p.Anchors.Count {
		s.text += fmt.Sprintf("; %d of %d anchors are there", has, p.Anchors.Count)
	}
	if has < p.AcksWanted() {
		s.text += fmt.Sprintf(", and writes are refused until there are %d", p.AcksWanted())
	}
	return has >= p.AcksWanted()
}

func (w *waiter) tell(text string) {
	if text != w.said {
		fmt.Fprintln(w.say, text)
	}
	w.said = text
}

// look asks how far it is.
func (w *waiter) look(ctx context.Context) (standing, error) {
	scope, err := w.show(ctx, w.ref.GetScope())
	if status.Code(err) == codes.NotFound && w.segment == "" && string(w.ref.GetScope()) == w.prefix {
		return standing{done: true, text: "its keys belong to the scope around it"}, nil // the decided scope is gone
	}
	if err != nil {
		return standing{}, err
	}
	for _, p := range scope.GetOpen() {
		if p.GetId() == w.ref.GetId() {
			return standing{text: fmt.Sprintf("%s has the votes of %s, waiting for %s", proposalName(w.ref), tallyText(p.GetTally()), waitingText(p))}, nil
		}
	}
	for _, p := range underWay(scope) {
		if p.GetId() == w.ref.GetId() {
			return w.carried(ctx), nil
		}
	}
	var history *meshpb.ScopeHistoryReply
	err = w.Scopes(ctx, func(ctx context.Context, c meshpb.ScopesClient) (err error) {
		history, err = c.History(ctx, &meshpb.ScopeHistoryRequest{Prefix: w.ref.GetScope()})
		return err
	})
	if err != nil {
		return standing{}, err
	}
	for _, e := range history.GetEndings() {
		if e.GetId() == w.ref.GetId() {
			return w.ended(scope, e), nil
		}
	}
	return standing{text: proposalName(w.ref) + " is not known yet"}, nil
}

func (w *waiter) show(ctx context.Context, prefix []byte) (*meshpb.Scope, error) {
	var reply *meshpb.ScopeReply
	err := w.Scopes(ctx, func(ctx context.Context, c meshpb.ScopesClient) (err error) {
		reply, err = c.Show(ctx, &meshpb.ShowScopeRequest{Prefix: prefix})
		return err
	})
	return reply.GetScope(), err
}

// carried says how far a decided creation, deletion or recovery is.
func (w *waiter) carried(ctx context.Context) standing {
	text := proposalName(w.ref) + " is decided and being carried out"
	if w.segment != "" {
		return standing{text: text}
	}
	if scope, err := w.show(ctx, []byte(w.prefix)); err == nil && len(scope.GetSegments()) > 0 {
		done, all := progress(scope)
		text += fmt.Sprintf(": %d of %s", done, plural(all, "segment"))
	}
	return standing{text: text}
}

// ended says what an ended proposal means: an amendment has still to be adopted.
func (w *waiter) ended(scope *meshpb.Scope, e *meshpb.Ending) standing {
	switch {
	case e.GetOutcome() != "decided":
		text := fmt.Sprintf("%s is %s", proposalName(w.ref), e.GetOutcome())
		return standing{failed: true, text: strings.TrimSuffix(text+": "+e.GetNote(), ": ")}
	case e.GetKind() == "amend" && scope.GetInForce() < e.GetVersion():
		return standing{text: fmt.Sprintf("version %s", versionText(scope))}
	case e.GetKind() == "amend":
		return standing{done: true, text: fmt.Sprintf("version %d is in force", e.GetVersion())}
	case e.GetKind() == "create":
		return standing{done: true, text: "its policy is in force"}
	}
	return standing{done: true, text: "it is done"}
}
