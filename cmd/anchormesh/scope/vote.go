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
	"google.golang.org/grpc"

	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

func newProposals() *cobra.Command {
	var a ask.Asker
	cmd := &cobra.Command{
		Use:   "proposals [PREFIX]",
		Short: "List what is proposed and not decided yet",
		Long: `List the proposals that are open in a scope, or in all of them, with the weight
of the votes so far: approved + refused of total, and what is needed. Creation
of a scope is proposed to the scope around it.`,
		Example: "  anchormesh scope proposals\n  anchormesh scope proposals /secrets/ -o json",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return ask.Usage(errors.New("want one scope, or none for all of them"))
			}
			return nil
		},
	}
	a.Bind(cmd, ask.YAML)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &meshpb.ProposalsRequest{All: len(args) == 0}
		if len(args) > 0 {
			req.Prefix = []byte(args[0])
		}
		var reply *meshpb.ProposalsReply
		err := a.Scopes(cmd.Context(), func(ctx context.Context, c meshpb.ScopesClient) (err error) {
			reply, err = c.Proposals(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
		for _, problem := range reply.GetProblems() {
			fmt.Fprintln(cmd.ErrOrStderr(), "anchormesh: "+problem)
		}
		if a.Out.ForPeople() {
			return printProposals(cmd.OutOrStdout(), nil, reply.GetProposals())
		}
		views := []proposalView{}
		for _, p := range reply.GetProposals() {
			views = append(views, viewProposal(p))
		}
		return a.Out.Print(cmd.OutOrStdout(), struct {
			Proposals []proposalView `json:"proposals"`
			Problems  []string       `json:"problems,omitempty"`
		}{views, reply.GetProblems()})
	}
	return cmd
}

// printProposals lists proposals: those that were decided and are being carried out, and
// those that are open.
func printProposals(w io.Writer, decided, open []*meshpb.Proposal) error {
	var rows [][]string
	for i, p := range slices.Concat(decided, open) {
		waiting := "decided, being carried out"
		if i >= len(decided) {
			waiting = waitingText(p)
		}
		rows = append(rows, []string{
			strconv.Quote(string(p.GetScope())), strconv.FormatUint(p.GetId(), 10), p.GetKind() + " " + subject(p), p.GetOperator(), atText(p.GetAtUnixMs()), tallyText(p.GetTally()), waiting,
		})
	}
	return ask.PrintTable(w, []string{"IN SCOPE", "PROPOSAL", "WHAT", "OPERATOR", "PROPOSED", "VOTES", "WAITING FOR"}, rows)
}

func subject(p *meshpb.Proposal) string {
	switch {
	case len(p.GetKey()) > 0:
		return fmt.Sprintf("segment %s at %q", segmentName(p.GetSegment()), p.GetKey())
	case p.GetTo() != "":
		return fmt.Sprintf("segment %s from %s to %s", segmentName(p.GetSegment()), short(p.GetFrom()), short(p.GetTo()))
	case p.GetSegment() != 0:
		return "segment " + segmentName(p.GetSegment())
	}
	return strconv.Quote(string(p.GetSubject()))
}

func tallyText(t *meshpb.Tally) string {
	text := fmt.Sprintf("%d of %d, needs %d", t.GetApproved(), t.GetTotal(), t.GetNeeded())
	if t.GetRefused() > 0 {
		text += fmt.Sprintf(" (%d against)", t.GetRefused())
	}
	return text
}

// waitingText names who has not voted, and why others refused.
func waitingText(p *meshpb.Proposal) string {
	var out []string
	for _, n := range p.GetWaiting() {
		out = append(out, short(n))
	}
	text := strings.Join(out, ", ")
	for _, b := range p.GetVotes() {
		if !b.GetApprove() {
			text = strings.TrimPrefix(fmt.Sprintf("%s; %s refused: %s", text, short(b.GetNode()), b.GetWhy()), "; ")
		}
	}
	return text
}

func newVote() *cobra.Command {
	var a ask.Asker
	var approve, refuse bool
	var why string
	cmd := &cobra.Command{
		Use:   "vote PREFIX PROPOSAL",
		Short: "Vote on a proposal in the name of the given nodes",
		Long: `Vote on a proposal in the name of each of the given nodes, which must be voters
of the home of the scope that decides it. Where the policy says amend.manual,
nodes wait for this; elsewhere they have voted by themselves, and a vote that
was counted stays.

PREFIX and PROPOSAL are what "anchormesh scope proposals" shows.`,
		Example: "  anchormesh scope vote /secrets/ 3 --approve --endpoints 10.0.0.1:2379,10.0.0.2:2379\n" +
			"  anchormesh scope vote /secrets/ 3 --refuse --why \"not before the audit\"",
		Args: ask.Exactly(2, `want the scope that decides, "" for the root scope, and the number of the proposal`),
	}
	a.Bind(cmd, ask.YAML)
	cmd.Flags().BoolVar(&approve, "approve", false, "vote for it")
	cmd.Flags().BoolVar(&refuse, "refuse", false, "vote against it")
	cmd.Flags().StringVar(&why, "why", "", "why it is refused, one sentence")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := number(args[1])
		switch {
		case err != nil:
			return err
		case approve == refuse:
			return ask.Usage(errors.New("give --approve or --refuse"))
		case approve && why != "":
			return ask.Usage(errors.New("--why is for refusals"))
		}
		return vote(cmd, &a, &meshpb.VoteRequest{Scope: []byte(args[0]), Id: id, Approve: approve, Why: why})
	}
	return cmd
}

// vote asks every endpoint: each votes for itself.
func vote(cmd *cobra.Command, a *ask.Asker, req *meshpb.VoteRequest) error {
	var problems []error
	voted := []string{}
	for _, endpoint := range a.Endpoints {
		err := a.One(cmd.Context(), endpoint, func(ctx context.Context, conn grpc.ClientConnInterface) error {
			reply, err := meshpb.NewScopesClient(conn).Vote(ctx, req)
			if err == nil {
				voted = append(voted, reply.GetNode())
			}
			return err
		})
		if err != nil {
			problems = append(problems, err)
		}
	}
	var err error
	if a.Out.ForPeople() {
		word := "refuses"
		if req.GetApprove() {
			word = "approves"
		}
		for _, node := range voted {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "node %s %s proposal %d of %s\n", short(node), word, req.GetId(), ref(req.GetScope()))
		}
	} else {
		err = a.Out.Print(cmd.OutOrStdout(), struct {
			Scope    string   `json:"scope"`
			Proposal uint64   `json:"proposal"`
			Approve  bool     `json:"approve"`
			Nodes    []string `json:"nodes"`
		}{string(req.GetScope()), req.GetId(), req.GetApprove(), voted})
	}
	return errors.Join(append(problems, err)...)
}
