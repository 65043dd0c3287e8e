package scope

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

// errReplay: something that is kept does not follow from the rest.
var errReplay = errors.New("the replay does not come out as it is kept")

// replayView is what became of replaying a scope's ledgers and counting its decisions
// again. Whatever has a problem is wrong.
type replayView struct {
	Scope   string       `json:"scope"`
	Ledgers []ledgerView `json:"ledgers"`
	Counts  []countView  `json:"counts"`
}

type ledgerView struct {
	Segment    string   `json:"segment"`
	Range      string   `json:"range"`
	From       uint64   `json:"from"` // version of the checkpoint
	Checkpoint string   `json:"checkpoint"`
	To         uint64   `json:"to"`
	SignedBy   []string `json:"signed_by"`
	Problem    string   `json:"problem,omitempty"`
}

type countView struct {
	Proposal uint64 `json:"proposal"`
	Kind     string `json:"kind"`
	Decided  bool   `json:"decided"`
	Ledger   uint64 `json:"ledger"` // version that gave the weights
	Approved uint64 `json:"approved"`
	Refused  uint64 `json:"refused"`
	Total    uint64 `json:"total"`
	Needed   uint64 `json:"needed"`
	// Weights: the ledger gives these weights when it is replayed; else it does not keep
	// that version any more, or not yet.
	Weights bool   `json:"weights_replayed"`
	Problem string `json:"problem,omitempty"`
}

// replay replays the ledgers of a scope here, from what one node sends.
func replay(cmd *cobra.Command, a *ask.Asker, prefix []byte) error {
	var ledgers *meshpb.TrustReply
	var history *meshpb.ScopeHistoryReply
	err := a.Scopes(cmd.Context(), func(ctx context.Context, c meshpb.ScopesClient) (err error) {
		if history, err = c.History(ctx, &meshpb.ScopeHistoryRequest{Prefix: prefix}); err != nil {
			return err
		}
		ledgers, err = c.Trust(ctx, &meshpb.TrustRequest{Prefix: prefix, Ledger: true})
		return err
	})
	if err != nil {
		return err
	}
	v := replayed(string(prefix), ledgers, history)
	if a.Out.ForPeople() {
		err = v.print(cmd.OutOrStdout())
	} else {
		err = a.Out.Print(cmd.OutOrStdout(), v)
	}
	return errors.Join(err, v.wrong())
}

func replayed(prefix string, ledgers *meshpb.TrustReply, history *meshpb.ScopeHistoryReply) *replayView {
	v := &replayView{Scope: prefix, Ledgers: []ledgerView{}, Counts: []countView{}}
	var home *trust.Ledger
	for _, s := range ledgers.GetSegments() {
		one, l := replayLedger(s)
		v.Ledgers = append(v.Ledgers, one)
		if string(s.GetStart()) == prefix {
			home = l
		}
	}
	for _, c := range history.GetCounts() {
		v.Counts = append(v.Counts, recount(c, home))
	}
	return v
}

func replayLedger(s *meshpb.SegmentTrust) (v ledgerView, l *trust.Ledger) {
	v = ledgerView{Segment: segmentName(s.GetSegment()), Range: rangeText(s.GetStart(), s.GetEnd()), SignedBy: []string{}}
	l, err := trust.Read(s.GetLedger())
	if err != nil {
		v.Problem = err.Error()
		return v, nil
	}
	var digest anchormesh.Hash
	v.From, digest = l.Oldest()
	v.Checkpoint, v.To = digest.String(), l.Version()
	by, err := l.Verify(wire.SignedBy)
	for _, n := range by {
		v.SignedBy = append(v.SignedBy, string(n))
	}
	if err != nil {
		v.Problem = err.Error()
	}
	return v, l
}

