package torture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/torture/audit"
	"github.com/anchormesh/anchormesh/testnet/torture/fault"
	"github.com/anchormesh/anchormesh/testnet/torture/govern"
	"github.com/anchormesh/anchormesh/testnet/torture/structure"
	"github.com/anchormesh/anchormesh/testnet/torture/target"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
	"github.com/anchormesh/anchormesh/testnet/torture/verify"
)

// ErrEnded: a node ended though nothing was done to it that makes it.
var ErrEnded = errors.New("node ended by itself")

const (
	warmUp      = 3 * time.Second  // of traffic before the first fault
	finishLimit = 2 * time.Minute  // for the last reads and the watches
	leaseLate   = 90 * time.Second // after its promise a lease must be gone: times without a leader, and a TTL anew with each
	fullLinger  = time.Second
	surge       = 150              // writes per second that provoke splits
	searchLimit = 20 * time.Second // for one register's history
)

// run is one run.
type run struct {
	cfg     Config
	target  *target.Target
	ask     *asker
	inject  injector
	traffic *traffic.Traffic
	surgeon *structure.Surgeon // nil: nothing changes the structure
	tally   *structure.Tally   // nil: the nodes are not to change it by themselves
	report  *Report

	governor *govern.Governor // nil: there are no scopes
	scopes   []*tenant
	keeper   *audit.Keeper
	lineage  audit.Lineage // that it found
}

// Run tortures a mesh that serves. The report is valid if the error is nil; it says
// whether promises were broken. The log is what clients saw.
func Run(ctx context.Context, cfg Config, t *target.Target) (*Report, *traffic.Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	kinds := t.Kinds()
	if len(cfg.Kinds) > 0 {
		kinds = slices.DeleteFunc(kinds, func(k fault.Kind) bool { return !slices.Contains(cfg.Kinds, k) })
	}
	plan, err := fault.Plan(fault.Config{Seed: cfg.Seed, Count: cfg.Faults, Nodes: len(t.Names), Kinds: kinds, Within: cfg.Length})
	if err != nil {
		return nil, nil, err
	}
	r := &run{cfg: cfg, target: t, report: newReport(cfg, t)}
	if r.ask, err = newAsker(t); err != nil {
		return nil, nil, err
	}
	defer r.ask.close()
	r.inject = injector{t: t, ready: r.ask.ready, bulk: r.ask.bulk}
	load := cfg.Traffic
	load.Endpoints, load.Names, load.Seed = t.Endpoints, t.Names, cfg.Seed
	load.Prefix = fmt.Sprintf("torture/%d-%d/", cfg.Seed, time.Now().UnixNano())
	if err := r.begin(ctx, load); err != nil {
		return nil, nil, errors.Join(err, r.end())
	}
	log, err := r.perform(ctx, plan)
	return r.report, log, errors.Join(err, r.end())
}

// begin starts users and operators.
func (r *run) begin(ctx context.Context, load traffic.Config) (err error) {
	if err := r.tenants(ctx, load); err != nil {
		return err
	}
	if len(r.scopes) > 0 {
		load.Hold = r.hold
	}
	if r.cfg.Automatic > 0 {
		load.Surge = surge
		if len(r.target.Metrics) == 0 {
			return errors.New("torture: this target has no metrics to count automatic changes by")
		}
		if err := structure.Touchy(ctx, r.target.Endpoints); err != nil {
			return err
		}
	}
	if r.traffic, err = traffic.Start(ctx, load); err != nil {
		return err
	}
	return r.operate(ctx)
}

func (r *run) end() (err error) {
	if r.governor == nil {
		return nil
	}
	if r.keeper != nil {
		_, err = r.keeper.Stop()
	}
	return errors.Join(err, r.governor.Close())
}

// operate begins to change the structure, if that is wanted.
func (r *run) operate(ctx context.Context) (err error) {
	if r.governor != nil {
		r.governor.Start(ctx)
	}
	if r.cfg.Changes == 0 {
		return nil
	}
	tries := 4
	if r.cfg.Automatic > 0 {
		tries = 2
		r.tally = structure.StartTally(ctx, r.target.Metrics)
	}
	r.surgeon, err = structure.Start(ctx, structure.Config{
		Endpoints: r.target.Endpoints, Seed: r.cfg.Seed, Every: max(100*time.Millisecond, r.cfg.Length/time.Duration(tries*r.cfg.Changes)),
		Boundary: r.boundary, Beside: 2 * len(r.scopes),
		Note: func(what string, err error) { r.cfg.Log.Info("structure", "what", what, "err", err) },
	})
	return err
}

// close ends the changes of structure and policies and says what came of them.
func (r *run) close() {
	if r.governor != nil {
		r.report.Policies = r.governor.Stop()
	}
	if r.surgeon == nil {
		return
	}
	r.report.Structure = r.surgeon.Stop()
	done := r.report.Structure.Done()
	if r.tally != nil {
		r.report.Automatic = r.tally.Stop()
		alone := r.report.Automatic["split"] + r.report.Automatic["merge"]
		done += alone
		r.enough("structure: as many automatic changes as were wanted", alone, r.cfg.Automatic)
	}
	r.enough("structure: as many changes as were wanted", done, r.cfg.Changes)
}

