package node_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/client"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// scopeService is the documented service, as operators' programs use it: node i over TCP,
// and node 0 over libp2p.
type scopeService struct {
	*testMesh
	tcp  []meshpb.ScopesClient
	peer meshpb.ScopesClient
	etcd *client.Client // over libp2p
}

func (m *testMesh) service() *scopeService {
	s := &scopeService{testMesh: m}
	for i := range m.nodes {
		conn, err := grpc.NewClient(m.nodes[i].cfg.Listen.Client, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			m.t.Fatal(err)
		}
		m.t.Cleanup(func() { conn.Close() })
		s.tcp = append(s.tcp, meshpb.NewScopesClient(conn))
	}
	addr := fmt.Sprintf("%s/p2p/%s", m.nodes[0].cfg.Listen.Peer, m.id(0))
	dialer := client.NewDialer(m.key, nil)
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, addr)
	}), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		m.t.Fatal(err)
	}
	s.peer = meshpb.NewScopesClient(conn)
	if s.etcd, err = client.New(client.Config{Endpoints: []string{addr}, MeshKey: m.key}); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { s.etcd.Close(); conn.Close(); dialer.Close() })
	return s
}

// settled waits until a proposal is in force.
func (s *scopeService) settled(ctx context.Context, p *meshpb.ProposalReply, prefix string) *meshpb.Scope {
	s.t.Helper()
	var shown *meshpb.Scope
	s.eventually(30*time.Second, "scope "+prefix+" in force", func() bool {
		around, err := s.tcp[0].Show(ctx, &meshpb.ShowScopeRequest{Prefix: p.GetScope()})
		own, err2 := s.tcp[0].Show(ctx, &meshpb.ShowScopeRequest{Prefix: []byte(prefix)})
		if err != nil || err2 != nil || around.GetScope().GetDoing() != nil {
			return false
		}
		shown = own.GetScope()
		return shown.GetInForce() == shown.GetVersion() && len(shown.GetOpen()) == 0
	})
	return shown
}

// propose asks for another policy of a scope, or for the scope.
func (s *scopeService) propose(ctx context.Context, c meshpb.ScopesClient, prefix, document string) (p *meshpb.ProposalReply) {
	s.t.Helper()
	s.eventually(30*time.Second, "proposal of "+prefix, func() bool {
		var err error
		p, err = c.Set(ctx, &meshpb.SetScopeRequest{Prefix: []byte(prefix), Policy: document, Operator: "anna"})
		if status.Code(err) == codes.NotFound {
			p, err = c.Create(ctx, &meshpb.CreateScopeRequest{Prefix: []byte(prefix), Policy: document, Operator: "anna"})
		}
		if err != nil && status.Code(err) != codes.Unavailable {
			s.t.Fatalf("scope %q: %v", prefix, err)
		}
		return err == nil
	})
	return p
}

// set gives a scope another policy, or makes it.
func (s *scopeService) set(ctx context.Context, prefix, document string) {
	s.t.Helper()
	s.settled(ctx, s.propose(ctx, s.tcp[1], prefix, document), prefix)
}

// One mesh, asked for all that a scope's operators and its etcd clients may ask.
func TestScopesService(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := m.service()
	s.set(ctx, "/s/", rulesOfEverySort)
	t.Run("rules", func(t *testing.T) { s.rules(ctx, t) })
	s.set(ctx, "/s/", "writes: {create_only: true, ttl_required: true, key_bytes_max: 8, value_bytes_max: 5}")
	t.Run("limits", func(t *testing.T) { s.limits(ctx, t) })
	t.Run("over libp2p", func(t *testing.T) { s.overLibp2p(ctx, t) })
	s.set(ctx, "/s/", strict)
	t.Run("acks and approvals", func(t *testing.T) { s.both(ctx, t) })
	t.Run("refusals", func(t *testing.T) { s.refusals(ctx, t) })
	s.set(ctx, "/s/", "amend: {manual: true}")
	t.Run("votes by hand", func(t *testing.T) { s.votesByHand(ctx, t) })
	t.Run("a dry run", func(t *testing.T) { s.dryRunIsTrue(ctx, t) })
}

const strict = "class: strong\nacks: {count: 2}\napprovals: {threshold: 1/2}\nwrites: {value_bytes_max: 100}\n" +
	"structure: {no_split: true, no_merge: true}\nbinding: [class, acks, writes.value_bytes_max, structure.no_merge]"

