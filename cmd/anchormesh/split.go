package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

func newSplit() *cobra.Command {
	var a ask.Asker
	var dry bool
	cmd := &cobra.Command{
		Use:   "split BOUNDARY [SEGMENT]",
		Short: "Cut a segment in two at a key",
		Long: `Cut the segment that holds BOUNDARY in two: keys below it stay in the segment,
BOUNDARY and what lies above it become a segment of their own, with an anchor
group on the same nodes. No data moves and clients notice nothing but a moment's
wait. With SEGMENT the split is refused if another one holds the boundary.

From its first split on, a scope's revisions are handed out by the leader of its
first segment: they still grow with every write, but no longer by exactly one.`,
		Example: "  anchormesh split /registry/pods/\n  anchormesh split --dry-run m",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 || args[0] == "" {
				return ask.Usage(errors.New("split takes a boundary, the first key of the right part, and perhaps a segment"))
			}
			return nil
		},
	}
	a.Bind(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be done, and do nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &meshpb.SplitRequest{Boundary: []byte(args[0]), DryRun: dry, Operator: operator()}
		if len(args) > 1 {
			id, err := anchormesh.ParseSegmentID(args[1])
			if err != nil {
				return ask.Usage(err)
			}
			req.Segment = uint64(id)
		}
		var reply *meshpb.SplitReply
		err := a.Mesh(cmd.Context(), func(ctx context.Context, c meshpb.MeshClient) (err error) {
			reply, err = c.Split(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
		return printSplit(cmd, a.Out, reply, dry)
	}
	return cmd
}

// operator names who asks, for the record.
func operator() string {
	if u, err := user.Current(); err == nil && len(u.Username) <= 64 {
		return u.Username
	}
	return "operator"
}

// splitView is the answer of a split for programs. Boundary is base64 in JSON.
type splitView struct {
	Segment  string `json:"segment"`
	Range    string `json:"range"`
	Boundary []byte `json:"boundary"`
	Right    string `json:"right"`
	DryRun   bool   `json:"dry_run"`
	proposedView
}

// proposedView says in which scope an order is a proposal, and with which number, where
// operators vote; zero: it was carried out.
type proposedView struct {
	Scope    string `json:"scope,omitempty"`
	Proposal uint64 `json:"proposal,omitempty"`
}

// print says what is proposed, and how it goes on.
func (v proposedView) print(cmd *cobra.Command, what string) error {
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is proposal %d of scope %q, whose operators vote: anchormesh scope vote %q %d --approve\n",
		what, v.Proposal, v.Scope, v.Scope, v.Proposal)
	return err
}

func printSplit(cmd *cobra.Command, out ask.Output, reply *meshpb.SplitReply, dry bool) error {
	d, err := meshpb.FromPB(reply.GetBefore())
	if err != nil {
		return fmt.Errorf("the node answered nonsense: %w", err)
	}
	v := splitView{
		Segment: d.Segment.String(), Range: d.Range.String(), Boundary: reply.GetBoundary(),
		Right: anchormesh.SegmentID(reply.GetRight()).String(), DryRun: dry, proposedView: proposedView{string(reply.GetScope()), reply.GetProposal()},
	}
	switch {
	case v.Proposal != 0 && !out.ForPeople():
		v.Right = "" // it has none yet
		fallthrough
	case !out.ForPeople():
		return ask.PrintJSON(cmd.OutOrStdout(), v)
	case v.Proposal != 0:
		return v.print(cmd, fmt.Sprintf("a cut of segment %s at %q", v.Segment, v.Boundary))
	}
	if dry {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "would cut segment %s %s at %s\n", v.Segment, v.Range, strconv.Quote(string(v.Boundary)))
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "segment %s %s was cut at %s; the right part is segment %s\n",
		v.Segment, v.Range, strconv.Quote(string(v.Boundary)), v.Right)
	return err
}

