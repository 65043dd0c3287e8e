package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/proofs"
	"github.com/anchormesh/anchormesh/node/verify"
)

// looksMax is how often a mesh is looked at before a finding counts, and looksWait
// the time between: what was only passing is gone by then.
const looksMax = 6

var looksWait = time.Second

const (
	// hashWait bounds the hashing of one replica.
	hashWait = 2 * time.Minute
	// hashesAtOnce bounds the questions for hashes under way, hashesInOne those that one
	// request carries about replicas as they stand.
	hashesAtOnce = 16
	hashesInOne  = 1000
)

func newVerify() *cobra.Command {
	var a ask.Asker
	var revision int64
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that the structure of a running mesh is whole",
		Long: `Ask the nodes for what they have applied and prove that every key has exactly
one owner, that every segment's lineage verifies and leads to genesis with
proofs, that the replicas of each segment hold the same history at one revision,
and that all nodes route to segments as they are or were. Any node is enough as
endpoint: it names the others; those that do not answer are noted.

The mesh may be written to, split and moved meanwhile. What is found wrong is
looked at again for some seconds; only what stays is a finding. The command
fails (status 1) if there is one.`,
		Example: "  anchormesh verify\n  anchormesh verify --endpoints 10.0.0.1:2379,10.0.0.2:2379 --revision 12345 -o json",
	}
	a.Bind(cmd)
	cmd.Flags().Int64Var(&revision, "revision", 0, "compare replicas at this revision (0: the newest)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if revision < 0 {
			return ask.Usage(errors.New("--revision is not negative"))
		}
		s, err := openSeats(cmd.Context(), &a)
		if err != nil {
			return err
		}
		defer s.close()
		v := s.verify(cmd.Context(), revision)
		if err := printVerify(cmd, a.Out, v); err != nil {
			return err
		}
		if n := len(v.Findings); n > 0 {
			return fmt.Errorf("the mesh is not as it should be: %d findings", n)
		}
		return nil
	}
	return cmd
}

// seat is a node with a connection to it.
type seat struct {
	endpoint string
	conn     ask.Conn
	client   meshpb.MeshClient
	id       anchormesh.NodeID
}

// seats are the nodes that are asked.
type seats struct {
	asker *ask.Asker
	nodes []*seat
	notes []string
}

func (s *seats) close() {
	for _, n := range s.nodes {
		n.conn.Close()
	}
}

// openSeats connects to the given nodes and to those that they know.
func openSeats(ctx context.Context, a *ask.Asker) (*seats, error) {
	s := &seats{asker: a}
	var problems []error
	for _, endpoint := range a.Endpoints {
		if err := s.add(ctx, endpoint); errors.Is(err, ask.ErrUsage) {
			s.close()
			return nil, err
		} else if err != nil {
			problems = append(problems, err)
		}
	}
	if len(s.nodes) == 0 {
		return nil, errors.Join(problems...)
	}
	for _, p := range problems {
		s.notes = append(s.notes, "not asked: "+p.Error())
	}
	s.discover(ctx)
	return s, nil
}

// add connects to a node, unless it is there already.
func (s *seats) add(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, s.asker.Timeout)
	defer cancel()
	conn, err := s.asker.Dial(ctx, endpoint)
	if err != nil {
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	n := &seat{endpoint: endpoint, conn: conn, client: meshpb.NewMeshClient(conn)}
	reply, err := n.client.Nodes(ctx, &meshpb.NodesRequest{})
	if err != nil {
		conn.Close()
		return fmt.Errorf("%s: %s", endpoint, ask.Plain(err))
	}
	for _, m := range reply.GetNodes() {
		if m.GetSelf() {
			n.id = anchormesh.NodeID(m.GetId())
		}
	}
	if s.knows(n.id) {
		conn.Close()
		return nil
	}
	s.nodes = append(s.nodes, n)
	return nil
}

func (s *seats) knows(id anchormesh.NodeID) bool {
	return slices.ContainsFunc(s.nodes, func(n *seat) bool { return n.id == id })
}

// discover connects to the nodes that the first one knows to be alive.
func (s *seats) discover(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*s.asker.Timeout)
	defer cancel()
	reply, err := s.nodes[0].client.Nodes(ctx, &meshpb.NodesRequest{})
	if err != nil {
		s.notes = append(s.notes, fmt.Sprintf("%s does not tell of the other nodes: %s", s.nodes[0].endpoint, ask.Plain(err)))
		return
	}
	for _, m := range reply.GetNodes() {
		id := anchormesh.NodeID(m.GetId())
		if s.knows(id) || m.GetState() == meshpb.NodeState_NODE_STATE_LEFT {
			continue
		}
		err := errors.New("it is " + stateText(m.GetState()))
		for _, url := range m.GetClientUrls() {
			if m.GetState() != meshpb.NodeState_NODE_STATE_ALIVE {
				break
			}
			if err = s.add(ctx, url); err == nil {
				break
			}
		}
		if !s.knows(id) {
			s.notes = append(s.notes, fmt.Sprintf("node %s (%s) was not asked: %v", id.Short(), m.GetName(), err))
		}
	}
}