// What a dry run says is what is counted and voted then.
func (s *scopeService) dryRunIsTrue(ctx context.Context, t *testing.T) {
	c := s.client()
	grant, err := c.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	bytes := 0
	for i := range 20 {
		key, value := fmt.Sprintf("/d/%02d", i), strings.Repeat("v", i)
		bytes += len(key) + len(value)
		var opts []clientv3.OpOption
		if i < 3 {
			opts = append(opts, clientv3.WithLease(grant.ID))
		}
		if _, err := c.Put(ctx, key, value, opts...); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"/a", "/z"} { // beside it
		put(ctx, t, c, key, "v")
	}
	for i := range 2 {
		watch := s.client(i).Watch(ctx, "/d/05", clientv3.WithCreatedNotify())
		if r := <-watch; r.Err() != nil {
			t.Fatal(r.Err())
		}
	}
	s.split("/d/10")
	var d *meshpb.DryRunReply
	s.eventually(30*time.Second, "count by all", func() bool {
		d, err = s.tcp[2].DryRun(ctx, &meshpb.DryRunRequest{Prefix: []byte("/d/"), Policy: "priority: 7"})
		return err == nil && len(d.GetUncounted()) == 0 && d.GetHolds().GetCounted() == 2 && d.GetHolds().GetWatchers() == 2
	})
	h := d.GetHolds()
	if h.GetKeys() != 20 || h.GetBytes() != int64(bytes) || h.GetLeases() != 1 || h.GetWatchers() != 2 || len(d.GetSegments()) != 2 || len(d.GetCuts()) != 2 {
		t.Errorf("20 keys of %d bytes, 1 lease, 2 watchers, 2 segments with a cut each; the dry run says %v", bytes, d)
	}
	s.set(ctx, "/d/", "priority: 7")
	made := s.show(ctx, t, "/d/")
	if made.GetPolicy() != d.GetPolicy() || len(made.GetSegments()) != len(d.GetSegments()) {
		t.Errorf("it became %v, the dry run says %v", made, d)
	}
	history, err := s.tcp[0].History(ctx, &meshpb.ScopeHistoryRequest{Prefix: d.GetDecides()})
	if err != nil || len(history.GetCounts()) == 0 {
		t.Fatalf("%v, %v", history, err)
	}
	counted := history.GetCounts()[len(history.GetCounts())-1]
	weights := uint64(0) // the ledger may have grown since
	for _, v := range d.GetVoters() {
		weights += uint64(v.GetWeight())
	}
	if counted.GetKind() != "create" || uint64(d.GetNeeded()) != weights/2+1 || len(counted.GetVoters()) != len(d.GetVoters()) ||
		counted.GetTally().GetNeeded() != counted.GetTally().GetTotal()/2+1 {
		t.Errorf("the vote was %v, the dry run says %d of %v", counted, d.GetNeeded(), d.GetVoters())
	}
}

