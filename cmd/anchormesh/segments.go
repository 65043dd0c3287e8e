package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/spf13/cobra"
)

func newSegments() *cobra.Command {
	var a ask.Asker
	cmd := &cobra.Command{
		Use:   "segments",
		Short: "List the segments of the keyspace and their anchors",
		Long: `List the segments that the asked node knows, by range, with their anchors.
Revision, size and load come from the node's own replica; a segment of which
it is no anchor shows the range and the anchors it heard of. POLICY is the
version of its scope's policy that a segment has adopted. In the table
the leader has a star and a learner a question mark. Pressure 1 is the
threshold, spread 1 an even load over many keys, 0 one key. What the leader
decided last, and why, is known to the leader: ask it.`,
		Example: "  anchormesh segments --endpoint 10.0.0.1:2379",
	}
	a.Bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var reply *meshpb.SegmentsReply
		err := a.Mesh(cmd.Context(), func(ctx context.Context, c meshpb.MeshClient) (err error) {
			reply = new(meshpb.SegmentsReply) // of this endpoint alone
			reply.Mesh, err = meshpb.EachSegment(ctx, c, func(s *meshpb.SegmentInfo) error {
				reply.Segments = append(reply.Segments, s)
				return nil
			})
			return err
		})
		if err != nil {
			return err
		}
		return printSegments(cmd, a.Out, reply)
	}
	return cmd
}

// segmentView is a segment in an answer. Keys are base64 in JSON; Range is for
// people.
type segmentView struct {
	ID    string `json:"id"`
	Range string `json:"range"`
	Start []byte `json:"start"`
	End   []byte `json:"end"`
	segmentRules
	Generation      uint64 `json:"generation"`
	Leader          string `json:"leader"`
	Term            uint64 `json:"term"`
	Applied         uint64 `json:"applied"`
	Revision        int64  `json:"revision"`
	CompactRevision int64  `json:"compact_revision"`
	SizeBytes       int64  `json:"size_bytes"`
	segmentLoad
	Local  bool `json:"local"`
	Asleep bool `json:"asleep"`
	segmentWord
	Lineage string       `json:"lineage"` // the beginning of its head
	Anchors []anchorView `json:"anchors"`
}

// segmentRules is by what rules it is governed.
type segmentRules struct {
	Scope  []byte `json:"scope"`
	Line   []byte `json:"line"`   // prefix of the scope on whose line of revisions it is
	Policy uint64 `json:"policy"` // version that it has adopted; 0: the mesh's default
	Class  string `json:"class"`
}

// segmentLoad is what was measured.
type segmentLoad struct {
	WritesPerSecond float64 `json:"writes_per_second"`
	ReadsPerSecond  float64 `json:"reads_per_second"`
	BytesPerSecond  float64 `json:"bytes_per_second"`
	Pressure        float64 `json:"pressure"`
	Spread          float64 `json:"spread"`
	Keys            uint64  `json:"keys"`
}