// verify looks until there is nothing wrong, or until it is sure.
func (s *seats) verify(ctx context.Context, revision anchormesh.Revision) verifyView {
	var looks [][]verify.Finding
	for {
		report, notes, at := s.look(ctx, revision)
		looks = append(looks, report.Findings)
		v := verifyView{
			Nodes: len(s.nodes), Segments: len(report.Owners), Revision: at, Looks: len(looks),
			Findings: []findingView{}, Notes: ask.NonNil(slices.Concat(s.notes, notes, report.Notes)),
		}
		if len(report.Findings) == 0 {
			return v
		}
		if len(looks) == looksMax || ctx.Err() != nil {
			for _, f := range verify.Lasting(looks...) {
				v.Findings = append(v.Findings, viewFinding(f))
			}
			return v
		}
		select {
		case <-ctx.Done():
		case <-time.After(looksWait):
		}
	}
}

// look asks all nodes once and judges what they say.
func (s *seats) look(ctx context.Context, revision anchormesh.Revision) (verify.Report, []string, anchormesh.Revision) {
	nodes := make([]*verify.Node, len(s.nodes))
	failed := make([]error, len(s.nodes))
	var asked sync.WaitGroup
	for i, n := range s.nodes {
		asked.Go(func() { nodes[i], failed[i] = n.structure(ctx, s.asker.Timeout) })
	}
	asked.Wait()
	var told []verify.Node
	var notes []string
	for i, n := range nodes {
		if failed[i] != nil {
			notes = append(notes, fmt.Sprintf("%s does not answer: %s", s.nodes[i].endpoint, ask.Plain(failed[i])))
			continue
		}
		told = append(told, *n)
	}
	report := verify.Look(told, proofs.Check)
	questions := verify.Questions(report.Owners, revision)
	at := revision
	if len(questions) > 0 {
		at = questions[0].At
	}
	report.Findings = append(report.Findings, verify.Differing(s.hashes(ctx, report.Owners, questions))...)
	return report, notes, at
}

// errSilent ends a question to a node from which nothing came for as long as an answer may take.
var errSilent = errors.New("no answer in time")

// structure asks a node for all it knows, and waits for each part of it as long as for an
// answer: of thousands of segments the whole takes longer.
func (n *seat) structure(ctx context.Context, wait time.Duration) (*verify.Node, error) {
	var out *verify.Node
	err := patiently(ctx, wait, func(ctx context.Context, heard func()) (err error) {
		out, err = n.read(ctx, heard)
		return err
	})
	return out, err
}

// patiently gives f time for as long as it hears something now and then.
func patiently(ctx context.Context, wait time.Duration, f func(ctx context.Context, heard func()) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := time.AfterFunc(wait, func() { cancel(errSilent) })
	defer patience.Stop()
	err := f(ctx, func() { patience.Reset(wait) })
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return err
}

// read reads all that a node knows; heard is called at each part.
func (n *seat) read(ctx context.Context, heard func()) (*verify.Node, error) {
	stream, err := n.client.Structure(ctx, &meshpb.StructureRequest{})
	if err != nil {
		return nil, err
	}
	out := &verify.Node{ID: n.id}
	for {
		item, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		heard()
		if err := take(out, item); err != nil {
			return nil, fmt.Errorf("it answered nonsense: %w", err)
		}
	}
}

func take(out *verify.Node, item *meshpb.StructureItem) error {
	switch {
	case item.GetNode() != nil:
		out.ID, out.Mesh = anchormesh.NodeID(item.GetNode().GetInfo().GetId()), anchormesh.MeshID(item.GetNode().GetMesh())
	case item.GetRoute() != nil:
		d, err := meshpb.FromPB(item.GetRoute())
		if err != nil {
			return err
		}
		out.Routes = append(out.Routes, d)
	case item.GetReplica() != nil:
		r := item.GetReplica()
		d, err := meshpb.FromPB(r.GetDescriptor_())
		if err != nil {
			return err
		}
		out.Replicas = append(out.Replicas, verify.Replica{
			Descriptor: d, Chain: r.GetChain(), Proofs: r.GetProofs(), Leads: r.GetLeads(), Term: r.GetTerm(),
			Revision: r.GetRevision(), Compacted: r.GetCompactRevision(),
		})
	}
	return nil
}

