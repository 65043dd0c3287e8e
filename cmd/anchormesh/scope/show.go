package scope

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/policy/document"
	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

func newShow() *cobra.Command {
	var a ask.Asker
	var bare bool
	cmd := &cobra.Command{
		Use:   "show PREFIX",
		Short: "Show a scope: its policy, its segments, and what is being decided",
		Long: `Show a scope as the leader of its home knows it: the policy that was decided
last, how many of its segments have adopted it, who votes on changes with what
weight, and the proposals that are open. Fields of the policy that are as in
etcd are left out.`,
		Example: "  anchormesh scope show /secrets/\n  anchormesh scope show /secrets/ --policy > secrets.yaml",
		Args:    prefix,
	}
	a.Bind(cmd, ask.YAML)
	cmd.Flags().BoolVar(&bare, "policy", false, "print the policy alone, as a document that set reads")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var reply *meshpb.ScopeReply
		err := a.Scopes(cmd.Context(), func(ctx context.Context, c meshpb.ScopesClient) (err error) {
			reply, err = c.Show(ctx, &meshpb.ShowScopeRequest{Prefix: []byte(args[0])})
			return err
		})
		if err != nil {
			return err
		}
		p, err := policyOf(reply.GetScope().GetPolicy(), reply.GetScope().GetAnchors())
		if err != nil {
			return err
		}
		switch {
		case bare:
			_, err = cmd.OutOrStdout().Write(document.Format(p))
			return err
		case !a.Out.ForPeople():
			return a.Out.Print(cmd.OutOrStdout(), viewScope(reply.GetScope()))
		}
		return printScope(cmd.OutOrStdout(), reply.GetScope(), p)
	}
	return cmd
}

func printScope(w io.Writer, s *meshpb.Scope, p *policy.Policy) error {
	rows := [][]string{
		{"version", versionText(s)},
		{"home", fmt.Sprintf("segment %s, led by %s", segmentName(s.GetHome()), short(s.GetLeader()))},
		{"voters", weightsText(s.GetVoters())},
	}
	for _, f := range telling(p) {
		rows = append(rows, []string{f.Field, f.New})
	}
	if err := ask.PrintTable(w, []string{"SCOPE", strconv.Quote(string(s.GetPrefix()))}, rows); err != nil {
		return err
	}
	rows = nil
	for _, seg := range s.GetSegments() {
		rows = append(rows, []string{segmentName(seg.GetSegment()), rangeText(seg.GetStart(), seg.GetEnd()), adopted(seg)})
	}
	fmt.Fprintln(w)
	if err := ask.PrintTable(w, []string{"SEGMENT", "RANGE", "VERSION"}, rows); err != nil {
		return err
	}
	decided := underWay(s)
	if len(decided)+len(s.GetOpen()) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return printProposals(w, decided, s.GetOpen())
}

// underWay are the proposals that were decided and are being carried out.
func underWay(s *meshpb.Scope) (out []*meshpb.Proposal) {
	for _, p := range []*meshpb.Proposal{s.GetDoing(), s.GetRecovering()} {
		if p != nil {
			out = append(out, p)
		}
	}
	return out
}

// telling are the fields that say something: the contract, and what differs from
// etcd's.
func telling(p *policy.Policy) []policy.Change {
	var out []policy.Change
	different := policy.Diff(policy.Standard(), p)
	for _, f := range p.Describe() {
		said := f.Field == "class" || f.Field == "anchors.count"
		for _, d := range different {
			said = said || d.Field == f.Field
		}
		if said {
			out = append(out, f)
		}
	}
	return out
}

// versionText says how far the newest version is.
func versionText(s *meshpb.Scope) string {
	switch {
	case s.GetVersion() == 0:
		return "0 (the mesh's default)"
	case s.GetInForce() >= s.GetVersion():
		return fmt.Sprintf("%d (in force)", s.GetVersion())
	}
	done, all := progress(s)
	return fmt.Sprintf("%d (partial: %d of %s have adopted it)", s.GetVersion(), done, plural(all, "segment"))
}

