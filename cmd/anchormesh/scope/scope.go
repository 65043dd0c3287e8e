package scope

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/policy/document"
	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// New returns the command scope.
func New() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scope",
		Short: "Give parts of the keyspace their own rules, and change them",
		Long: `A scope is a key prefix with a policy: how many nodes govern its keys, what an
acknowledged write survives, who has to agree, what may be written, how much,
and for how long it is kept. Scopes nest; the root scope, "", always exists.

A change is proposed to the anchors of the scope that decides it. They judge it
and vote; then the segments of the scope adopt it, one after the other.

Policies are written in YAML: see docs/scopes.md.`,
		Args: ask.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCreate(), newSet(), newDelete(), newRecover(), newRecoverHere(), newShow(), newList(), newHistory(), newDryRun(), newProposals(), newVote(), newWithdraw())
	return cmd
}

// prefix wants one argument, the scope's prefix. The root scope's is empty.
var prefix = ask.Exactly(1, `want one scope: its key prefix, or "" for the root scope`)

// rules is where a command finds a policy.
type rules struct{ file, preset string }

func (r *rules) bind(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&r.file, "file", "f", "", "policy document (YAML or JSON); - is the standard input")
	cmd.Flags().StringVar(&r.preset, "preset", "", "begin with this policy: "+strings.Join(policy.Presets, ", "))
	if err := cmd.RegisterFlagCompletionFunc("preset", cobra.FixedCompletions(policy.Presets, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic("scope: " + err.Error())
	}
}

// read returns the document, once it has been checked as far as one can here.
func (r *rules) read(cmd *cobra.Command, scope string) (string, error) {
	if r.file == "" && r.preset == "" {
		return "", ask.Usage(errors.New("which policy? give --file FILE or --preset NAME"))
	}
	text, err := r.text(cmd)
	if err != nil {
		return "", err
	}
	if _, err := document.Read(text, r.preset, []byte(scope), nil); err != nil {
		if r.file == "" {
			return "", ask.Usage(err)
		}
		return "", ask.Usage(errors.New(r.file + ": " + strings.ReplaceAll(err.Error(), "\n", "\n"+r.file+": ")))
	}
	return string(text), nil
}

func (r *rules) text(cmd *cobra.Command) ([]byte, error) {
	switch r.file {
	case "":
		return nil, nil
	case "-":
		return io.ReadAll(io.LimitReader(cmd.InOrStdin(), document.BytesMax+1))
	}
	text, err := os.ReadFile(r.file)
	if err != nil {
		return nil, ask.Usage(fmt.Errorf("--file: %w", err))
	}
	return text, nil
}

// operator names who asks, for the record.
func operator() string {
	if u, err := user.Current(); err == nil && len(u.Username) <= 64 {
		return u.Username
	}
	return "operator"
}

// ref is how people name a scope.
func ref(prefix []byte) string { return "scope " + strconv.Quote(string(prefix)) }

func segmentName(id uint64) string { return anchormesh.SegmentID(id).String() }

func short(node string) string { return anchormesh.NodeID(node).Short() }

func rangeText(start, end []byte) string {
	return anchormesh.KeyRange{Start: start, End: end}.String()
}

// policyOf reads a policy of an answer; the mesh's default has the number of anchors
// that it began with.
func policyOf(text string, anchors uint32) (*policy.Policy, error) {
	if text == "" {
		p := policy.Standard()
		if anchors > 0 {
			p.Anchors.Count = int(anchors)
		}
		return p, nil
	}
	p, err := policy.Decode([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("the node answered nonsense: %w", err)
	}
	return p, nil
}

// weightsText is such as "…kXw1 (10), …9fTz (25)".
func weightsText(weights []*meshpb.Weight) string {
	var out []string
	for _, w := range weights {
		out = append(out, fmt.Sprintf("%s (%d)", short(w.GetNode()), w.GetWeight()))
	}
	return strings.Join(out, ", ")
}

// plural is such as "1 key" and "2 keys".
func plural[T int | uint64 | uint32](n T, what string) string {
	if n == 1 {
		return fmt.Sprintf("1 %s", what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}