// Whatever can be refused is, through any node, with its field and the reason.
func (s *scopeService) refusals(ctx context.Context, t *testing.T) {
	create := func(prefix, document string) func(meshpb.ScopesClient) error {
		return func(c meshpb.ScopesClient) error {
			_, err := c.Create(ctx, &meshpb.CreateScopeRequest{Prefix: []byte(prefix), Policy: document})
			return err
		}
	}
	set := func(prefix, document string) func(meshpb.ScopesClient) error {
		return func(c meshpb.ScopesClient) error {
			_, err := c.Set(ctx, &meshpb.SetScopeRequest{Prefix: []byte(prefix), Policy: document})
			return err
		}
	}
	inner := "class: strong\nacks: {all: true}\nwrites: {value_bytes_max: 50}\nstructure: {no_merge: true}\n"
	binding := "binding: [class, acks, writes.value_bytes_max, structure.no_merge]"
	for what, r := range map[string]struct {
		ask   func(meshpb.ScopesClient) error
		code  codes.Code
		names []string
	}{
		"unknown field":          {create("/n/", "colour: red"), codes.InvalidArgument, []string{"line 1: colour: there is no such field"}},
		"unknown class":          {create("/n/", "class: soft"), codes.InvalidArgument, []string{"line 1: class", "want light, normal or strong"}},
		"acks above anchors":     {create("/n/", "class: strong\nacks: {count: 5}"), codes.InvalidArgument, []string{"acks.count", "5 acks of 3 anchors can never arrive"}},
		"acks below a majority":  {create("/n/", "class: strong\nacks: {count: 1}"), codes.InvalidArgument, []string{"acks.count", "waits for a majority"}},
		"acks in etcd's class":   {create("/n/", "acks: {all: true}"), codes.InvalidArgument, []string{"acks", "class strong has more"}},
		"approvals out of reach": {create("/n/", "class: strong\napprovals: {threshold: 1/1}"), codes.InvalidArgument, []string{"approvals.threshold", "cannot be reached when 1 of 3 anchors are missing"}},
		"amend out of reach":     {create("/n/", "amend: {threshold: 3/4}"), codes.InvalidArgument, []string{"amend.threshold", "cannot be reached"}},
		"trust cap":              {create("/n/", "amend: {threshold: 1/3}"), codes.InvalidArgument, []string{"amend.threshold", "would let 1 of 3 anchors decide alone"}},
		"zones":                  {create("/n/", "anchors: {count: 3, zones: 4}"), codes.InvalidArgument, []string{"anchors.zones", "3 anchors cannot be in 4 zones"}},
		"anchors":                {create("/n/", "anchors: {count: 4}"), codes.InvalidArgument, []string{"anchors.count", "want 1, 3, 5 or 7"}},
		"min_trust":              {create("/n/", "anchors: {min_trust: 101}"), codes.InvalidArgument, []string{"anchors.min_trust", "want 0 to 100"}},
		"a rule":                 {create("/n/", "writes: {rules: [{name: r, expr: 'now() > 1'}]}"), codes.InvalidArgument, []string{"line 1: writes.rules[0]", `rule "r" does not compile`}},
		"leases of leadership":   {create("/n/", "reads: {lease: true}"), codes.InvalidArgument, []string{"reads.lease", "not offered"}},
		"a light root":           {set("", "class: light"), codes.InvalidArgument, []string{"class", "the root scope cannot be light"}},
		"several at once":        {create("/n/", "anchors: {count: 2}\npriority: 99"), codes.InvalidArgument, []string{"anchors.count", "priority"}},
		"weaker class":           {create("/s/in/", "structure: {no_merge: true}"), codes.FailedPrecondition, []string{"class: normal is laxer than strong", "writes.value_bytes_max: unbounded is laxer than 100", "binding: must name"}},
		"weaker limit":           {create("/s/in/", strings.ReplaceAll(inner, "50", "101")+binding), codes.FailedPrecondition, []string{"writes.value_bytes_max: 101 is laxer than 100"}},
		"merges again":           {create("/s/in/", strings.ReplaceAll(inner, "no_merge: true", "no_merge: false")+binding), codes.FailedPrecondition, []string{"structure.no_merge: no is laxer than yes"}},
		"unbound":                {create("/s/in/", inner), codes.FailedPrecondition, []string{"binding: must name class, acks, writes.value_bytes_max, structure.no_merge"}},
		"twice":                  {create("/s/", ""), codes.AlreadyExists, []string{`scope "/s/" exists already`}},
		"nowhere":                {set("/n/", ""), codes.NotFound, []string{`there is no scope "/n/"`}},
		"the root's end": {func(c meshpb.ScopesClient) error {
			_, err := c.Delete(ctx, &meshpb.DeleteScopeRequest{})
			return err
		}, codes.FailedPrecondition, []string{"the root scope cannot be deleted"}},
		"a dry run of a weaker one": {func(c meshpb.ScopesClient) error {
			_, err := c.DryRun(ctx, &meshpb.DryRunRequest{Prefix: []byte("/s/in/")})
			return err
		}, codes.FailedPrecondition, []string{"class: normal is laxer than strong"}},
		"an old version": {func(c meshpb.ScopesClient) error {
			_, err := c.Set(ctx, &meshpb.SetScopeRequest{Prefix: []byte("/s/"), Expect: new(uint64(7))})
			return err
		}, codes.Aborted, []string{`the newest version of scope "/s/" is 4, not 7`}},
		"recovery of what is well": {func(c meshpb.ScopesClient) error {
			shown, err := c.Show(ctx, &meshpb.ShowScopeRequest{Prefix: []byte("/s/")})
			if err == nil {
				home := shown.GetScope()
				_, err = c.Recover(ctx, &meshpb.RecoverScopeRequest{Segment: home.GetHome(), Survivor: home.GetLeader()})
			}
			return err
		}, codes.FailedPrecondition, []string{"has its majority, and nothing is to be recovered"}},
	} {
		for i, c := range s.tcp {
			refused(t, fmt.Sprintf("%s, by node %d", what, i+1), r.ask(c), r.code, r.names...)
		}
	}
	// Orders against the policy.
	home := s.show(ctx, t, "/s/").GetHome()
	refused(t, "a split", s.ask(0, func(ctx context.Context, c meshpb.MeshClient) error {
		_, err := c.Split(ctx, &meshpb.SplitRequest{Boundary: []byte("/s/m")})
		return err
	}), codes.FailedPrecondition, `"/s/"`, "forbids splits")
	refused(t, "a merge", s.ask(0, func(ctx context.Context, c meshpb.MeshClient) error {
		_, err := c.Merge(ctx, &meshpb.MergeRequest{Segment: home, Key: []byte("/strict0")})
		return err
	}), codes.FailedPrecondition, "scope")
}

