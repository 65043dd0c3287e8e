package torture

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh/testnet/torture/audit"
	"github.com/anchormesh/anchormesh/testnet/torture/govern"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
	"github.com/anchormesh/anchormesh/testnet/torture/verify"
)

// tenant is a scope with users of its own.
type tenant struct {
	govern.Scope
	traffic *traffic.Traffic
	log     *traffic.Log
	ended   time.Duration // on the history's clock
}

// tenants creates the scopes and starts their users, if that is wanted.
func (r *run) tenants(ctx context.Context, load traffic.Config) (err error) {
	if r.cfg.Policies == 0 {
		return nil
	}
	r.governor, err = govern.Create(ctx, govern.Config{
		Endpoints: r.target.Endpoints, Seed: r.cfg.Seed, Base: "scoped/" + load.Prefix,
		Every: max(100*time.Millisecond, r.cfg.Length/time.Duration(2*r.cfg.Policies)),
		Note:  func(what string, err error) { r.cfg.Log.Info("policy", "what", what, "err", err) },
	})
	if err != nil {
		return err
	}
	if r.keeper, err = audit.Keep(context.WithoutCancel(ctx), r.target.Endpoints); err != nil {
		return err
	}
	load.Lean, load.Bad, load.Rate = true, govern.Bad, load.Rate/2
	for i, s := range r.governor.Scopes {
		load.Prefix, load.Seed = s.Prefix, r.cfg.Seed+uint64(i)+1
		users, err := traffic.Start(ctx, load)
		if err != nil {
			return fmt.Errorf("scope %q: %w", s.Prefix, err)
		}
		r.scopes = append(r.scopes, &tenant{Scope: s, traffic: users})
	}
	return nil
}

// boundary draws a key at which somebody works.
func (r *run) boundary(rng *rand.Rand) string {
	if n := len(r.scopes); n > 0 && rng.IntN(2) == 0 {
		return r.scopes[rng.IntN(n)].traffic.Boundary(rng)
	}
	return r.traffic.Boundary(rng)
}

// hold is the revision up to which no watch in a scope needs history.
func (r *run) hold() int64 {
	rev := int64(math.MaxInt64)
	for _, t := range r.scopes {
		rev = min(rev, t.traffic.Seen())
	}
	return rev
}

// settle ends the changes of policies. What was decided has to be in force then.
func (r *run) settle(ctx context.Context) {
	if r.governor == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Recovery)
	defer cancel()
	n, err := r.governor.Settle(ctx)
	r.report.verdict("governance: all that was decided is in force at the end", n, err)
	if done := r.report.Policies.Done(); done < r.cfg.Policies {
		err = fmt.Errorf("%d of %d changes were told to be in force: %v", done, r.cfg.Policies, r.report.Policies.Reasons)
		r.report.verdict("governance: as many changes as were wanted", r.cfg.Policies, err)
	}
}

// leave ends the users of all scopes, when the mesh is whole.
func (r *run) leave(ctx context.Context) {
	var all sync.WaitGroup
	problems := make([]error, len(r.scopes))
	for i, t := range r.scopes {
		all.Go(func() {
			t.log, problems[i] = t.traffic.Stop(ctx)
			t.ended = t.traffic.Now()
		})
	}
	all.Wait()
	for i, t := range r.scopes {
		r.report.broken("end of traffic in "+t.Name, problems[i])
	}
}

// contracts judges what the users of scopes saw; anew is how often segments of a range
// began anew, which only the books tell.
func (r *run) contracts(books *audit.Books) {
	for _, t := range r.scopes {
		r.report.Scopes[t.Name] = t.log.Counts
		verdicts := []verify.Verdict{verify.Rules(t.log, t.Prefix, govern.Bad, t.KeysMax)}
		lost := false
		if t.Light {
			var v verify.Verdict
			v, lost = verify.Light(t.log, books.Anew(t.Prefix))
			verdicts = append(verdicts, v)
		}
		if !lost {
			verdicts = append(verdicts, verify.All(t.log, Bounds(t.ended))...)
		}
		for _, v := range verdicts {
			r.report.scoped(t.Name, v.Name, v.Judged, v.Err)
		}
		r.report.scoped(t.Name, "errors: none but those that etcd's clients retry", len(t.log.Errors), verify.Retryable(t.log))
	}
}

// audit stops the nodes in order, reads their disks, and starts them again.
func (r *run) audit(ctx context.Context) {
	if r.governor == nil {
		return
	}
	var stopped error
	r.lineage, stopped = r.keeper.Stop()
	for i := range r.target.Names {
		stopped = errors.Join(stopped, r.target.Machines.Stop(ctx, i))
	}
	dirs, cleanup, err := r.target.Books(ctx)
	if err == nil {
		err = r.auditors(dirs)
		cleanup()
	}
	_, again := r.target.Revive(ctx)
	r.report.broken("audit", errors.Join(stopped, err, again))
}

func (r *run) auditors(dirs []string) error {
	books, err := audit.Read(dirs)
	if err != nil {
		return err
	}
	books.Lineage = r.lineage
	r.contracts(books)
	c := &audit.Case{Books: books, Verify: audit.Signed}
	for _, a := range r.report.Policies.Asked {
		hash, err := audit.PolicyHash(a.Document, a.Scope) // of none, if it was no policy: nothing in force is that
		if err != nil && a.Told != 0 {
			return fmt.Errorf("audit: %s was told that what is no policy is in force: %w", a.Operator, err)
		}
		c.Asked = append(c.Asked, audit.Asked{Scope: a.Scope, Operator: a.Operator, Policy: hash, Told: a.Told})
	}
	for _, t := range r.scopes {
		if t.Approvals {
			c.Puts = append(c.Puts, shown(t.log)...)
		}
	}
	for _, v := range audit.Judge(c) {
		name := "audit: " + v.Name
		if v.Unknown > 0 {
			name += fmt.Sprintf(" (%d not to be judged)", v.Unknown)
		}
		r.report.verdict(name, v.Judged, v.Err)
	}
	return nil
}

func shown(log *traffic.Log) (out []audit.Put) {
	for _, e := range log.Events {
		if !e.Delete {
			out = append(out, audit.Put{Key: e.KV.Key, Value: e.KV.Value, Revision: e.Rev})
		}
	}
	return out
}
