package scope

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

func newRecoverHere() *cobra.Command {
	var a ask.Asker
	cmd := &cobra.Command{
		Use:   "recover-here SEGMENT",
		Short: "Let the root scope's home, its majority lost for good, begin anew on the asked node",
		Long: `Let the home of the root scope, the segment with the lowest key, begin anew on the
replica of the node that is asked, after its majority was lost for good. Nobody is
above it to decide that, so it is done by this order alone.

Ask ONE node, the one whose replica is to be kept, and make sure that the lost
anchors do not run: two that are told the same begin two meshes. What only the
lost anchors knew is LOST, acknowledged writes included; the lineage says so.

Other segments are recovered by "anchormesh scope recover".`,
		Example: "  anchormesh scope recover-here 029b0bd1d325ff14 --endpoint 10.0.0.2:2379",
		Args:    ask.Exactly(1, "want the segment; the node that is asked is the one whose replica is kept"),
	}
	a.Bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := anchormesh.ParseSegmentID(args[0])
		if err != nil {
			return ask.Usage(err)
		}
		return recoverHere(cmd, &a, id)
	}
	return cmd
}

func recoverHere(cmd *cobra.Command, a *ask.Asker, id anchormesh.SegmentID) error {
	if len(a.Endpoints) != 1 {
		return ask.Usage(errors.New("want one endpoint: that of the node whose replica is kept"))
	}
	endpoint := a.Endpoints[0]
	return a.One(cmd.Context(), endpoint, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		r, err := meshpb.NewScopesClient(conn).RecoverHere(ctx, &meshpb.RecoverHereRequest{Segment: uint64(id), Operator: operator()})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "segment %s begins anew on the node at %s, in generation %d\n", id, endpoint, r.GetGeneration())
		return err
	})
}