// hashes asks for the hashes of replicas: as they stand, behind a barrier where that says
// nothing, and again where a compaction came between.
func (s *seats) hashes(ctx context.Context, owners []verify.Owner, questions []verify.Question) []verify.Answer {
	answers := s.standing(ctx, questions)
	group := errgroup.Group{}
	group.SetLimit(hashesAtOnce)
	for _, i := range verify.Apart(owners, answers) {
		group.Go(func() error { answers[i] = s.hash(ctx, questions[i]); return nil })
	}
	_ = group.Wait() // errors are in the answers
	for _, q := range verify.Raise(answers) {
		i := slices.IndexFunc(answers, func(a verify.Answer) bool { return a.Segment == q.Segment && a.Node == q.Node })
		answers[i] = s.hash(ctx, q)
	}
	return answers
}

// errUnasked is the answer of a node that has not answered.
var errUnasked = errors.New("it has not answered")

// standing asks for the hashes of replicas as they stand.
func (s *seats) standing(ctx context.Context, questions []verify.Question) []verify.Answer {
	answers := make([]verify.Answer, len(questions))
	byNode := make(map[anchormesh.NodeID][]int)
	for i, q := range questions {
		answers[i] = verify.Answer{Question: q, Err: errUnasked}
		byNode[q.Node] = append(byNode[q.Node], i)
	}
	var asked sync.WaitGroup
	for _, n := range s.nodes {
		asked.Go(func() {
			for part := range slices.Chunk(byNode[n.id], hashesInOne) {
				err := patiently(ctx, hashWait, func(ctx context.Context, heard func()) error {
					return n.stand(ctx, answers, part, heard)
				})
				if err != nil {
					return // what is not answered is asked behind a barrier
				}
			}
		})
	}
	asked.Wait()
	return answers
}

// stand asks a node for the answers to some questions about replicas as they stand.
func (n *seat) stand(ctx context.Context, answers []verify.Answer, some []int, heard func()) error {
	req := &meshpb.HashesRequest{}
	for _, i := range some {
		req.Replicas = append(req.Replicas, hashRequest(&answers[i].Question))
	}
	stream, err := n.client.Hashes(ctx, req)
	if err != nil {
		return err
	}
	for _, i := range some {
		reply, err := stream.Recv()
		if err != nil {
			return err
		}
		heard()
		a := &answers[i]
		if a.Err = nil; reply.GetProblem() != "" {
			a.Err = errors.New(reply.GetProblem())
		}
		a.Sum, a.Floor, a.Stands = reply.GetSum(), reply.GetFloor(), lineage.Place{Index: reply.GetApplied(), Term: reply.GetTerm()}
	}
	return nil
}

func hashRequest(q *verify.Question) *meshpb.HashRequest {
	return &meshpb.HashRequest{Segment: uint64(q.Segment), Generation: uint64(q.Generation), Revision: q.At, Floor: q.Floor}
}

func (s *seats) hash(ctx context.Context, q verify.Question) verify.Answer {
	ctx, cancel := context.WithTimeout(ctx, hashWait)
	defer cancel()
	i := slices.IndexFunc(s.nodes, func(n *seat) bool { return n.id == q.Node })
	if i < 0 {
		return verify.Answer{Question: q, Err: errors.New("it is not asked")}
	}
	reply, err := s.nodes[i].client.Hash(ctx, hashRequest(&q))
	if err != nil {
		return verify.Answer{Question: q, Err: errors.New(ask.Plain(err))}
	}
	q.Floor = reply.GetFloor()
	return verify.Answer{Question: q, Sum: reply.GetSum()}
}

// verifyView is what was found.
type verifyView struct {
	Nodes    int           `json:"nodes"`
	Segments int           `json:"segments"`
	Revision int64         `json:"revision"`
	Looks    int           `json:"looks"`
	Findings []findingView `json:"findings"`
	Notes    []string      `json:"notes"`
}

type findingView struct {
	Kind    string `json:"kind"`
	Segment string `json:"segment,omitempty"`
	Node    string `json:"node,omitempty"`
	Text    string `json:"text"`
}

func viewFinding(f verify.Finding) findingView {
	out := findingView{Kind: string(f.Kind), Node: string(f.Node), Text: f.Text}
	if f.Segment != 0 {
		out.Segment = f.Segment.String()
	}
	return out
}

func printVerify(cmd *cobra.Command, out ask.Output, v verifyView) error {
	w := cmd.OutOrStdout()
	if !out.ForPeople() {
		return ask.PrintJSON(w, v)
	}
	for _, n := range v.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	if len(v.Findings) == 0 {
		_, err := fmt.Fprintf(w, "%d segments on %d nodes at revision %d: every key has one owner, every lineage is proved, replicas and routes agree\n",
			v.Segments, v.Nodes, v.Revision)
		return err
	}
	var rows [][]string
	for _, f := range v.Findings {
		rows = append(rows, []string{f.Kind, f.Segment, anchormesh.NodeID(f.Node).Short(), f.Text})
	}
	return ask.PrintTable(w, []string{"KIND", "SEGMENT", "NODE", "FINDING"}, rows)
}