// progress counts the segments that have adopted the newest version.
func progress(s *meshpb.Scope) (done, all int) {
	for _, seg := range s.GetSegments() {
		if seg.GetEntered() && seg.GetVersion() >= s.GetVersion() {
			done++
		}
	}
	return done, len(s.GetSegments())
}

func adopted(seg *meshpb.ScopeSegment) string {
	if !seg.GetEntered() {
		return "not in the scope yet"
	}
	return strconv.FormatUint(seg.GetVersion(), 10)
}

func newList() *cobra.Command {
	var a ask.Asker
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the scopes of the mesh",
		Long: `List the scopes that the asked node knows, by prefix. This is what segments say
of themselves, and may be seconds old; "anchormesh scope show" asks the scope's
home. A version such as "1-2" says that some segments have not adopted the
second one yet. Version 0 is the mesh's default.`,
		Example: "  anchormesh scope list\n  anchormesh scope list -o json",
	}
	a.Bind(cmd, ask.YAML)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var reply *meshpb.ListScopesReply
		err := a.Scopes(cmd.Context(), func(ctx context.Context, c meshpb.ScopesClient) (err error) {
			reply, err = c.List(ctx, &meshpb.ListScopesRequest{})
			return err
		})
		if err != nil {
			return err
		}
		return printList(cmd.OutOrStdout(), a.Out, reply)
	}
	return cmd
}

type summaryView struct {
	Prefix        string `json:"prefix"`
	Class         string `json:"class"`
	OldestVersion uint64 `json:"oldest_version"`
	NewestVersion uint64 `json:"newest_version"`
	Line          string `json:"line"`
	Segments      uint32 `json:"segments"`
	Anchors       uint32 `json:"anchors"`
	Home          string `json:"home"`
	Leader        string `json:"leader"`
}

func printList(w io.Writer, out ask.Output, reply *meshpb.ListScopesReply) error {
	views := []summaryView{}
	var rows [][]string
	for _, s := range reply.GetScopes() {
		v := summaryView{
			Prefix: string(s.GetPrefix()), Class: s.GetClass(), OldestVersion: s.GetOldestVersion(), NewestVersion: s.GetNewestVersion(),
			Line: string(s.GetLine()), Segments: s.GetSegments(), Anchors: s.GetAnchors(), Home: segmentName(s.GetHome()), Leader: s.GetLeader(),
		}
		views = append(views, v)
		version := strconv.FormatUint(v.NewestVersion, 10)
		if v.OldestVersion != v.NewestVersion {
			version = fmt.Sprintf("%d-%d", v.OldestVersion, v.NewestVersion)
		}
		line := "own"
		if v.Line != v.Prefix {
			line = "of " + strconv.Quote(v.Line)
		}
		rows = append(rows, []string{
			strconv.Quote(v.Prefix), v.Class, version, strconv.Itoa(int(v.Anchors)), strconv.Itoa(int(v.Segments)), line, v.Home, short(v.Leader),
		})
	}
	if !out.ForPeople() {
		return out.Print(w, struct {
			Scopes []summaryView `json:"scopes"`
		}{views})
	}
	return ask.PrintTable(w, []string{"SCOPE", "CLASS", "VERSION", "ANCHORS", "SEGMENTS", "LINE", "HOME", "LEADER"}, rows)
}

func newHistory() *cobra.Command {
	var a ask.Asker
	var version uint64
	cmd := &cobra.Command{
		Use:   "history PREFIX",
		Short: "Show the versions of a scope's policy, and how proposals ended",
		Long: `Show every version of a scope's policy that is kept, oldest first: who asked
for it, what weight was for it, and which fields it changed. Below stands how
the last proposals to the scope ended, those for scopes inside it included.
With --version it prints that version as a document that set reads.`,
		Example: "  anchormesh scope history /secrets/\n  anchormesh scope history /secrets/ --version 2 | anchormesh scope set /secrets/ -f -",
		Args:    prefix,
	}
	a.Bind(cmd, ask.YAML)
	cmd.Flags().Uint64Var(&version, "version", 0, "print this version's policy")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var reply *meshpb.ScopeHistoryReply
		err := a.Scopes(cmd.Context(), func(ctx context.Context, c meshpb.ScopesClient) (err error) {
			reply, err = c.History(ctx, &meshpb.ScopeHistoryRequest{Prefix: []byte(args[0])})
			return err
		})
		switch {
		case err != nil:
			return err
		case version != 0:
			return printVersion(cmd.OutOrStdout(), reply, version)
		}
		return printHistory(cmd.OutOrStdout(), a.Out, reply)
	}
	return cmd
}