// enough judges how many changes were done.
func (r *run) enough(name string, done, wanted int) {
	var err error
	if done < wanted {
		err = fmt.Errorf("%d of %d were done", done, wanted)
	}
	r.report.verdict(name, done, err)
}

// perform is the run proper: faults, healing, judgement.
func (r *run) perform(ctx context.Context, plan []fault.Fault) (*traffic.Log, error) {
	began := time.Now()
	faults := r.faults(ctx, plan)
	hold(ctx, r.cfg.Length-time.Since(began))
	r.report.Length = time.Since(began)
	r.close()
	r.traffic.StopWork()
	for _, t := range r.scopes {
		t.traffic.StopWork()
	}
	_, err := r.inject.heal(context.WithoutCancel(ctx))
	r.report.broken("healing", err)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("torture: interrupted: %w", ctx.Err())
	}
	r.report.broken("recovery", r.ready(ctx))
	finish, cancel := context.WithTimeout(ctx, finishLimit)
	defer cancel()
	r.settle(finish)
	log, err := r.traffic.Stop(finish)
	r.report.broken("end of traffic", err)
	ended := r.traffic.Now()
	r.leave(finish)
	r.atRest(ctx)
	r.audit(ctx)
	r.report.judge(log, verify.All(log, Bounds(ended)))
	r.report.verdict("errors: none but those that etcd's clients retry", len(log.Errors), verify.Retryable(log))
	r.report.outages(log.Acks, faults)
	return log, ctx.Err()
}

// Bounds are those of a run that ended at a time of its history.
func Bounds(ended time.Duration) verify.Bounds {
	return verify.Bounds{Lease: check.LeaseBounds{Late: leaseLate}, Until: ended, Limit: searchLimit}
}

// atRest asks the nodes what can be asked only when nothing changes any more: equal
// hashes, before and after a compaction, and no lease left.
func (r *run) atRest(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaseLate)
	defer cancel()
	r.report.verdict("no lease is left", 1, r.ask.leasesGone(ctx))
	n, rev, err := r.ask.hashes(ctx)
	r.report.verdict("HashKV is equal on all nodes", n, err)
	if err == nil {
		err = r.ask.compact(ctx, rev)
	}
	if err == nil {
		n, _, err = r.ask.hashes(ctx)
	}
	r.report.verdict("HashKV is equal after a compaction", n, err)
	if r.surgeon != nil {
		n, err = structure.Verify(ctx, r.target.Endpoints)
		r.report.verdict("anchormesh verify finds nothing", n, err)
	}
}

func (r *run) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Recovery)
	defer cancel()
	return r.ask.ready(ctx)
}

// faults does a plan. It falls behind its time if recovery takes long, and gives up
// when a mesh does not recover.
func (r *run) faults(ctx context.Context, plan []fault.Fault) []Injected {
	began := time.Now()
	hold(ctx, warmUp)
	var out []Injected
	for i, f := range plan {
		if ctx.Err() != nil {
			return out
		}
		hold(ctx, time.Until(began.Add(warmUp+time.Duration(i)*(r.cfg.Length-warmUp)/time.Duration(len(plan)))))
		done, err := r.one(ctx, f)
		out = append(out, done)
		if err != nil && ctx.Err() == nil {
			r.report.broken(f.String(), err)
			if errors.Is(err, ErrNotRecovered) {
				return out
			}
		}
	}
	return out
}

// one does one fault and waits until every node serves again.
func (r *run) one(ctx context.Context, f fault.Fault) (Injected, error) {
	node := f.Node
	if f.Whom == fault.Leader {
		if leader := r.ask.leader(ctx); leader >= 0 {
			node = leader
		}
	}
	done := Injected{Fault: f, Victim: node, From: r.traffic.Now()}
	err := r.inject.begin(ctx, f, node)
	r.inject.last(ctx, f)
	revived, healErr := r.inject.heal(context.WithoutCancel(ctx))
	done.Healed = r.traffic.Now()
	err = errors.Join(err, healErr)
	for _, i := range revived {
		if !mayEnd(f, node, i) {
			err = errors.Join(err, fmt.Errorf("%w: %s: %s", ErrEnded, r.target.Names[i], r.target.Machines.LogTail(i)))
		}
	}
	if f.Kind == fault.Full { // it may have been about to end just when it got room
		hold(ctx, fullLinger)
		_, again := r.target.Revive(ctx)
		err = errors.Join(err, again)
	}
	err = errors.Join(err, r.ready(ctx))
	done.Recovered = r.traffic.Now()
	r.cfg.Log.Info("fault", "what", f.String(), "victim", r.target.Names[node], "recovery", (done.Recovered - done.Healed).Round(time.Millisecond), "err", err)
	hold(ctx, f.Rest)
	done.Until = r.traffic.Now()
	return done, err
}