func (s *scopeService) show(ctx context.Context, t *testing.T, prefix string) *meshpb.Scope {
	t.Helper()
	shown, err := s.tcp[0].Show(ctx, &meshpb.ShowScopeRequest{Prefix: []byte(prefix)})
	if err != nil {
		t.Fatal(err)
	}
	return shown.GetScope()
}

// rulesOfEverySort has one rule for each thing that a rule sees.
const rulesOfEverySort = `
writes:
  rules:
    - {name: by-key, expr: "!key.endsWith('!')"}
    - {name: by-old, expr: "old == null || string(old) != 'frozen'"}
    - {name: by-new, expr: "deleted || string(new) != 'bad'"}
    - {name: by-size, expr: "deleted || size <= 20"}
    - {name: by-lease, expr: "deleted || lease == 0 || key.startsWith('/s/tmp/')"}
    - {name: by-revision, expr: "deleted || revision == 0 || string(new) != 'first'"}
    - {name: by-user, expr: "deleted || string(new) != 'mine' || user == 'anna'"}
    - {name: by-peer, expr: "!key.startsWith('/s/peers/') || peer != ''"}
retention: {seconds: 1}
`

// Each sentence about rules, as an etcd client sees it: in Put, Txn, nested Txn, DeleteRange
// and with leases; nothing of what is refused takes effect.
func (s *scopeService) rules(ctx context.Context, t *testing.T) {
	c := s.client(2)
	grant, err := c.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"/s/a": "v", "/s/b": "v", "/s/new": "first"} {
		put(ctx, t, c, key, value)
	}
	first := put(ctx, t, c, "/s/z", "frozen")
	op := clientv3.OpPut
	txn := func(ops ...clientv3.Op) error {
		_, err := c.Txn(ctx).Then(append(ops, op("/s/b", "written"))...).Commit()
		return err
	}
	for what, r := range map[string]struct {
		err   error
		names []string
	}{
		"key":              {second(c.Put(ctx, "/s/a!", "v")), []string{"by-key", "/s/a!"}},
		"old":              {second(c.Put(ctx, "/s/z", "w")), []string{"by-old", "/s/z"}},
		"old, deleted":     {second(c.Delete(ctx, "/s/z")), []string{"by-old", "/s/z"}},
		"old, of many":     {second(c.Delete(ctx, "/s/", clientv3.WithPrefix())), []string{"by-old", "/s/z"}},
		"old, over scopes": {second(c.Delete(ctx, "/", clientv3.WithPrefix())), []string{"/"}},
		"new":              {second(c.Put(ctx, "/s/a", "bad")), []string{"by-new", "/s/a"}},
		"size":             {second(c.Put(ctx, "/s/a", strings.Repeat("x", 21))), []string{"by-size"}},
		"lease":            {second(c.Put(ctx, "/s/a", "v", clientv3.WithLease(grant.ID))), []string{"by-lease"}},
		"revision":         {second(c.Put(ctx, "/s/a", "first")), []string{"by-revision"}},
		"user":             {second(c.Put(ctx, "/s/a", "mine")), []string{"by-user"}},
		"peer":             {second(c.Put(ctx, "/s/peers/a", "v")), []string{"by-peer"}},
		"txn":              {txn(op("/s/a", "bad")), []string{"by-new", "/s/a"}},
		"txn that deletes": {txn(clientv3.OpDelete("/s/y", clientv3.WithRange("/s/zz"))), []string{"by-old", "/s/z"}},
		"nested txn":       {txn(clientv3.OpTxn(nil, []clientv3.Op{op("/s/a", "bad")}, nil)), []string{"by-new", "/s/a"}},
		"txn over scopes":  {txn(op("/free", "v"), op("/s/a", "bad")), []string{"by-new", "/s/a"}},
	} {
		refused(t, what, r.err, codes.FailedPrecondition, append(r.names, "refuses to")...)
	}
	for _, key := range []string{"/s/a", "/s/b"} {
		if r, err := c.Get(ctx, key); err != nil || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "v" {
			t.Errorf("%s after the refusals: %v, %v", key, r, err)
		}
	}
	if r, err := c.Get(ctx, "/free"); err != nil || len(r.Kvs) != 0 {
		t.Errorf("the other scope's part of a refused transaction: %v, %v", r, err)
	}
	// What is not judged: the branch that is not taken, and the end of a lease.
	never := clientv3.Compare(clientv3.Version("/s/a"), "=", 99)
	if _, err := c.Txn(ctx).If(never).Then(op("/s/a", "bad")).Else(op("/s/a", "good")).Commit(); err != nil {
		t.Errorf("a branch that is not taken: %v", err)
	}
	if _, err := c.Put(ctx, "/s/tmp/frozen", "frozen", clientv3.WithLease(grant.ID)); err != nil {
		t.Error(err)
	}
	if _, err := c.Revoke(ctx, grant.ID); err != nil {
		t.Errorf("the end of a lease: %v", err)
	}
	if r, err := c.Get(ctx, "/s/tmp/", clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil || r.Count != 0 {
		t.Errorf("a key of a lease that ended: %v, %v", r, err)
	}
	if _, err := s.etcd.Put(ctx, "/s/peers/a", "v"); err != nil {
		t.Errorf("over libp2p, where the peer is known: %v", err)
	}
	s.eventually(30*time.Second, "a compaction by age", func() bool {
		put(ctx, t, c, "/s/a", "v")
		_, err := c.Get(ctx, "/s/z", clientv3.WithRev(first-1))
		return err != nil && strings.Contains(err.Error(), "compacted")
	})
}