func newDrain() *cobra.Command {
	var a ask.Asker
	var req meshpb.DrainRequest
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Take a node out of use: its replicas and leaderships go to others",
		Long: `Take a node out of use, by its name or ID: its leaderships go to other
anchors, then its replicas to other nodes, one after the other, and it takes
none any more. That lasts across restarts, until --undo. The answer comes
when it has begun; "anchormesh nodes" shows how many replicas are left. With
none left the node can be stopped for good.

It is refused if fewer nodes would stay than the segments have anchors.`,
		Example: "  anchormesh drain node-4 --dry-run\n  anchormesh drain node-4",
		Args:    ask.Exactly(1, "drain takes a node: its name or ID"),
	}
	a.Bind(cmd)
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would be done, and do nothing")
	cmd.Flags().BoolVar(&req.Undo, "undo", false, "let the node take replicas again")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req.Node = args[0]
		var reply *meshpb.DrainReply
		err := a.Mesh(cmd.Context(), func(ctx context.Context, c meshpb.MeshClient) (err error) {
			reply, err = c.Drain(ctx, &req)
			return err
		})
		if err != nil {
			return err
		}
		return printDrain(cmd, a.Out, &req, reply)
	}
	return cmd
}

// drainView is the answer of a drain for programs.
type drainView struct {
	Node     string `json:"node"`
	Replicas uint32 `json:"replicas"`
	Leaders  uint32 `json:"leaders"`
	Undo     bool   `json:"undo"`
	DryRun   bool   `json:"dry_run"`
}

func printDrain(cmd *cobra.Command, out ask.Output, req *meshpb.DrainRequest, reply *meshpb.DrainReply) error {
	if !out.ForPeople() {
		return ask.PrintJSON(cmd.OutOrStdout(), drainView{
			Node: reply.GetNode(), Replicas: reply.GetReplicas(), Leaders: reply.GetLeaders(), Undo: req.GetUndo(), DryRun: req.GetDryRun(),
		})
	}
	text := "is being drained"
	switch {
	case req.GetUndo() && req.GetDryRun():
		text = "would take replicas again"
	case req.GetUndo():
		text = "takes replicas again"
	case req.GetDryRun():
		text = "would be drained"
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "node %s %s: it holds %d replicas and leads %d segments\n",
		req.GetNode(), text, reply.GetReplicas(), reply.GetLeaders())
	return err
}

func newMove() *cobra.Command {
	var a ask.Asker
	var dry bool
	cmd := &cobra.Command{
		Use:   "move SEGMENT FROM TO",
		Short: "Move a segment's replica from one node to another",
		Long: `Move the replica of a segment from one node to another, both by name or ID.
The new one gets a copy first, then both change places in one step. The
answer comes when the segment's leader has accepted the order; "anchormesh
segments" shows how it goes. The leader forgets the order if it loses its
leadership, or after 15 minutes.

It is refused if the first node does not vote in the segment, if the second
holds a replica of it, does not answer, is drained or full, and while an
anchor is missing.`,
		Example: "  anchormesh move 5e351c72ab70652d node-1 node-4 --dry-run",
		Args:    ask.Exactly(3, "move takes a segment and two nodes: from which, and to which"),
	}
	a.Bind(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be done, and do nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := anchormesh.ParseSegmentID(args[0])
		if err != nil {
			return ask.Usage(err)
		}
		var reply *meshpb.MoveReply
		err = a.Mesh(cmd.Context(), func(ctx context.Context, c meshpb.MeshClient) (err error) {
			reply, err = c.Move(ctx, &meshpb.MoveRequest{Segment: uint64(id), From: args[1], To: args[2], DryRun: dry, Operator: operator()})
			return err
		})
		if err != nil {
			return err
		}
		text := "moves"
		if dry {
			text = "would move"
		}
		if v := (proposedView{string(reply.GetScope()), reply.GetProposal()}); v.Proposal != 0 && a.Out.ForPeople() {
			return v.print(cmd, fmt.Sprintf("a move of segment %s from %s to %s", id, reply.GetFrom(), reply.GetTo()))
		} else if v.Proposal != 0 {
			return ask.PrintJSON(cmd.OutOrStdout(), struct {
				handOverView
				proposedView
			}{handOverView{id.String(), reply.GetFrom(), reply.GetTo(), dry}, v})
		}
		return printHandOver(cmd, a.Out, text, id, reply.GetFrom(), reply.GetTo(), dry)
	}
	return cmd
}

