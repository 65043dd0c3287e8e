package scope

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

func newWithdraw() *cobra.Command {
	var a ask.Asker
	cmd := &cobra.Command{
		Use:   "withdraw PREFIX PROPOSAL",
		Short: "End a proposal that is not decided yet",
		Long: `End a proposal that is not decided yet, or give up a recovery that was decided
and cannot be carried out, because the surviving node is gone, too. PREFIX and
PROPOSAL are what "anchormesh scope proposals" and "anchormesh scope show" show.`,
		Example: "  anchormesh scope withdraw /secrets/ 3",
		Args:    ask.Exactly(2, `want the scope that decides, "" for the root scope, and the number of the proposal`),
	}
	a.Bind(cmd, ask.YAML)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := number(args[1])
		if err != nil {
			return err
		}
		err = a.Scopes(cmd.Context(), func(ctx context.Context, c meshpb.ScopesClient) error {
			_, err := c.Withdraw(ctx, &meshpb.WithdrawRequest{Scope: []byte(args[0]), Id: id, Operator: operator()})
			return err
		})
		switch {
		case err != nil:
			return err
		case a.Out.ForPeople():
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "proposal %d of %s is withdrawn\n", id, ref([]byte(args[0])))
			return err
		}
		return a.Out.Print(cmd.OutOrStdout(), struct {
			Scope    string `json:"scope"`
			Proposal uint64 `json:"proposal"`
		}{args[0], id})
	}
	return cmd
}

// number reads a proposal's number.
func number(text string) (uint64, error) {
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil || id == 0 {
		return 0, ask.Usage(fmt.Errorf("%q is no number of a proposal", text))
	}
	return id, nil
}
