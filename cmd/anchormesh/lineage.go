package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/proofs"
)

func newLineage() *cobra.Command {
	var a ask.Asker
	cmd := &cobra.Command{
		Use:   "lineage [SEGMENT|KEY]",
		Short: "Show how a segment came to be",
		Long: `Show the structural decisions that made a segment what it is, oldest first, down
to the genesis of the mesh: what was decided, at which index and term of which
segment's log, who votes behind it, why, and how many of them have signed that
they applied it. SEGMENT has 16 hex digits; anything else is a key, and means
the segment that holds it. Without either it is the one with the lowest key.

A segment keeps its last decisions. Where older ones are forgotten, the table
begins with the oldest that is kept; a note says so.`,
		Example: "  anchormesh lineage /registry/pods/\n  anchormesh lineage 4a7d1ed414474e40 -o json",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return ask.Usage(errors.New("lineage takes a segment or a key, or nothing"))
			}
			return nil
		},
	}
	a.Bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &meshpb.LineageRequest{}
		if len(args) > 0 {
			if id, err := anchormesh.ParseSegmentID(args[0]); err == nil && len(args[0]) == 16 {
				req.Segment = uint64(id)
			} else {
				req.Key = []byte(args[0])
			}
		}
		v, err := askLineage(cmd.Context(), &a, req)
		if err != nil {
			return err
		}
		return printLineage(cmd, a.Out, v)
	}
	return cmd
}

// ancestry is a segment's lineage with those of its parents.
type ancestry struct {
	now     *anchormesh.Descriptor
	node    anchormesh.NodeID
	head    anchormesh.Hash
	entries []*lineage.Entry // oldest first
	signers map[anchormesh.Hash]int
	note    string
}