func newTransfer() *cobra.Command {
	var a ask.Asker
	cmd := &cobra.Command{
		Use:   "transfer SEGMENT NODE",
		Short: "Hand a segment's leadership to another of its anchors",
		Long: `Hand the leadership of a segment to another of its voting anchors, by name
or ID, and wait until it leads. The mesh may hand it on again when loads
differ much.`,
		Example: "  anchormesh transfer 5e351c72ab70652d node-2",
		Args:    ask.Exactly(2, "transfer takes a segment and the node that is to lead it"),
	}
	a.Bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := anchormesh.ParseSegmentID(args[0])
		if err != nil {
			return ask.Usage(err)
		}
		var reply *meshpb.TransferReply
		err = a.Mesh(cmd.Context(), func(ctx context.Context, c meshpb.MeshClient) (err error) {
			reply, err = c.Transfer(ctx, &meshpb.TransferRequest{Segment: uint64(id), To: args[1]})
			return err
		})
		if err != nil {
			return err
		}
		return printHandOver(cmd, a.Out, "is led", id, reply.GetFrom(), reply.GetTo(), false)
	}
	return cmd
}

// handOverView is the answer of a move or transfer for programs.
type handOverView struct {
	Segment string `json:"segment"`
	From    string `json:"from"`
	To      string `json:"to"`
	DryRun  bool   `json:"dry_run"`
}

func printHandOver(cmd *cobra.Command, out ask.Output, what string, id anchormesh.SegmentID, from, to string, dry bool) error {
	if !out.ForPeople() {
		return ask.PrintJSON(cmd.OutOrStdout(), handOverView{id.String(), from, to, dry})
	}
	if from == to {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "segment %s %s by %s already\n", id, what, to)
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "segment %s %s: from %s to %s\n", id, what, from, to)
	return err
}

func newMerge() *cobra.Command {
	var a ask.Asker
	var dry bool
	cmd := &cobra.Command{
		Use:   "merge LEFT RIGHT|KEY",
		Short: "Join a segment with its right neighbour",
		Long: `Join two neighbouring segments of a scope: LEFT takes over the keys of RIGHT,
or of the segment that holds KEY, and keeps its name. Both must be on the same
nodes, all of which must be up; the command says which moves would help if
they are not.

No data moves. For a moment, a second at most, reads and writes of the right
segment wait. What cannot be completed by then is aborted by itself, and
nothing has changed.`,
		Example: "  anchormesh merge 5f3a 77c1\n  anchormesh merge --dry-run 5f3a /registry/pods/",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 || args[1] == "" {
				return ask.Usage(errors.New("merge takes a segment, and its right neighbour or a key of it"))
			}
			return nil
		},
	}
	a.Bind(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be done, and do nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		left, err := anchormesh.ParseSegmentID(args[0])
		if err != nil {
			return ask.Usage(err)
		}
		req := &meshpb.MergeRequest{Segment: uint64(left), Key: []byte(args[1]), DryRun: dry, Operator: operator()}
		if right, err := anchormesh.ParseSegmentID(args[1]); err == nil {
			req.Right = uint64(right) // unless no segment has that name: then it is a key
		}
		var reply *meshpb.MergeReply
		err = a.Mesh(cmd.Context(), func(ctx context.Context, c meshpb.MeshClient) (err error) {
			reply, err = c.Merge(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
		return printMerge(cmd, a.Out, reply, dry)
	}
	return cmd
}

// mergeView is the answer of a merge for programs.
type mergeView struct {
	Left       string `json:"left"`
	LeftRange  string `json:"left_range"`
	Right      string `json:"right"`
	RightRange string `json:"right_range"`
	DryRun     bool   `json:"dry_run"`
	proposedView
}

func printMerge(cmd *cobra.Command, out ask.Output, reply *meshpb.MergeReply, dry bool) error {
	left, err := meshpb.FromPB(reply.GetLeft())
	if err != nil {
		return fmt.Errorf("the node answered nonsense: %w", err)
	}
	right, err := meshpb.FromPB(reply.GetRight())
	if err != nil {
		return fmt.Errorf("the node answered nonsense: %w", err)
	}
	v := mergeView{
		Left: left.Segment.String(), LeftRange: left.Range.String(),
		Right: right.Segment.String(), RightRange: right.Range.String(), DryRun: dry,
		proposedView: proposedView{string(reply.GetScope()), reply.GetProposal()},
	}
	switch {
	case !out.ForPeople():
		return ask.PrintJSON(cmd.OutOrStdout(), v)
	case v.Proposal != 0:
		return v.print(cmd, fmt.Sprintf("a merge of segments %s and %s", v.Left, v.Right))
	}
	text := "segment %s %s took over segment %s %s\n"
	if dry {
		text = "segment %s %s would take over segment %s %s\n"
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), text, v.Left, v.LeftRange, v.Right, v.RightRange)
	return err
}
