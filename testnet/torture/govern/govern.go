package govern

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh/internal/meshpb"
)

const (
	// TemporaryMax bounds the scopes that come and go.
	TemporaryMax = 3
	askTimeout   = 5 * time.Second
	forceTimeout = 15 * time.Second // until a change is in force
	beginTimeout = time.Minute      // for each of the first scopes
	poll         = 200 * time.Millisecond
	reasonsMax   = 40 // texts of refusals that are kept
)

// Config says what is governed.
type Config struct {
	Endpoints []string // client URLs, one per node
	Seed      uint64
	Every     time.Duration // between two changes; what one takes counts
	Base      string        // of the prefixes of all scopes; it ends with '/'
	Note      func(what string, err error)
}

// Count is how many changes of a kind ended how.
type Count struct {
	Done    int `json:"done"`
	Late    int `json:"late"`
	Refused int `json:"refused"`
	Unknown int `json:"unknown"`
}

// Asked is a change that was asked for.
type Asked struct {
	Scope    string `json:"scope"`
	Operator string `json:"operator"`
	Document string `json:"document"`
	Told     uint64 `json:"told,omitempty"` // the version that was told to be in force
}

// Report is what came of it.
type Report struct {
	Changes map[string]Count `json:"changes"`
	Reasons map[string]int   `json:"reasons"` // of what was not done; bounded
	Asked   []Asked          `json:"asked"`
}

// Done is how many changes are in force.
func (r *Report) Done() (n int) {
	for _, c := range r.Changes {
		n += c.Done
	}
	return n
}

// Governor governs a mesh.
type Governor struct {
	Scopes []Scope

	cfg     Config
	rng     *rand.Rand
	conns   []*grpc.ClientConn
	running sync.WaitGroup
	stop    context.CancelFunc
	report  Report
	comings []string // prefixes of those that come and go
	number  int
}

// Create makes the scopes that stay, and returns when all are in force. On error
// nothing is left open.
func Create(ctx context.Context, cfg Config) (*Governor, error) {
	g := &Governor{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x60f)), stop: func() {},
		report: Report{Changes: map[string]Count{}, Reasons: map[string]int{}},
	}
	for _, e := range cfg.Endpoints {
		_, host, _ := strings.Cut(e, "://")
		// An operator waits for a node that is being started again.
		conn, err := grpc.NewClient(host, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.conns = append(g.conns, conn)
	}
	for _, s := range standing() {
		s.Prefix = cfg.Base + s.Name + "/"
		g.Scopes = append(g.Scopes, s)
		if err := g.begin(ctx, s); err != nil {
			return nil, errors.Join(fmt.Errorf("govern: scope %q: %w", s.Prefix, err), g.close())
		}
	}
	return g, nil
}