func printVersion(w io.Writer, reply *meshpb.ScopeHistoryReply, number uint64) error {
	for _, v := range reply.GetVersions() {
		if v.GetNumber() != number {
			continue
		}
		p, err := policyOf(v.GetPolicy(), 0)
		if err == nil {
			_, err = w.Write(document.Format(p))
		}
		return err
	}
	return fmt.Errorf("version %d is not kept; the history lists those that are", number)
}

type historyView struct {
	Versions []versionView `json:"versions"`
	Endings  []endingView  `json:"endings"`
}

type versionView struct {
	Version  uint64 `json:"version"`
	At       string `json:"at"`
	Operator string `json:"operator"`
	Proposal uint64 `json:"proposal"`
	Approved uint64 `json:"approved"`
	Total    uint64 `json:"total"`
	Index    uint64 `json:"index"`
	Policy   any    `json:"policy"`
}

type endingView struct {
	Proposal uint64 `json:"proposal"`
	Kind     string `json:"kind"`
	Subject  string `json:"subject"`
	Version  uint64 `json:"version,omitempty"`
	Operator string `json:"operator"`
	At       string `json:"at"`
	Outcome  string `json:"outcome"`
	Note     string `json:"note,omitempty"`
}

func printHistory(w io.Writer, out ask.Output, reply *meshpb.ScopeHistoryReply) error {
	view := historyView{[]versionView{}, []endingView{}}
	var versions, endings [][]string
	before := policy.Standard()
	for _, v := range reply.GetVersions() {
		p, err := policyOf(v.GetPolicy(), 0)
		if err != nil {
			return err
		}
		view.Versions = append(view.Versions, versionView{
			v.GetNumber(), atText(v.GetAtUnixMs()), v.GetOperator(), v.GetProposal(), v.GetApproved(), v.GetTotal(), v.GetIndex(), rawPolicy(v.GetPolicy()),
		})
		versions = append(versions, []string{
			strconv.FormatUint(v.GetNumber(), 10), atText(v.GetAtUnixMs()), v.GetOperator(), fmt.Sprintf("%d of %d", v.GetApproved(), v.GetTotal()), changesText(before, p),
		})
		before = p
	}
	for _, e := range reply.GetEndings() {
		view.Endings = append(view.Endings, endingView{
			e.GetId(), e.GetKind(), string(e.GetSubject()), e.GetVersion(), e.GetOperator(), atText(e.GetAtUnixMs()), e.GetOutcome(), e.GetNote(),
		})
		endings = append(endings, []string{
			strconv.FormatUint(e.GetId(), 10), e.GetKind(), strconv.Quote(string(e.GetSubject())), e.GetOperator(), atText(e.GetAtUnixMs()), e.GetOutcome(), e.GetNote(),
		})
	}
	if !out.ForPeople() {
		return out.Print(w, view)
	}
	if err := ask.PrintTable(w, []string{"VERSION", "PROPOSED", "OPERATOR", "APPROVED", "CHANGES"}, versions); err != nil || len(endings) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return ask.PrintTable(w, []string{"PROPOSAL", "KIND", "SCOPE", "OPERATOR", "PROPOSED", "OUTCOME", "NOTE"}, endings)
}

// changesText is such as "class: strong (was normal); anchors.count: 5 (was 3)".
func changesText(old, new *policy.Policy) string {
	var out []string
	for _, c := range policy.Diff(old, new) {
		out = append(out, fmt.Sprintf("%s: %s (was %s)", c.Field, c.New, c.Old))
	}
	return strings.Join(out, "; ")
}
