package torture

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/anchormesh/anchormesh/testnet/torture/fault"
	"github.com/anchormesh/anchormesh/testnet/torture/govern"
	"github.com/anchormesh/anchormesh/testnet/torture/structure"
	"github.com/anchormesh/anchormesh/testnet/torture/target"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
	"github.com/anchormesh/anchormesh/testnet/torture/verify"
)

// Injected is a fault as it was done. Times are of the history's clock.
type Injected struct {
	fault.Fault
	Victim    int           `json:"victim"`
	From      time.Duration `json:"from"`
	Healed    time.Duration `json:"healed"`
	Recovered time.Duration `json:"recovered"` // every node served again
	Until     time.Duration `json:"until"`
	// Outage is the longest time without an acknowledged write through any node.
	Outage time.Duration `json:"outage"`
	// Others is the longest such time through one node that was not harmed; only of
	// faults of a single node.
	Others time.Duration `json:"others"`
}

// Judgement is a verdict in a report.
type Judgement struct {
	Scope   string `json:"scope,omitempty"` // of whose users it is
	Checker string `json:"checker"`
	Judged  int    `json:"judged"`
	Broken  string `json:"broken,omitempty"`
}

// Report is what came of a run.
type Report struct {
	Seed      uint64                   `json:"seed"`
	Length    time.Duration            `json:"length"`
	Goal      time.Duration            `json:"outage_goal,omitempty"`
	Nodes     []string                 `json:"nodes"`
	Skipped   map[fault.Kind]string    `json:"skipped,omitempty"`
	Means     string                   `json:"delay_and_loss_by,omitempty"`
	Faults    []Injected               `json:"faults"`
	Structure *structure.Report        `json:"structure,omitempty"`
	Policies  *govern.Report           `json:"policies,omitempty"`
	Automatic map[string]int           `json:"automatic,omitempty"` // changes that nodes made by themselves, at least
	Traffic   map[string]traffic.Count `json:"traffic"`
	// Scopes is the traffic in each scope.
	Scopes     map[string]map[string]traffic.Count `json:"scopes,omitempty"`
	Errors     map[string]int                      `json:"errors"` // what clients were told
	Judgements []Judgement                         `json:"judgements"`
	Violations []string                            `json:"violations"`
}

func newReport(cfg Config, t *target.Target) *Report {
	r := &Report{Seed: cfg.Seed, Goal: cfg.OutageGoal, Nodes: t.Names, Skipped: t.Missing, Violations: []string{}, Scopes: map[string]map[string]traffic.Count{}}
	if n, ok := t.Network.(interface{ Means() string }); ok {
		r.Means = n.Means()
	}
	return r
}

// broken notes a violation; a nil error is none.
func (r *Report) broken(what string, err error) {
	if err != nil {
		r.Violations = append(r.Violations, what+": "+err.Error())
	}
}

func (r *Report) verdict(name string, judged int, err error) { r.scoped("", name, judged, err) }

// scoped is a verdict on what the users of a scope saw.
func (r *Report) scoped(scope, name string, judged int, err error) {
	j := Judgement{Scope: scope, Checker: name, Judged: judged}
	if err != nil {
		j.Broken = err.Error()
	}
	r.Judgements = append(r.Judgements, j)
	if scope != "" {
		name = "scope " + scope + ": " + name
	}
	r.broken(name, err)
}

func (r *Report) judge(log *traffic.Log, verdicts []verify.Verdict) {
	r.Traffic, r.Errors = log.Counts, log.Errors
	for _, v := range verdicts {
		r.verdict(v.Name, v.Judged, v.Err)
	}
}

// outages measures each fault's outage, and judges it if there is a goal.
func (r *Report) outages(acks []traffic.Ack, faults []Injected) {
	for _, f := range faults {
		f.Outage = verify.Outage(acks, nil, f.From, f.Until)
		if f.Kind.Single() && f.Kind != fault.Rolling {
			for i := range r.Nodes {
				if i != f.Victim {
					f.Others = max(f.Others, verify.Outage(acks, map[int]bool{i: true}, f.From, f.Until))
				}
			}
		}
		r.Faults = append(r.Faults, f)
		if r.Goal > 0 && f.Kind.Single() && f.Outage > r.Goal {
			r.broken(f.String(), fmt.Errorf("no write was acknowledged for %v, the goal is %v", f.Outage, r.Goal))
		}
	}
}

// Longest returns the longest outage after a fault of a single node.
func (r *Report) Longest() (longest Injected) {
	for _, f := range r.Faults {
		if f.Kind.Single() && f.Outage > longest.Outage {
			longest = f
		}
	}
	return longest
}

func ms(d time.Duration) string { return d.Round(time.Millisecond).String() }

