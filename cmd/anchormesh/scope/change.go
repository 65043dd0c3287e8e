package scope

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// order is a command that proposes a change and waits for it.
type order struct {
	ask.Asker
	patience time.Duration
	kind     string // what becomes of it, for people: "is created"
	prefix   string
	segment  string // that is recovered; else empty
}

func (o *order) bind(cmd *cobra.Command) {
	o.Bind(cmd, ask.YAML)
	cmd.Flags().DurationVar(&o.patience, "wait", 30*time.Second, "how long to wait until the change is in force; 0: only propose it")
}

// propose proposes and waits.
func (o *order) propose(cmd *cobra.Command, do func(context.Context, meshpb.ScopesClient) (*meshpb.ProposalReply, error)) error {
	w := &waiter{order: o, say: cmd.ErrOrStderr()}
	reply, err := w.propose(cmd.Context(), do)
	if err != nil {
		return err
	}
	w.ref = reply
	end := standing{text: "it was proposed; the command does not wait"}
	if o.patience > 0 {
		end = w.wait(cmd.Context())
	}
	if err := o.print(cmd, reply, end); err != nil {
		return err
	}
	switch {
	case end.failed || end.done || o.patience == 0:
		return end.err()
	}
	look := "show " + strconv.Quote(o.prefix)
	if o.segment != "" {
		look = "proposals"
	}
	return fmt.Errorf("not in force after %s: %s; it goes on without this command: see anchormesh scope %s", o.patience, end.text, look)
}

// name is what the order is about, for people.
func (o *order) name() string {
	if o.segment != "" {
		return "segment " + o.segment
	}
	return ref([]byte(o.prefix))
}

func (o *order) print(cmd *cobra.Command, reply *meshpb.ProposalReply, end standing) error {
	if !o.Out.ForPeople() {
		return o.Out.Print(cmd.OutOrStdout(), struct {
			Scope    string `json:"scope"`
			Segment  string `json:"segment,omitempty"`
			In       string `json:"in"` // the scope that decides
			Proposal uint64 `json:"proposal"`
			InForce  bool   `json:"in_force"`
			State    string `json:"state"`
		}{o.prefix, o.segment, string(reply.GetScope()), reply.GetId(), end.done, end.text})
	}
	if end.done {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s: %s\n", o.name(), o.kind, end.text)
		return err
	}
	if o.patience == 0 {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "proposal %d of %s\n", reply.GetId(), ref(reply.GetScope()))
		return err
	}
	return nil
}

func newCreate() *cobra.Command {
	o := &order{kind: "is created"}
	var r rules
	cmd := &cobra.Command{
		Use:   "create PREFIX",
		Short: "Create a scope: the keys under a prefix get their own policy",
		Long: `Create a scope of all keys that begin with PREFIX. The anchors of the scope
around it vote. Then segments are cut at the ends of the prefix, where they are
not cut yet, and what lies between adopts the policy. No data moves, and clients
notice nothing but a moment's wait.

"anchormesh scope dry-run" says beforehand what it would take.`,
		Example: "  anchormesh scope create /registry/events/ --preset ephemeral\n  anchormesh scope create /secrets/ -f secrets.yaml",
		Args:    prefix,
	}
	o.bind(cmd)
	r.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.prefix = args[0]
		text, err := r.read(cmd, args[0])
		if err != nil {
			return err
		}
		return o.propose(cmd, func(ctx context.Context, c meshpb.ScopesClient) (*meshpb.ProposalReply, error) {
			return c.Create(ctx, &meshpb.CreateScopeRequest{Prefix: []byte(args[0]), Policy: text, Preset: r.preset, Operator: operator()})
		})
	}
	return cmd
}

func newSet() *cobra.Command {
	o := &order{kind: "is changed"}
	var r rules
	var expect uint64
	cmd := &cobra.Command{
		Use:   "set PREFIX",
		Short: "Give a scope another policy",
		Long: `Give a scope another policy, which takes the place of the one it has: what the
document does not say is as in its preset, not as it was. The anchors of the
scope's home vote by the old policy's rules; then its segments adopt the new
one, one after the other, while clients go on.`,
		Example: "  anchormesh scope show /secrets/ --policy > secrets.yaml\n  anchormesh scope set /secrets/ -f secrets.yaml --expect 2",
		Args:    prefix,
	}
	o.bind(cmd)
	r.bind(cmd)
	cmd.Flags().Uint64Var(&expect, "expect", 0, "refuse unless this version is the newest")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.prefix = args[0]
		text, err := r.read(cmd, args[0])
		if err != nil {
			return err
		}
		req := &meshpb.SetScopeRequest{Prefix: []byte(args[0]), Policy: text, Preset: r.preset, Operator: operator()}
		if cmd.Flags().Changed("expect") {
			req.Expect = &expect
		}
		return o.propose(cmd, func(ctx context.Context, c meshpb.ScopesClient) (*meshpb.ProposalReply, error) {
			return c.Set(ctx, req)
		})
	}
	return cmd
}

func newDelete() *cobra.Command {
	o := &order{kind: "is deleted"}
	cmd := &cobra.Command{
		Use:   "delete PREFIX",
		Short: "Give a scope back to the scope around it; its keys stay",
		Long: `Give a scope back to the scope around it, whose policy its keys then have. The
anchors of the scope vote by its own rules. No key is deleted.`,
		Example: "  anchormesh scope delete /registry/events/",
		Args:    prefix,
	}
	o.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.prefix = args[0]
		return o.propose(cmd, func(ctx context.Context, c meshpb.ScopesClient) (*meshpb.ProposalReply, error) {
			return c.Delete(ctx, &meshpb.DeleteScopeRequest{Prefix: []byte(args[0]), Operator: operator()})
		})
	}
	return cmd
}

func newRecover() *cobra.Command {
	o := &order{kind: "is recovered"}
	cmd := &cobra.Command{
		Use:   "recover SEGMENT NODE",
		Short: "Let a segment that lost its majority for good begin anew on one replica",
		Long: `Let a segment whose majority of anchors is lost for good begin anew on the
replica that NODE holds, in a new generation. What only the lost anchors knew is
LOST, acknowledged writes included; the segment's lineage says so. Should a lost
anchor come back, it is refused everywhere.

It is decided by the home of the segment's scope, or, if the segment is that
itself, by the scope around. "anchormesh segments" shows segments and anchors. For
the home of the root scope see recover-here.`,
		Example: "  anchormesh scope recover 5e351c72ab70652d node-2",
		Args:    ask.Exactly(2, "want a segment and the node, by name or ID, whose replica is kept"),
	}
	o.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := anchormesh.ParseSegmentID(args[0])
		if err != nil {
			return ask.Usage(err)
		}
		o.segment = args[0]
		return o.propose(cmd, func(ctx context.Context, c meshpb.ScopesClient) (*meshpb.ProposalReply, error) {
			return c.Recover(ctx, &meshpb.RecoverScopeRequest{Segment: uint64(id), Survivor: args[1], Operator: operator()})
		})
	}
	return cmd
}

func proposalName(r *meshpb.ProposalReply) string {
	return "proposal " + strconv.FormatUint(r.GetId(), 10) + " of " + ref(r.GetScope())
}