// begin creates a scope, and insists.
func (g *Governor) begin(ctx context.Context, s Scope) error {
	ctx, cancel := context.WithTimeout(ctx, beginTimeout)
	defer cancel()
	for {
		err := g.create(ctx, s.Prefix, document(g.rng, s.Name, len(g.conns)))
		if err == nil || status.Code(err) == codes.AlreadyExists {
			return g.inForce(ctx, s.Prefix)
		}
		if !pause(ctx, poll) {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Start begins to change things; Stop ends it.
func (g *Governor) Start(ctx context.Context) {
	ctx, g.stop = context.WithCancel(ctx)
	g.running.Go(func() {
		for pause(ctx, g.cfg.Every) {
			g.step(ctx)
		}
	})
}

// Stop ends the changes and returns what came of them.
func (g *Governor) Stop() *Report {
	g.stop()
	g.running.Wait()
	return &g.report
}

// Close ends everything.
func (g *Governor) Close() error {
	g.Stop()
	return g.close()
}

func (g *Governor) close() error {
	var problems []error
	for _, c := range g.conns {
		problems = append(problems, c.Close())
	}
	return errors.Join(problems...)
}

func (g *Governor) client() meshpb.ScopesClient {
	return meshpb.NewScopesClient(g.conns[g.rng.IntN(len(g.conns))])
}

// step draws one change and sees it through.
func (g *Governor) step(ctx context.Context) {
	switch n := g.rng.IntN(100); {
	case n < 15 && len(g.comings) < TemporaryMax:
		prefix := fmt.Sprintf("%stmp%d/", g.cfg.Base, g.number)
		err := g.create(ctx, prefix, document(g.rng, "", len(g.conns)))
		if status.Code(err) != codes.InvalidArgument { // else it may be there, later
			g.comings = append(g.comings, prefix)
		}
		g.count(ctx, "create", prefix, err)
	case n < 35 && len(g.comings) > 0:
		i := g.rng.IntN(len(g.comings))
		prefix := g.comings[i]
		err := g.remove(ctx, prefix)
		if err == nil || status.Code(err) == codes.NotFound {
			g.comings = slices.Delete(g.comings, i, i+1)
		}
		g.count(ctx, "delete", prefix, err)
	default:
		s := g.Scopes[g.rng.IntN(len(g.Scopes))]
		g.count(ctx, "amend "+s.Name, s.Prefix, g.amend(ctx, s.Prefix, document(g.rng, s.Name, len(g.conns))))
	}
}

// ask files a change before it is asked for.
func (g *Governor) ask(prefix, document string) *Asked {
	g.number++
	g.report.Asked = append(g.report.Asked, Asked{Scope: prefix, Operator: fmt.Sprintf("operator-%d-%d", g.cfg.Seed, g.number), Document: document})
	return &g.report.Asked[len(g.report.Asked)-1]
}

func (g *Governor) create(ctx context.Context, prefix, document string) error {
	a := g.ask(prefix, document)
	short, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := g.client().Create(short, &meshpb.CreateScopeRequest{Prefix: []byte(prefix), Policy: document, Operator: a.Operator}); err != nil {
		return err
	}
	return g.see(ctx, a)
}

func (g *Governor) amend(ctx context.Context, prefix, document string) error {
	a := g.ask(prefix, document)
	short, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := g.client().Set(short, &meshpb.SetScopeRequest{Prefix: []byte(prefix), Policy: document, Operator: a.Operator}); err != nil {
		return err
	}
	return g.see(ctx, a)
}

var errLate = errors.New("it stands, and is not in force in time")

// see waits until a change is in force.
func (g *Governor) see(ctx context.Context, a *Asked) error {
	ctx, cancel := context.WithTimeout(ctx, forceTimeout)
	defer cancel()
	for pause(ctx, poll) {
		history, err := g.history(ctx, a.Scope)
		if err != nil {
			continue
		}
		shown, err := g.show(ctx, a.Scope)
		if err != nil {
			continue
		}
		for _, v := range history.GetVersions() {
			if v.GetOperator() == a.Operator && shown.GetInForce() >= v.GetNumber() {
				a.Told = v.GetNumber()
				return nil
			}
		}
		for _, e := range history.GetEndings() {
			if e.GetOperator() == a.Operator && e.GetOutcome() != "decided" {
				return status.Errorf(codes.FailedPrecondition, "the proposal ended as %s", e.GetOutcome())
			}
		}
	}
	return errLate
}

func (g *Governor) show(ctx context.Context, prefix string) (*meshpb.Scope, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply, err := g.client().Show(ctx, &meshpb.ShowScopeRequest{Prefix: []byte(prefix)})
	return reply.GetScope(), err
}

func (g *Governor) history(ctx context.Context, prefix string) (*meshpb.ScopeHistoryReply, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return g.client().History(ctx, &meshpb.ScopeHistoryRequest{Prefix: []byte(prefix)})
}

func (g *Governor) remove(ctx context.Context, prefix string) error {
	short, cancel := context.WithTimeout(ctx, askTimeout)
	_, err := g.client().Delete(short, &meshpb.DeleteScopeRequest{Prefix: []byte(prefix), Operator: "remover"})
	cancel()
	if err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, forceTimeout)
	defer cancel()
	for pause(ctx, poll) {
		if _, err := g.show(ctx, prefix); status.Code(err) == codes.NotFound {
			return nil
		}
	}
	return errLate
}

// inForce waits until all that was decided about a scope is in force and nothing is open.
func (g *Governor) inForce(ctx context.Context, prefix string) error {
	for {
		s, err := g.show(ctx, prefix)
		switch {
		case err != nil:
		case s.GetVersion() == 0 || s.GetInForce() != s.GetVersion():
			err = fmt.Errorf("version %d is decided, and %d in force: %v", s.GetVersion(), s.GetInForce(), s.GetSegments())
		case s.GetDoing() != nil:
			err = fmt.Errorf("it is still being done: %v", s.GetDoing())
		case len(s.GetOpen()) > 0:
			err = fmt.Errorf("proposals are open: %v", s.GetOpen())
		default:
			return nil
		}
		if !pause(ctx, poll) {
			return err
		}
	}
}

// Settle returns when everything that was decided is in force, in the scopes that stay
// and in those that are left of the others.
func (g *Governor) Settle(ctx context.Context) (scopes int, err error) {
	for _, s := range g.Scopes {
		if err := g.inForce(ctx, s.Prefix); err != nil {
			return scopes, fmt.Errorf("scope %q: %w", s.Prefix, err)
		}
		scopes++
	}
	for _, prefix := range g.comings {
		if _, err := g.show(ctx, prefix); status.Code(err) == codes.NotFound {
			continue
		}
		if err := g.inForce(ctx, prefix); err != nil && !errors.Is(err, context.Canceled) {
			if _, gone := g.show(ctx, prefix); status.Code(gone) == codes.NotFound {
				continue
			}
			return scopes, fmt.Errorf("scope %q: %w", prefix, err)
		}
		scopes++
	}
	return scopes, nil
}

// count files how a change ended.
func (g *Governor) count(ctx context.Context, kind, what string, err error) {
	if ctx.Err() != nil {
		return // cut short by the end of the run
	}
	n := g.report.Changes[kind]
	switch code := status.Code(err); {
	case err == nil:
		n.Done++
	case errors.Is(err, errLate):
		n.Late++
	case code == codes.FailedPrecondition, code == codes.NotFound, code == codes.Aborted, code == codes.AlreadyExists,
		code == codes.InvalidArgument, code == codes.Unavailable:
		n.Refused++
	default:
		n.Unknown++
	}
	g.report.Changes[kind] = n
	if err != nil {
		text := kind + ": " + status.Convert(err).Message()
		if _, known := g.report.Reasons[text]; !known && len(g.report.Reasons) >= reasonsMax {
			text = "others"
		}
		g.report.Reasons[text]++
	}
	if g.cfg.Note != nil {
		g.cfg.Note(kind+" "+what, err)
	}
}
