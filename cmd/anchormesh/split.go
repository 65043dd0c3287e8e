package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

func newSplit() *cobra.Command {
	var a asker
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
				return usage(errors.New("split takes a boundary, the first key of the right part, and perhaps a segment"))
			}
			return nil
		},
	}
	a.bind(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be done, and do nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &meshpb.SplitRequest{Boundary: []byte(args[0]), DryRun: dry, Operator: operator()}
		if len(args) > 1 {
			id, err := anchormesh.ParseSegmentID(args[1])
			if err != nil {
				return err
			}
			req.Segment = uint64(id)
		}
		var reply *meshpb.SplitReply
		err := a.first(cmd.Context(), func(ctx context.Context, c meshpb.MeshClient) (err error) {
			reply, err = c.Split(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
		return printSplit(cmd, a.out, reply, dry)
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
}

func printSplit(cmd *cobra.Command, out output, reply *meshpb.SplitReply, dry bool) error {
	d, err := meshpb.FromPB(reply.GetBefore())
	if err != nil {
		return fmt.Errorf("the node answered nonsense: %w", err)
	}
	v := splitView{
		Segment: d.Segment.String(), Range: d.Range.String(), Boundary: reply.GetBoundary(),
		Right: anchormesh.SegmentID(reply.GetRight()).String(), DryRun: dry,
	}
	if out == outputJSON {
		return printJSON(cmd.OutOrStdout(), v)
	}
	if dry {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "would cut segment %s %s at %s\n", v.Segment, v.Range, strconv.Quote(string(v.Boundary)))
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "segment %s %s was cut at %s; the right part is segment %s\n",
		v.Segment, v.Range, strconv.Quote(string(v.Boundary)), v.Right)
	return err
}