// segmentWord is what its leader decided last, and how the group stands: known to it
// only.
type segmentWord struct {
	Decision string `json:"decision,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Group    string `json:"group,omitempty"`
}

type anchorView struct {
	Node    string `json:"node"`
	Replica uint64 `json:"replica"`
	Role    string `json:"role"`
	Zone    string `json:"zone"`
	// Lag is known to the leader only.
	Lag    *uint64 `json:"lag_entries,omitempty"`
	Active *bool   `json:"active,omitempty"`
}

func viewSegment(s *meshpb.SegmentInfo) (segmentView, error) {
	d, err := meshpb.FromPB(s.GetDescriptor_())
	if err != nil {
		return segmentView{}, fmt.Errorf("the node answered nonsense: %w", err)
	}
	rates := s.GetRates()
	v := segmentView{
		ID: d.Segment.String(), Range: d.Range.String(), Start: ask.NonNil(d.Range.Start), End: ask.NonNil(d.Range.End),
		segmentRules: segmentRules{ask.NonNil(d.Scope), ask.NonNil(d.Line), d.Policy, d.Class.String()},
		Generation:   uint64(d.Generation), Leader: s.GetLeader(), Term: s.GetTerm(), Applied: s.GetApplied(),
		Revision: s.GetRevision(), CompactRevision: s.GetCompactRevision(), SizeBytes: s.GetSizeBytes(),
		segmentLoad: segmentLoad{
			WritesPerSecond: rates.GetWritesPerSecond(), ReadsPerSecond: rates.GetReadsPerSecond(),
			BytesPerSecond: rates.GetBytesPerSecond(), Pressure: s.GetPressure(), Spread: s.GetSpread(), Keys: s.GetKeys(),
		},
		segmentWord: segmentWord{Decision: s.GetDecision(), Reason: s.GetReason(), Group: s.GetGroup()},
		Local:       s.GetLocal(), Asleep: s.GetAsleep(),
		Lineage: d.Lineage.String()[:shortHash],
	}
	for _, a := range d.Anchors {
		av := anchorView{Node: string(a.Node), Replica: uint64(a.Replica), Role: a.Role.String(), Zone: a.Zone}
		for _, lag := range s.GetLags() {
			if lag.GetReplica() == av.Replica {
				entries, active := lag.GetEntries(), lag.GetActive()
				av.Lag, av.Active = &entries, &active
			}
		}
		v.Anchors = append(v.Anchors, av)
	}
	return v, nil
}

func printSegments(cmd *cobra.Command, out ask.Output, reply *meshpb.SegmentsReply) error {
	views := make([]segmentView, 0, len(reply.GetSegments()))
	for _, s := range reply.GetSegments() {
		v, err := viewSegment(s)
		if err != nil {
			return err
		}
		views = append(views, v)
	}
	if !out.ForPeople() {
		return ask.PrintJSON(cmd.OutOrStdout(), struct {
			Mesh     string        `json:"mesh"`
			Segments []segmentView `json:"segments"`
		}{meshText(reply.GetMesh()), views})
	}
	var rows [][]string
	for _, v := range views {
		rows = append(rows, v.row())
	}
	return ask.PrintTable(cmd.OutOrStdout(), []string{"SEGMENT", "RANGE", "SCOPE", "POLICY", "CLASS", "GEN", "TERM", "REVISION", "SIZE", "WRITES/S", "READS/S", "PRESSURE", "SPREAD", "ANCHORS", "DECISION"}, rows)
}

func (v segmentView) row() []string {
	own := func(text string) string {
		if !v.Local {
			return ""
		}
		return text
	}
	return []string{
		v.ID, v.Range, strconv.Quote(string(v.Scope)), strconv.FormatUint(v.Policy, 10), v.Class, strconv.FormatUint(v.Generation, 10),
		own(strconv.FormatUint(v.Term, 10)), own(strconv.FormatInt(v.Revision, 10)), own(ask.Bytes(v.SizeBytes)),
		own(fmt.Sprintf("%.0f", v.WritesPerSecond)), own(fmt.Sprintf("%.0f", v.ReadsPerSecond)), own(fmt.Sprintf("%.2f", v.Pressure)), own(fmt.Sprintf("%.2f", v.Spread)),
		v.anchorsText(), v.decisionText(),
	}
}

// decisionText is what the leader decided, and why.
func (v segmentView) decisionText() string {
	switch {
	case v.Decision == "":
		return ""
	case v.Asleep:
		return "asleep; " + v.Decision + ": " + v.Reason
	}
	return v.Decision + ": " + v.Reason
}

// anchorsText is such as "…kXw1* …9fTz …Qm3c? (+12)": leader, voter, learner 12
// entries behind.
func (v segmentView) anchorsText() string {
	var out []string
	for _, a := range v.Anchors {
		text := anchormesh.NodeID(a.Node).Short()
		if a.Node == v.Leader {
			text += "*"
		}
		if a.Role == anchormesh.Learner.String() {
			text += "?"
		}
		if a.Lag != nil && *a.Lag > 0 {
			text += fmt.Sprintf(" (+%d)", *a.Lag)
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}