// recount counts the votes of a decision again, with the weights that it was entered
// with, and compares these with what the home's ledger gives.
func recount(c *meshpb.Count, home *trust.Ledger) countView {
	t := c.GetTally()
	v := countView{
		Proposal: c.GetProposal(), Kind: c.GetKind(), Decided: c.GetDecided(), Ledger: c.GetLedger(),
		Approved: t.GetApproved(), Refused: t.GetRefused(), Total: t.GetTotal(), Needed: t.GetNeeded(),
	}
	count, err := readCount(c)
	if err == nil {
		_, err = count.Again()
	}
	if err != nil {
		v.Problem = err.Error()
		return v
	}
	var voters []anchormesh.NodeID
	for _, w := range count.Basis.Weights {
		voters = append(voters, w.Node)
	}
	e, kept := home.ElectorateAt(count.Basis.Ledger, voters, count.Basis.Thresholds...)
	if kept && !slices.Equal(e.Basis().Weights, count.Basis.Weights) {
		v.Problem = fmt.Sprintf("version %d of the ledger weighs %v, and the votes were counted by %v", count.Basis.Ledger, e.Basis().Weights, count.Basis.Weights)
	}
	v.Weights = kept && v.Problem == ""
	return v
}

func readCount(c *meshpb.Count) (*scope.Count, error) {
	t := c.GetTally()
	out := &scope.Count{
		Proposal: c.GetProposal(), Decided: c.GetDecided(), Policy: c.GetPolicy(),
		Tally: scope.Tally{Approved: t.GetApproved(), Refused: t.GetRefused(), Total: t.GetTotal(), Needed: t.GetNeeded()},
	}
	out.Basis.Ledger = c.GetLedger()
	for _, text := range append([]string{c.GetThreshold()}, c.GetThresholds()...) {
		var f trust.Threshold
		if text != "" {
			if err := f.UnmarshalText([]byte(text)); err != nil {
				return nil, err
			}
		}
		out.Basis.Thresholds = append(out.Basis.Thresholds, f)
	}
	out.Threshold, out.Basis.Thresholds = out.Basis.Thresholds[0], out.Basis.Thresholds[1:]
	for _, w := range c.GetVoters() {
		said, err := scope.ReadVerdict(w.GetVerdict())
		if err != nil {
			return nil, err
		}
		out.Basis.Weights = append(out.Basis.Weights, trust.Weight{Node: anchormesh.NodeID(w.GetNode()), Weight: w.GetWeight()})
		out.Votes = append(out.Votes, said)
	}
	return out, nil
}

// wrong wraps errReplay if anything has a problem.
func (v *replayView) wrong() error {
	var out []error
	for _, l := range v.Ledgers {
		if l.Problem != "" {
			out = append(out, fmt.Errorf("%w: segment %s: %s", errReplay, l.Segment, l.Problem))
		}
	}
	for _, c := range v.Counts {
		if c.Problem != "" {
			out = append(out, fmt.Errorf("%w: proposal %d: %s", errReplay, c.Proposal, c.Problem))
		}
	}
	return errors.Join(out...)
}

func (v *replayView) print(w io.Writer) error {
	var rows [][]string
	for _, l := range v.Ledgers {
		var by []string
		for _, n := range l.SignedBy {
			by = append(by, short(n))
		}
		checkpoint := l.Checkpoint[:min(len(l.Checkpoint), 12)]
		rows = append(rows, []string{
			l.Segment, l.Range, fmt.Sprintf("%d to %d", l.From, l.To), checkpoint, strings.Join(by, ", "), result(l.Problem, "follows"),
		})
	}
	if err := ask.PrintTable(w, []string{"SEGMENT", "RANGE", "VERSIONS", "CHECKPOINT", "SIGNED BY", "REPLAY"}, rows); err != nil || len(v.Counts) == 0 {
		return err
	}
	rows = nil
	for _, c := range v.Counts {
		outcome, weights := "refused", "of a version that is not kept"
		if c.Decided {
			outcome = "decided"
		}
		if c.Weights {
			weights = "replayed"
		}
		votes := tallyText(&meshpb.Tally{Approved: c.Approved, Refused: c.Refused, Total: c.Total, Needed: c.Needed})
		rows = append(rows, []string{
			strconv.FormatUint(c.Proposal, 10), c.Kind, outcome, votes, fmt.Sprintf("%d, %s", c.Ledger, weights), result(c.Problem, "the same"),
		})
	}
	fmt.Fprintln(w)
	return ask.PrintTable(w, []string{"PROPOSAL", "KIND", "OUTCOME", "VOTES", "WEIGHTS", "COUNTED AGAIN"}, rows)
}

// result is loud about a problem.
func result(problem, well string) string {
	if problem != "" {
		return "MISMATCH: " + problem
	}
	return well
}