// askLineage asks for a segment's lineage and follows it to its parents.
func askLineage(ctx context.Context, a *ask.Asker, req *meshpb.LineageRequest) (*ancestry, error) {
	out := &ancestry{signers: make(map[anchormesh.Hash]int)}
	for {
		var reply *meshpb.LineageReply
		err := a.Mesh(ctx, func(ctx context.Context, c meshpb.MeshClient) (err error) {
			reply, err = c.Lineage(ctx, req)
			return err
		})
		if err != nil && out.now != nil {
			out.note = fmt.Sprintf("what was before stands in the lineage of segment %s, which does not answer: %v", anchormesh.SegmentID(req.Segment), err)
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		parent, err := out.take(reply)
		if err != nil {
			return nil, fmt.Errorf("the node answered nonsense: %w", err)
		}
		if parent == 0 {
			return out, nil
		}
		req = &meshpb.LineageRequest{Segment: uint64(parent)}
	}
}

// take puts a segment's decisions before what is known, and returns who has those
// before them, or zero.
func (v *ancestry) take(reply *meshpb.LineageReply) (parent anchormesh.SegmentID, err error) {
	d, err := meshpb.FromPB(reply.GetReplica().GetDescriptor_())
	if err != nil {
		return 0, err
	}
	c, err := lineage.DecodeChain(reply.GetReplica().GetChain())
	if err != nil {
		return 0, err
	}
	before := c.Entries()
	if v.now == nil {
		v.now, v.node, v.head = d, anchormesh.NodeID(reply.GetNode()), c.Head()
	} else {
		first := v.entries[0]
		for len(before) > 0 && before[len(before)-1].Height >= first.Height {
			before = before[:len(before)-1]
		}
		if len(before) == 0 || before[len(before)-1].Hash() != first.Previous[0] {
			v.note = fmt.Sprintf("%d decisions before are not kept by segment %s any more", first.Height, c.Segment())
			return 0, nil
		}
	}
	v.prove(c, reply.GetReplica().GetProofs())
	v.entries = append(before[:len(before):len(before)], v.entries...)
	switch first := v.entries[0]; {
	case first.Kind == lineage.Genesis:
		return 0, nil
	case first.Segment == c.Segment():
		v.note = fmt.Sprintf("%d decisions before are not kept any more", first.Height)
		return 0, nil
	default:
		return first.Segment, nil
	}
}

// prove counts the signatures of the proofs that hold.
func (v *ancestry) prove(c *lineage.Chain, encoded [][]byte) {
	known := make(map[anchormesh.Hash]*lineage.Proof, len(encoded))
	for _, b := range encoded {
		if p, err := lineage.DecodeProof(b); err == nil {
			known[p.Entry.Hash()] = p
		}
	}
	var before *lineage.Entry
	for _, e := range c.Entries() {
		if p := known[e.Hash()]; p != nil && proofs.Check(before, p) == nil {
			v.signers[e.Hash()] = len(p.Signatures)
		}
		before = e
	}
}

// lineageView is a lineage for programs. Keys are base64 in JSON.
type lineageView struct {
	Mesh     string         `json:"mesh"`
	Segment  string         `json:"segment"`
	Range    string         `json:"range"`
	Node     string         `json:"node"`
	Head     string         `json:"head"`
	Note     string         `json:"note,omitempty"`
	Decided  []decisionView `json:"decisions"`
	Complete bool           `json:"complete"`
}

type decisionView struct {
	Segment    string   `json:"segment"`
	Height     uint64   `json:"height"`
	Kind       string   `json:"kind"`
	Index      uint64   `json:"index"`
	Term       uint64   `json:"term"`
	Generation uint64   `json:"generation"`
	Range      string   `json:"range"`
	Start      []byte   `json:"start"`
	End        []byte   `json:"end"`
	Other      string   `json:"other_segment,omitempty"`
	OtherRange string   `json:"other_range,omitempty"`
	Voters     []string `json:"voters"`
	Outgoing   []string `json:"outgoing_voters,omitempty"`
	Why        string   `json:"why"`
	Pressure   float64  `json:"pressure"`
	Spread     float64  `json:"spread"`
	Numbers    []uint64 `json:"numbers,omitempty"`
	Operator   string   `json:"operator,omitempty"`
	Signatures int      `json:"signatures"` // 0: not proved, as far as the asked node knows
	Hash       string   `json:"hash"`
}

func (v *ancestry) view() lineageView {
	out := lineageView{
		Mesh: meshText(uint64(v.now.Mesh)), Segment: v.now.Segment.String(), Range: v.now.Range.String(), Node: string(v.node),
		Head: v.head.String(), Note: v.note, Complete: v.note == "", Decided: []decisionView{},
	}
	for _, e := range v.entries {
		d := decisionView{
			Segment: e.Segment.String(), Height: e.Height, Kind: e.Kind.String(), Index: e.Index, Term: e.Term,
			Generation: uint64(e.After.Generation), Range: e.After.Range.String(), Start: ask.NonNil(e.After.Range.Start), End: ask.NonNil(e.After.Range.End),
			Voters: texts(e.Voters.Incoming), Outgoing: texts(e.Voters.Outgoing), Why: reasonText(e.Evidence.Reason),
			Pressure: float64(e.Evidence.Pressure) / 1000, Spread: float64(e.Evidence.Spread) / 1000, Numbers: e.Evidence.Numbers,
			Operator: e.Evidence.Operator, Signatures: v.signers[e.Hash()], Hash: e.Hash().String(),
		}
		if e.Other.Segment != 0 {
			d.Other, d.OtherRange = e.Other.Segment.String(), e.Other.Range.String()
		}
		out.Decided = append(out.Decided, d)
	}
	return out
}

func texts(ids []anchormesh.NodeID) []string {
	out := []string{}
	for _, id := range ids {
		out = append(out, string(id))
	}
	return out
}

// reasonText is the word for a reason; those of a newer program are numbers.
func reasonText(r lineage.Reason) string {
	words := map[lineage.Reason]string{
		lineage.Unstated: "", lineage.Operator: "operator", lineage.Load: "load", lineage.Dormancy: "dormancy",
		lineage.Missing: "missing anchors", lineage.Dead: "dead anchor", lineage.Placement: "placement",
		lineage.Recovery: "recovery", lineage.Boundary: "boundary of a scope",
	}
	if w, ok := words[r]; ok {
		return w
	}
	return fmt.Sprintf("reason %d", r)
}

func printLineage(cmd *cobra.Command, out ask.Output, a *ancestry) error {
	v := a.view()
	if !out.ForPeople() {
		return ask.PrintJSON(cmd.OutOrStdout(), v)
	}
	var rows [][]string
	for _, d := range v.Decided {
		rows = append(rows, d.row())
	}
	head := []string{"HEIGHT", "WHAT", "SEGMENT", "INDEX", "TERM", "GEN", "RANGE", "OTHER", "VOTERS", "WHY", "SIGNED", "HASH"}
	if err := ask.PrintTable(cmd.OutOrStdout(), head, rows); err != nil || v.Note == "" {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "note: %s\n", v.Note)
	return err
}

func (d *decisionView) row() []string {
	var voters []string
	for _, id := range d.Voters {
		voters = append(voters, anchormesh.NodeID(id).Short())
	}
	for _, id := range d.Outgoing {
		if !slices.Contains(d.Voters, id) {
			voters = append(voters, anchormesh.NodeID(id).Short()+" (leaves)")
		}
	}
	other := ""
	if d.Other != "" {
		other = d.Other + " " + d.OtherRange
	}
	signed := "NO"
	if d.Signatures > 0 {
		signed = strconv.Itoa(d.Signatures)
	}
	return []string{
		strconv.FormatUint(d.Height, 10), d.Kind, d.Segment, strconv.FormatUint(d.Index, 10), strconv.FormatUint(d.Term, 10),
		strconv.FormatUint(d.Generation, 10), d.Range, other, strings.Join(voters, " "), d.whyText(), signed, d.Hash[:shortHash],
	}
}

// shortHash is how much of a hash people are shown.
const shortHash = 12

// whyText is such as "load, pressure 1.50, spread 0.90" or "operator (anna)".
func (d *decisionView) whyText() string {
	out := d.Why
	if d.Operator != "" {
		out += " (" + d.Operator + ")"
	}
	if d.Pressure != 0 || d.Spread != 0 {
		out += fmt.Sprintf(", pressure %.2f, spread %.2f", d.Pressure, d.Spread)
	}
	if len(d.Numbers) > 0 {
		out += fmt.Sprintf(", numbers %v", d.Numbers)
	}
	return out
}
