package scope

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// NewTrust returns the command trust.
func NewTrust() *cobra.Command {
	var a ask.Asker
	var history, again bool
	cmd := &cobra.Command{
		Use:   "trust PREFIX",
		Short: "Show how far the anchors of a scope are trusted",
		Long: `Show what the anchors of each segment of a scope weigh in votes: by the ledger in
the segment's log, and in effect, once the heaviest have been lowered so that no
few of them decide alone and none are missed for ever. Weights go from 1 to 100;
a newcomer has 10. Raft's own elections and commits do not know them.

With --history it shows the entries that are kept: what the others thought of
each anchor (the median of their points), how many of them had seen anything of
it, and its weight behind that.

With --replay it computes every weight again, from the checkpoint at which the
history begins, checks the signatures that vouch for it, and counts the votes of
every decision that the scope keeps again. It ends with status 1 if anything
does not come out as it is kept.`,
		Example: "  anchormesh trust /secrets/\n  anchormesh trust /secrets/ --history -o json\n  anchormesh trust /secrets/ --replay",
		Args:    prefix,
	}
	a.Bind(cmd, ask.YAML)
	cmd.Flags().BoolVar(&history, "history", false, "show how the weights came to be")
	cmd.Flags().BoolVar(&again, "replay", false, "compute every weight and count every decision again, and compare")
	cmd.MarkFlagsMutuallyExclusive("history", "replay")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if again {
			return replay(cmd, &a, []byte(args[0]))
		}
		var reply *meshpb.TrustReply
		err := a.Scopes(cmd.Context(), func(ctx context.Context, c meshpb.ScopesClient) (err error) {
			reply, err = c.Trust(ctx, &meshpb.TrustRequest{Prefix: []byte(args[0])})
			return err
		})
		switch {
		case err != nil:
			return err
		case !a.Out.ForPeople():
			return a.Out.Print(cmd.OutOrStdout(), viewTrust(args[0], reply, history))
		case history:
			return printTrustHistory(cmd.OutOrStdout(), reply)
		}
		return printTrust(cmd.OutOrStdout(), reply)
	}
	return cmd
}

type trustView struct {
	Scope    string             `json:"scope"`
	Segments []segmentTrustView `json:"segments"`
}

type segmentTrustView struct {
	Segment string            `json:"segment"`
	Range   string            `json:"range"`
	Version uint64            `json:"version"`
	Weights []trustWeightView `json:"weights"`
	History []trustStepView   `json:"history,omitempty"`
}

type trustWeightView struct {
	Node      string `json:"node"`
	Weight    uint32 `json:"weight"`
	Effective uint32 `json:"effective"`
}

type trustStepView struct {
	Version  uint64             `json:"version"`
	Index    uint64             `json:"index"`
	Term     uint64             `json:"term"`
	Opinions []trustOpinionView `json:"opinions"`
}

type trustOpinionView struct {
	Node   string `json:"node"`
	Points int32  `json:"points"`
	Of     uint32 `json:"of"`
	Weight uint32 `json:"weight"`
}

func viewTrust(prefix string, reply *meshpb.TrustReply, history bool) trustView {
	out := trustView{prefix, []segmentTrustView{}}
	for _, s := range reply.GetSegments() {
		v := segmentTrustView{Segment: segmentName(s.GetSegment()), Range: rangeText(s.GetStart(), s.GetEnd()), Version: s.GetVersion(), Weights: []trustWeightView{}}
		for _, w := range s.GetWeights() {
			v.Weights = append(v.Weights, trustWeightView{w.GetNode(), w.GetWeight(), w.GetEffective()})
		}
		for _, step := range s.GetHistory() {
			if !history {
				break
			}
			sv := trustStepView{step.GetVersion(), step.GetIndex(), step.GetTerm(), []trustOpinionView{}}
			for _, o := range step.GetOpinions() {
				sv.Opinions = append(sv.Opinions, trustOpinionView{o.GetNode(), o.GetPoints(), o.GetOf(), o.GetWeight()})
			}
			v.History = append(v.History, sv)
		}
		out.Segments = append(out.Segments, v)
	}
	return out
}

func printTrust(w io.Writer, reply *meshpb.TrustReply) error {
	var rows [][]string
	for _, s := range reply.GetSegments() {
		for _, a := range s.GetWeights() {
			effective := "-"
			if a.GetEffective() > 0 {
				effective = strconv.Itoa(int(a.GetEffective()))
			}
			rows = append(rows, []string{
				segmentName(s.GetSegment()), rangeText(s.GetStart(), s.GetEnd()), strconv.FormatUint(s.GetVersion(), 10), short(a.GetNode()), strconv.Itoa(int(a.GetWeight())), effective,
			})
		}
	}
	return ask.PrintTable(w, []string{"SEGMENT", "RANGE", "VERSION", "NODE", "WEIGHT", "COUNTS"}, rows)
}

func printTrustHistory(w io.Writer, reply *meshpb.TrustReply) error {
	var rows [][]string
	for _, s := range reply.GetSegments() {
		for _, step := range s.GetHistory() {
			var opinions []string
			for _, o := range step.GetOpinions() {
				opinions = append(opinions, fmt.Sprintf("%s %+d by %d, now %d", short(o.GetNode()), o.GetPoints(), o.GetOf(), o.GetWeight()))
			}
			rows = append(rows, []string{
				segmentName(s.GetSegment()), strconv.FormatUint(step.GetVersion(), 10), strconv.FormatUint(step.GetIndex(), 10), strings.Join(opinions, "; "),
			})
		}
	}
	return ask.PrintTable(w, []string{"SEGMENT", "VERSION", "INDEX", "OPINIONS"}, rows)
}