// The limits that need no expression.
func (s *scopeService) limits(ctx context.Context, t *testing.T) {
	c := s.client(1)
	grant, err := c.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	leased := clientv3.WithLease(grant.ID)
	if _, err := c.Put(ctx, "/s/l", "v", leased); err != nil {
		t.Error(err)
	}
	refused(t, "created twice", second(c.Put(ctx, "/s/l", "v", leased)), codes.FailedPrecondition, "create_only", "it exists")
	refused(t, "without a lease", second(c.Put(ctx, "/s/m", "v")), codes.FailedPrecondition, "ttl_required", "/s/m")
	refused(t, "a long key", second(c.Put(ctx, "/s/12345678", "v", leased)), codes.FailedPrecondition, "key_bytes_max")
	refused(t, "a long value", second(c.Put(ctx, "/s/m", "123456", leased)), codes.FailedPrecondition, "value_bytes_max")
	if _, err := c.Delete(ctx, "/s/l"); err != nil {
		t.Error(err)
	}
	if _, err := c.Put(ctx, "/s/l", "again", leased); err != nil {
		t.Errorf("created again: %v", err)
	}
}

// A scope with acks and approvals answers when it has both, and refuses with the rule and
// who refused.
func (s *scopeService) both(ctx context.Context, t *testing.T) {
	for i := range s.nodes {
		c := s.client(i)
		put(ctx, t, c, fmt.Sprintf("/s/both%d", i), "v")
		refused(t, "a large value", second(c.Put(ctx, "/s/x", strings.Repeat("x", 101))), codes.FailedPrecondition,
			`rule value_bytes_max of scope "/s/"`, "refused by anchor")
	}
	r, err := s.client().Get(ctx, "/s/both", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || r.Count != 3 {
		t.Errorf("%v, %v", r, err)
	}
}

// Where operators vote each vote is that of one node; the home's leader changes in the
// middle and the votes stay.
func (s *scopeService) votesByHand(ctx context.Context, t *testing.T) {
	hand := []byte("/s/")
	propose := func(priority int) *meshpb.ProposalReply {
		return s.propose(ctx, s.tcp[0], "/s/", fmt.Sprintf("amend: {manual: true}\npriority: %d", priority))
	}
	vote := func(i int, p *meshpb.ProposalReply, approve bool) {
		t.Helper()
		s.eventually(30*time.Second, "vote", func() bool {
			reply, err := s.tcp[i].Vote(ctx, &meshpb.VoteRequest{Scope: hand, Id: p.GetId(), Approve: approve, Why: "because"})
			if err == nil && anchormesh.NodeID(reply.GetNode()) != s.id(i) {
				t.Errorf("node %d was asked, and %s voted", i+1, reply.GetNode())
			}
			return err == nil
		})
	}
	ending := func(p *meshpb.ProposalReply) (out *meshpb.Ending) {
		t.Helper()
		s.eventually(30*time.Second, "end of a proposal", func() bool {
			history, err := s.tcp[2].History(ctx, &meshpb.ScopeHistoryRequest{Prefix: hand})
			i := slices.IndexFunc(history.GetEndings(), func(e *meshpb.Ending) bool { return e.GetId() == p.GetId() })
			if err != nil || i < 0 {
				return false
			}
			out = history.GetEndings()[i]
			return true
		})
		return out
	}
	before := s.show(ctx, t, "/s/").GetVersion()
	first := propose(2)
	vote(0, first, true)
	open := s.show(ctx, t, "/s/")
	if p := open.GetOpen(); len(p) != 1 || len(p[0].GetVotes()) != 1 || len(p[0].GetWaiting()) != 2 || open.GetVersion() != before {
		t.Fatalf("after the vote of one node: %v", open)
	}
	to := open.GetOpen()[0].GetWaiting()[0]
	if to == open.GetLeader() {
		to = open.GetOpen()[0].GetWaiting()[1]
	}
	s.eventually(30*time.Second, "another leader", func() bool {
		err := s.ask(0, func(ctx context.Context, c meshpb.MeshClient) error {
			_, err := c.Transfer(ctx, &meshpb.TransferRequest{Segment: open.GetHome(), To: to})
			return err
		})
		return err == nil
	})
	vote(1, first, true)
	if e := ending(first); e.GetOutcome() != "decided" {
		t.Errorf("two of three: %v", e)
	}
	second := propose(3)
	vote(1, second, false)
	vote(2, second, false)
	if e := ending(second); e.GetOutcome() != "refused" || !strings.Contains(e.GetNote(), "because") {
		t.Errorf("two against: %v", e)
	}
	third := propose(4)
	if _, err := s.tcp[1].Withdraw(ctx, &meshpb.WithdrawRequest{Scope: hand, Id: third.GetId(), Operator: "bert"}); err != nil {
		t.Fatal(err)
	}
	if e := ending(third); e.GetOutcome() != "withdrawn" || e.GetNote() != "by bert" {
		t.Errorf("withdrawn: %v", e)
	}
	if v := s.show(ctx, t, "/s/"); v.GetVersion() != before+1 || !strings.Contains(v.GetPolicy(), `"priority":2`) {
		t.Errorf("in force: %v", v)
	}
}

// The same service answers over libp2p, and its changes are those of everybody.
func (s *scopeService) overLibp2p(ctx context.Context, t *testing.T) {
	list, err := s.peer.List(ctx, &meshpb.ListScopesRequest{})
	if err != nil || len(list.GetScopes()) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	before := s.show(ctx, t, "/s/").GetVersion()
	p := s.propose(ctx, s.peer, "/s/", "writes: {create_only: true}")
	if shown := s.settled(ctx, p, "/s/"); shown.GetVersion() != before+1 {
		t.Errorf("%v", shown)
	}
	refused(t, "a refusal", second(s.peer.Create(ctx, &meshpb.CreateScopeRequest{Prefix: []byte("/n/"), Policy: "anchors: {count: 4}"})),
		codes.InvalidArgument, "anchors.count", "want 1, 3, 5 or 7")
	trust, err := s.peer.Trust(ctx, &meshpb.TrustRequest{Prefix: []byte("/s/"), Ledger: true})
	if err != nil || len(trust.GetSegments()) != 1 || len(trust.GetSegments()[0].GetWeights()) != 3 {
		t.Errorf("%v, %v", trust, err)
	}
}