// Print writes the report for people.
func (r *Report) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "seed %d, %d nodes, %v of traffic, %d faults\n\n", r.Seed, len(r.Nodes), r.Length.Round(time.Second), len(r.Faults))
	r.printFaults(w)
	fmt.Fprintln(w, "\nOPERATION\tANSWERED\tUNKNOWN\tREFUSED")
	for _, name := range slices.Sorted(maps.Keys(r.Traffic)) {
		c := r.Traffic[name]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", name, c.OK, c.Unknown, c.Refused)
	}
	r.printScopes(w)
	r.printStructure(w)
	r.printVerdicts(w)
	longest := r.Longest()
	fmt.Fprintf(w, "\nlongest outage of writes after a fault of a single node: %s", ms(longest.Outage))
	if longest.N > 0 {
		fmt.Fprintf(w, " (%s, victim %s)", longest.Fault, r.Nodes[longest.Victim])
	}
	fmt.Fprintf(w, "\nviolations: %d\n", len(r.Violations))
	for _, v := range r.Violations {
		fmt.Fprintf(w, "VIOLATION: %s\n", v)
	}
	return w.Flush()
}

// printVerdicts takes the checkers of a scope together, but for those that found something.
func (r *Report) printVerdicts(w io.Writer) {
	fmt.Fprintln(w, "\nCHECKER\tJUDGED\tVERDICT")
	checkers, judged := map[string]int{}, map[string]int{}
	for _, j := range r.Judgements {
		switch {
		case j.Broken != "":
			fmt.Fprintf(w, "%s\t%d\tBROKEN\n", strings.TrimSpace(j.Scope+" "+j.Checker), j.Judged)
		case j.Scope != "":
			checkers[j.Scope], judged[j.Scope] = checkers[j.Scope]+1, judged[j.Scope]+j.Judged
		default:
			fmt.Fprintf(w, "%s\t%d\tholds\n", j.Checker, j.Judged)
		}
	}
	for _, scope := range slices.Sorted(maps.Keys(checkers)) {
		fmt.Fprintf(w, "scope %s: %d checkers\t%d\thold\n", scope, checkers[scope], judged[scope])
	}
}

func (r *Report) printScopes(w io.Writer) {
	if r.Policies == nil {
		return
	}
	fmt.Fprintln(w, "\nSCOPE\tANSWERED\tUNKNOWN\tREFUSED")
	for _, name := range slices.Sorted(maps.Keys(r.Scopes)) {
		var sum traffic.Count
		for _, c := range r.Scopes[name] {
			sum.OK, sum.Unknown, sum.Refused = sum.OK+c.OK, sum.Unknown+c.Unknown, sum.Refused+c.Refused
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", name, sum.OK, sum.Unknown, sum.Refused)
	}
	fmt.Fprintln(w, "\nCHANGE OF POLICY\tIN FORCE\tLATE\tUNKNOWN\tREFUSED")
	for _, kind := range slices.Sorted(maps.Keys(r.Policies.Changes)) {
		c := r.Policies.Changes[kind]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\n", kind, c.Done, c.Late, c.Unknown, c.Refused)
	}
}

func (r *Report) printStructure(w io.Writer) {
	if r.Structure == nil {
		return
	}
	fmt.Fprintln(w, "\nCHANGE OF STRUCTURE\tDONE\tUNKNOWN\tREFUSED")
	for _, kind := range slices.Sorted(maps.Keys(r.Structure.Changes)) {
		c := r.Structure.Changes[kind]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", kind, c.Done, c.Unknown, c.Refused)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Automatic)) {
		fmt.Fprintf(w, "%s by the nodes themselves\t%d\n", kind, r.Automatic[kind])
	}
}

func (r *Report) printFaults(w io.Writer) {
	fmt.Fprintln(w, "FAULT\tTIMES\tLONGEST OUTAGE\tTHROUGH ONE HEALTHY NODE\tLONGEST RECOVERY")
	for _, k := range fault.Kinds() {
		var times int
		var outage, others, recovery time.Duration
		for _, f := range r.Faults {
			if f.Kind == k {
				times++
				outage, others, recovery = max(outage, f.Outage), max(others, f.Others), max(recovery, f.Recovered-f.Healed)
			}
		}
		if reason, skipped := r.Skipped[k]; skipped {
			fmt.Fprintf(w, "%s\tskipped: %s\n", k, reason)
		} else if times == 0 {
			fmt.Fprintf(w, "%s\t0\n", k)
		} else if k.Single() && k != fault.Rolling {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", k, times, ms(outage), ms(others), ms(recovery))
		} else {
			fmt.Fprintf(w, "%s\t%d\t%s\t-\t%s\n", k, times, ms(outage), ms(recovery))
		}
	}
	if r.Means != "" {
		fmt.Fprintf(w, "\ndelay and loss by %s\n", r.Means)
	}
}
