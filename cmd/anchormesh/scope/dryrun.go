package scope

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

func newDryRun() *cobra.Command {
	var a ask.Asker
	var r rules
	var remove bool
	cmd := &cobra.Command{
		Use:   "dry-run PREFIX",
		Short: "Say what a change of a scope would touch and take, and do nothing",
		Long: `Say what creating a scope, or setting another policy, or deleting it would do:
which keys, leases and watchers it concerns, what changes for them, which
segments it touches and who has which part in them, which would be cut, how many
anchors would have to be found, and whose votes it needs. Whether the scope is
created or changed depends on whether it is there. Users and roles are not
affected, as AnchorMesh has none.

It changes nothing; a moment later things may be otherwise. Bytes are those of
keys and values; in a large segment the first thousand stand for the rest. A
watcher whose range lies in several segments counts in each.`,
		Example: "  anchormesh scope dry-run /secrets/ -f secrets.yaml\n  anchormesh scope dry-run /registry/events/ --delete",
		Args:    prefix,
	}
	a.Bind(cmd, ask.YAML)
	r.bind(cmd)
	cmd.Flags().BoolVar(&remove, "delete", false, "of deleting the scope")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &meshpb.DryRunRequest{Prefix: []byte(args[0]), Preset: r.preset, Kind: "change"}
		var err error
		switch {
		case remove && (r.file != "" || r.preset != ""):
			return ask.Usage(errors.New("a scope that is deleted needs no policy: drop --file and --preset, or --delete"))
		case remove:
			req.Kind = "delete"
		default:
			if req.Policy, err = r.read(cmd, args[0]); err != nil {
				return err
			}
		}
		var reply *meshpb.DryRunReply
		err = a.Scopes(cmd.Context(), func(ctx context.Context, c meshpb.ScopesClient) (err error) {
			reply, err = c.DryRun(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
		if a.Out.ForPeople() {
			return printDryRun(cmd.OutOrStdout(), args[0], reply)
		}
		return a.Out.Print(cmd.OutOrStdout(), viewDryRun(args[0], reply))
	}
	return cmd
}

type dryRunView struct {
	Scope      string           `json:"scope"`
	Would      string           `json:"would"`
	Decides    string           `json:"decides"`
	Keys       uint64           `json:"keys"`
	Bytes      int64            `json:"bytes"`
	Leases     uint64           `json:"leases"`
	Watchers   uint64           `json:"watchers"`
	Roles      uint64           `json:"roles"`
	Changes    []changeView     `json:"changes"`
	Segments   []string         `json:"segments"`
	Touched    []touchedView    `json:"touched"`
	Cuts       []cutView        `json:"cuts"`
	Voters     []weightView     `json:"voters"`
	Needed     uint64           `json:"needed"`
	Recruiting []recruitingView `json:"recruiting"`
	Warnings   []string         `json:"warnings"`
	Uncounted  []string         `json:"uncounted"`
}

type changeView struct {
	Field string `json:"field"`
	Old   string `json:"old"`
	New   string `json:"new"`
}

type cutView struct {
	Segment string `json:"segment"`
	At      string `json:"at"`
}

type touchedView struct {
	Segment string       `json:"segment"`
	Range   string       `json:"range"`
	Anchors []anchorView `json:"anchors"`
}

type anchorView struct {
	Node string `json:"node"`
	Role string `json:"role"` // leader, voter or learner
}

type recruitingView struct {
	Segment string `json:"segment"`
	Has     uint32 `json:"has"`
	Wants   uint32 `json:"wants"`
}

func viewDryRun(prefix string, d *meshpb.DryRunReply) dryRunView {
	v := dryRunView{
		Scope: prefix, Would: d.GetKind(), Decides: string(d.GetDecides()),
		Keys: d.GetHolds().GetKeys(), Bytes: d.GetHolds().GetBytes(), Leases: d.GetHolds().GetLeases(), Watchers: d.GetHolds().GetWatchers(),
		Changes: []changeView{}, Segments: []string{}, Touched: []touchedView{}, Cuts: []cutView{}, Voters: viewWeights(d.GetVoters()), Needed: d.GetNeeded(),
		Recruiting: []recruitingView{}, Warnings: ask.NonNil(d.GetWarnings()), Uncounted: ask.NonNil(d.GetUncounted()),
	}
	for _, c := range d.GetChanges() {
		v.Changes = append(v.Changes, changeView{c.GetField(), c.GetOld(), c.GetNew()})
	}
	for _, s := range d.GetSegments() {
		v.Segments = append(v.Segments, segmentName(s))
	}
	for _, c := range d.GetCuts() {
		v.Cuts = append(v.Cuts, cutView{segmentName(c.GetSegment()), string(c.GetAt())})
	}
	for _, r := range d.GetRecruiting() {
		v.Recruiting = append(v.Recruiting, recruitingView{segmentName(r.GetSegment()), r.GetHas(), r.GetWants()})
	}
	for _, s := range d.GetTouched() {
		v.Touched = append(v.Touched, viewTouched(s))
	}
	return v
}

func viewTouched(s *meshpb.TouchedSegment) touchedView {
	out := touchedView{Segment: segmentName(s.GetSegment()), Range: rangeText(s.GetStart(), s.GetEnd()), Anchors: []anchorView{}}
	for _, a := range s.GetAnchors() {
		role := "voter"
		switch {
		case a.GetRole() == meshpb.Role_ROLE_LEARNER:
			role = "learner"
		case a.GetNode() == s.GetLeader():
			role = "leader"
		}
		out.Anchors = append(out.Anchors, anchorView{a.GetNode(), role})
	}
	return out
}

// printTouched is a row for each segment.
func printTouched(w io.Writer, touched []touchedView) error {
	var rows [][]string
	for _, s := range touched {
		var anchors []string
		for _, a := range s.Anchors {
			anchors = append(anchors, short(a.Node)+" "+a.Role)
		}
		rows = append(rows, []string{s.Segment, s.Range, strings.Join(anchors, ", ")})
	}
	return ask.PrintTable(w, []string{"SEGMENT", "RANGE", "ANCHORS"}, rows)
}

func printDryRun(w io.Writer, prefix string, d *meshpb.DryRunReply) error {
	v := viewDryRun(prefix, d)
	fmt.Fprintf(w, "would %s scope %s, which holds %s, %s, %s and %s, in %s. No roles are affected: there are none.\n\n", v.Would, strconv.Quote(prefix),
		plural(v.Keys, "key"), ask.Bytes(v.Bytes), plural(v.Leases, "lease"), plural(v.Watchers, "watcher"), plural(len(v.Segments), "segment"))
	var rows [][]string
	for _, c := range v.Changes {
		rows = append(rows, []string{c.Field, c.Old, c.New})
	}
	if len(rows) == 0 {
		rows = [][]string{{"nothing"}}
	}
	if err := ask.PrintTable(w, []string{"CHANGES", "FROM", "TO"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := printTouched(w, v.Touched); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, c := range v.Cuts {
		fmt.Fprintf(w, "segment %s would be cut at %s.\n", c.Segment, strconv.Quote(c.At))
	}
	for _, r := range v.Recruiting {
		fmt.Fprintf(w, "segment %s would recruit: it has %d of %d anchors.\n", r.Segment, r.Has, r.Wants)
	}
	var total uint64
	for _, voter := range v.Voters {
		total += uint64(voter.Weight)
	}
	fmt.Fprintf(w, "scope %s decides: %d of %d by weight are needed of %s.\n", strconv.Quote(v.Decides), v.Needed, total, weightsText(d.GetVoters()))
	for _, text := range v.Warnings {
		fmt.Fprintf(w, "warning: %s\n", text)
	}
	if len(v.Uncounted) > 0 {
		fmt.Fprintf(w, "not counted, for want of an answer: %s\n", strings.Join(v.Uncounted, ", "))
	}
	return nil
}
