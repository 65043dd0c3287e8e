package keyspace

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/keyspace/rules"
	"github.com/anchormesh/anchormesh/keyspace/signed"
)

func (d *driver) govern(g Governed) *driver {
	d.t.Helper()
	if err := d.space.Govern(&g); err != nil {
		d.t.Fatal(err)
	}
	return d
}

func ruled(r rules.Rules) Governed {
	r.Scope = "/s"
	return Governed{Rules: r}
}

func expressed(text string) Governed {
	return ruled(rules.Rules{Exprs: []rules.Expr{{Name: "mine", Text: text}}})
}

// given puts an origin in front of a command.
func given(o Origin, cmd []byte) []byte { return append(AppendOrigin(nil, &o), cmd...) }

func wantRefused(t *testing.T, what string, o Outcome, rule string) {
	t.Helper()
	var r *rules.Refusal
	switch {
	case rule == "" && o.Err != nil:
		t.Errorf("%s: %v", what, o.Err)
	case rule != "" && (!errors.As(o.Err, &r) || r.Rule != rule || r.Scope != "/s"):
		t.Errorf("%s: %v, want a refusal by %s", what, o.Err, rule)
	}
}

func txnOf(ops ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: ops} }

// Every kind of rule, in every kind of request. "a" is "1", "b" is "2" and hangs on
// lease 7; the request stands alone in its entry.
func TestRulesInEveryRequest(t *testing.T) {
	put := func(k, v string) *pb.PutRequest { return &pb.PutRequest{Key: []byte(k), Value: []byte(v)} }
	on7 := func(r *pb.PutRequest) *pb.PutRequest { r.Lease = 7; return r }
	all := &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("z")}
	fails := []*pb.Compare{{Key: []byte("a"), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 99}}}
	create, grow := rules.Rules{CreateOnly: true}, rules.Rules{AppendOnly: true}
	ttl, short := rules.Rules{TTLRequired: true}, rules.Rules{KeyBytesMax: 2, ValueBytesMax: 2}
	for _, c := range []struct {
		name string
		gov  Governed
		cmd  []byte
		rule string
	}{
		{"create new", ruled(create), command(OpPut, put("c", "x")), ""},
		{"create again", ruled(create), command(OpPut, put("a", "x")), "create_only"},
		{"create again in a txn", ruled(create), command(OpTxn, txnOf(putOp(put("c", "x")), putOp(put("a", "x")))), "create_only"},
		{"create again in the branch not taken", ruled(create), command(OpTxn, &pb.TxnRequest{Compare: fails, Success: []*pb.RequestOp{putOp(put("a", "x"))}}), ""},
		{"create again in the other branch", ruled(create), command(OpTxn, &pb.TxnRequest{Compare: fails, Failure: []*pb.RequestOp{putOp(put("a", "x"))}}), "create_only"},
		{"create in a nested txn", ruled(create), command(OpTxn, txnOf(&pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txnOf(putOp(put("a", "x")))}})), "create_only"},
		{"create what the request created", ruled(create), command(OpTxn, txnOf(putOp(put("c", "x")), putOp(put("c", "y")))), "create_only"},
		{"create what the request deleted", ruled(create), command(OpTxn, txnOf(deleteOp("a", ""), putOp(put("a", "y")))), ""},
		{"create: lease of an old key", ruled(create), command(OpPut, &pb.PutRequest{Key: []byte("a"), IgnoreValue: true, Lease: 7}), "create_only"},
		{"create: delete", ruled(create), command(OpDeleteRange, all), ""},
		{"create prepared", ruled(create), prepareCommand(20, 1, 1, commit.Write{Key: []byte("c"), Value: []byte("x")}), ""},
		{"create again prepared", ruled(create), prepareCommand(20, 1, 1, commit.Write{Key: []byte("c")}, commit.Write{Key: []byte("a")}), "create_only"},
		{"append", ruled(grow), command(OpPut, put("a", "12")), ""},
		{"append other", ruled(grow), command(OpPut, put("a", "2")), "append_only"},
		{"append twice", ruled(grow), command(OpTxn, txnOf(putOp(put("a", "12")), putOp(put("a", "123")))), ""},
		{"append to the old one", ruled(grow), command(OpTxn, txnOf(putOp(put("a", "12")), putOp(put("a", "13")))), "append_only"},
		{"append: delete", ruled(grow), command(OpDeleteRange, all), "append_only"},
		{"append: delete nothing", ruled(grow), command(OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("x"), RangeEnd: []byte("z")}), ""},
		{"append: delete in a txn", ruled(grow), command(OpTxn, txnOf(putOp(put("a", "12")), deleteOp("b", "c"))), "append_only"},
		{"append: delete what the request put", ruled(grow), command(OpTxn, txnOf(putOp(put("q", "1")), deleteOp("p", "r"))), "append_only"},
		{"append: delete prepared", ruled(grow), prepareCommand(20, 1, 1, commit.Write{Key: []byte("a"), Delete: true}), "append_only"},
		{"ttl", ruled(ttl), command(OpPut, put("c", "x")), "ttl_required"},
		{"ttl kept", ruled(ttl), command(OpPut, &pb.PutRequest{Key: []byte("b"), Value: []byte("3"), IgnoreLease: true}), ""},
		{"ttl lost", ruled(ttl), command(OpPut, put("b", "3")), "ttl_required"},
		{"ttl in a txn", ruled(ttl), command(OpTxn, txnOf(putOp(on7(put("c", "x"))), putOp(put("d", "x")))), "ttl_required"},
		{"ttl prepared", ruled(ttl), prepareCommand(20, 1, 1, commit.Write{Key: []byte("c"), Lease: 7}, commit.Write{Key: []byte("d")}), "ttl_required"},
		{"key too long", ruled(short), command(OpPut, put("ccc", "x")), "key_bytes_max"},
		{"value too long", ruled(short), command(OpTxn, txnOf(putOp(put("a", "123")))), "value_bytes_max"},
		{"value prepared", ruled(short), prepareCommand(20, 1, 1, commit.Write{Key: []byte("a"), Value: []byte("123")}), "value_bytes_max"},
		{"expression", expressed(`deleted || string(new) > string(old == null ? b'' : old)`), command(OpPut, put("a", "0")), "mine"},
		{"expression on a lease", expressed(`deleted || lease == 7`), command(OpPut, on7(put("c", "x"))), ""},
		{"expression on every deleted key", expressed(`!(deleted && key == 'b' && string(old) == '2')`), command(OpDeleteRange, all), "mine"},
		{"expression on one deleted key", expressed(`!(deleted && key == 'b' && string(old) == '2')`), command(OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("a")}), ""},
		{"expression on a txn's deletions", expressed(`!deleted || key != 'b'`), command(OpTxn, txnOf(deleteOp("a", "z"))), "mine"},
		{"expression on own writes", expressed(`revision != -1`), command(OpTxn, txnOf(putOp(put("c", "x")), putOp(put("c", "y")))), "mine"},
		{"expression prepared", expressed(`key != 'b'`), prepareCommand(20, 1, 1, commit.Write{Key: []byte("a")}, commit.Write{Key: []byte("b")}), "mine"},
		{"writer unknown", ruled(rules.Rules{Writers: []string{"root"}}), command(OpPut, put("c", "x")), "writers"},
		{"writer unknown deletes nothing", ruled(rules.Rules{Writers: []string{"root"}}), command(OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("x")}), "writers"},
		{"writer unknown reads", ruled(rules.Rules{Writers: []string{"root"}}), command(OpTxn, &pb.TxnRequest{Compare: fails, Success: []*pb.RequestOp{putOp(put("a", "x"))}}), ""},
		{"writer", ruled(rules.Rules{Writers: []string{"root"}}), given(Origin{User: "root"}, command(OpPut, put("c", "x"))), ""},
		{"writer by peer, stamped", ruled(rules.Rules{Writers: []string{"p"}}), append(AppendStamp(nil, 20), given(Origin{Peer: "p"}, command(OpTxn, txnOf(putOp(put("c", "x")))))...), ""},
		{"writer other", ruled(rules.Rules{Writers: []string{"root"}}), given(Origin{User: "ruth", Peer: "q"}, command(OpTxn, txnOf(putOp(put("c", "x"))))), "writers"},
		{"writer prepared", ruled(rules.Rules{Writers: []string{"root"}}), prepareCommand(20, 1, 1, commit.Write{Key: []byte("c")}), "writers"},
		{"expression on the writer", expressed(`user == 'root' && peer == ''`), given(Origin{User: "root"}, command(OpDeleteRange, all)), ""},
		{"not signed", ruled(rules.Rules{Signed: true}), given(Origin{User: "root", Peer: "p"}, command(OpPut, put("c", "x"))), "signed"},
		{"signed by noise", ruled(rules.Rules{Signed: true}), given(Origin{Proof: []byte("x")}, command(OpPut, put("c", "x"))), "signed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDriver(t)
			d.grant(7, 60)
			d.put("a", "1", 0)
			d.put("b", "2", 7)
			d.govern(c.gov)
			before := d.hash()
			wantRefused(t, c.name+", judged ahead", Outcome{Err: d.space.Judge([][]byte{c.cmd})[0]}, c.rule)
			wantRefused(t, c.name, d.raw(c.cmd), c.rule)
			if c.rule != "" && d.hash() != before {
				t.Error("what was refused has changed something")
			}
			// Whatever the rules: the system's own deletions are not held up.
			if o := d.raw(expireCommand(d.term, 7, 1)); o.Err != nil && !errors.Is(o.Err, ErrLocked) {
				t.Errorf("expiry: %v", o.Err)
			}
		})
	}
}

func (d *driver) hash() uint32 {
	d.t.Helper()
	h, err := d.space.HashKV(0)
	if err != nil {
		d.t.Fatal(err)
	}
	return h.Hash
}

func expireCommand(term uint64, id int64, epoch uint64) []byte {
	return AppendCommand(nil, OpLeaseExpire, codec.AppendLeaseExpiry(nil, codec.LeaseExpiry{ID: id, Term: term, Epoch: epoch}))
}

// Rules that were admitted and cannot be compiled here shut the scope; they do not
// open it.
func TestRulesThatDoNotCompileShutTheScope(t *testing.T) {
	d := newDriver(t)
	g := expressed(`nonsense`)
	if err := d.space.Govern(&g); err == nil {
		t.Fatal("nonsense is compiled")
	}
	wantRefused(t, "put", d.do(OpPut, putOf("a")), "policy")
	wantRefused(t, "delete", d.do(OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("a")}), "policy")
	if err := d.space.Govern(nil); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, "put without a policy", d.do(OpPut, putOf("a")), "")
}

func TestMalformedOrigins(t *testing.T) {
	d := newDriver(t)
	for _, cmd := range [][]byte{
		{byte(OpBy)},
		{byte(OpBy), 0, 0, 0},
		{byte(OpBy), 0, 0, 0, byte(OpCompact)},
		given(Origin{}, given(Origin{}, command(OpPut, putOf("a")))),
		given(Origin{User: strings.Repeat("u", originPartMax+1)}, command(OpPut, putOf("a"))),
	} {
		wantErr(t, d.raw(cmd), codec.ErrMalformed)
	}
	if o := d.raw(given(Origin{User: "u", Peer: "p"}, command(OpPut, putOf("a")))); o.Err != nil {
		t.Error(o.Err)
	}
}

// A signature serves once, in one mesh, one scope, for one request, and names the peer.
func TestSignedWrites(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, 32))
	peer := signed.Key(key.Public().(ed25519.PublicKey)).Peer()
	d := newDriver(t).govern(ruled(rules.Rules{Signed: true, Writers: []string{peer}}))
	by := func(counter uint64, change func(*signed.Message)) []byte {
		cmd := command(OpPut, putOf("a"))
		m := signed.Message{Mesh: testIDs.ClusterID, Scope: "/s", Method: byte(OpPut), Request: cmd[1:]}
		change(&m)
		return given(Origin{Peer: "whoever carried it", Proof: signed.Sign(key, counter, &m)}, cmd)
	}
	same := func(*signed.Message) {}
	for _, c := range []struct {
		what string
		cmd  []byte
		rule string
	}{
		{"first", by(100, same), ""},
		{"again", by(100, same), "signed"},
		{"later", by(102, same), ""},
		{"overtaken", by(101, same), ""},
		{"overtaken again", by(101, same), "signed"},
		{"another mesh", by(103, func(m *signed.Message) { m.Mesh++ }), "signed"},
		{"another scope", by(103, func(m *signed.Message) { m.Scope = "/t" }), "signed"},
		{"another request", by(103, func(m *signed.Message) { m.Request = append(slices.Clone(m.Request), 0) }), "signed"},
		{"another method", by(103, func(m *signed.Message) { m.Method = byte(OpTxn) }), "signed"},
		{"far ahead", by(5000, same), ""},
		{"too old", by(103, same), "signed"},
		{"over segments", given(Origin{Proof: make([]byte, signed.ProofBytes)}, prepareCommand(20, 1, 1, commit.Write{Key: []byte("a")})[StampBytes:]), "signed"},
	} {
		if c.what == "over segments" {
			c.cmd = append(AppendStamp(nil, 20), c.cmd...)
		}
		if c.rule == "" {
			wantRefused(t, c.what+", judged ahead", Outcome{Err: d.space.Judge([][]byte{c.cmd})[0]}, "") // and not used up
		}
		wantRefused(t, c.what, d.raw(c.cmd), c.rule)
	}
	// It is remembered across restarts, and in the child of a cut.
	d.commit()
	d.crash()
	d.govern(ruled(rules.Rules{Signed: true, Writers: []string{peer}}))
	wantRefused(t, "after a restart", d.raw(by(102, same)), "signed")
	d.index++
	b := d.seg.Begin(d.index, 1)
	child := d.space.Cut(b, 2, []byte("Z"), mvcc.Meta{Applied: 5, Term: 1})
	b.End()
	right, err := NewSpace(child, testIDs, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if err := right.Govern(d.space.Governed()); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, "in the child", right.Apply(6, 1, [][]byte{by(5000, same)}, true)[0], "signed")
	wantRefused(t, "new in the child", right.Apply(7, 1, [][]byte{by(5001, same)}, true)[0], "")
	applied, _ := d.seg.Applied()
	b = d.seg.Begin(applied+1, 1)
	d.space.Absorb(b, right, 0)
	b.End()
	d.index = applied + 1
	wantRefused(t, "behind an absorb", d.raw(by(5001, same)), "signed")
}

// A full scope refuses what makes it larger, and nothing else; it takes writes again
// when it is smaller.
func TestQuotaOfAScope(t *testing.T) {
	put := func(k, v string) []byte { return command(OpPut, &pb.PutRequest{Key: []byte(k), Value: []byte(v)}) }
	d := newDriver(t)
	d.put("a", "12345", 0) // what was there before the quota counts
	d.govern(Governed{QuotaBytes: 20, QuotaKeys: 3})
	want := func(keys, bytes int64) {
		t.Helper()
		if u := d.space.Usage(); !u.Counted || u.Keys != keys || u.Bytes != bytes || u.KeysLimit != 3 || u.BytesLimit != 20 {
			t.Errorf("usage %+v, want %d keys, %d bytes", u, keys, bytes)
		}
	}
	want(1, 6)
	for _, c := range []struct {
		cmd         []byte
		err         error
		keys, bytes int64
	}{
		{put("b", "123456789"), nil, 2, 16},
		{put("c", "1234"), ErrScopeFull, 2, 16},
		{put("c", "123"), nil, 3, 20},
		{put("b", "1234567890"), ErrScopeFull, 3, 20},
		{put("b", "9876543210"), ErrScopeFull, 3, 20},
		{put("b", "987654321"), nil, 3, 20}, // no larger
		{put("b", "1"), nil, 3, 12},
		{put("d", ""), ErrScopeFull, 3, 12}, // keys
		{command(OpTxn, txnOf(deleteOp("a", ""), putOp(&pb.PutRequest{Key: []byte("d"), Value: []byte("12345")}))), nil, 3, 12},
		{command(OpTxn, txnOf(putOp(&pb.PutRequest{Key: []byte("e")}), deleteOp("b", "d"))), nil, 2, 7},
		{command(OpTxn, txnOf(putOp(&pb.PutRequest{Key: []byte("f"), Value: make([]byte, 20)}))), ErrScopeFull, 2, 7},
		{command(OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}}), nil, 0, 0},
		{put("g", "ok"), nil, 1, 3},
		{command(OpCompact, &pb.CompactionRequest{Revision: 3}), nil, 1, 3},
	} {
		if o := d.raw(c.cmd); !errors.Is(o.Err, c.err) {
			t.Fatalf("%q: %v, want %v", c.cmd, o.Err, c.err)
		}
		want(c.keys, c.bytes)
	}
}

// What is prepared has its room; what it does not use is free again when it is decided.
func TestQuotaOfWhatIsPrepared(t *testing.T) {
	d := newDriver(t).govern(Governed{QuotaBytes: 10})
	raw := func(cmd []byte, want error) {
		t.Helper()
		if o := d.raw(cmd); !errors.Is(o.Err, want) {
			t.Fatalf("%v, want %v", o.Err, want)
		}
	}
	at := func(rev int64, k string, n int) []byte {
		return stampedCommand(rev, OpPut, &pb.PutRequest{Key: []byte(k), Value: make([]byte, n)})
	}
	raw(prepareCommand(10, 1, 1, commit.Write{Key: []byte("a"), Value: make([]byte, 7)}), nil)
	raw(at(11, "b", 2), ErrScopeFull)
	raw(at(12, "b", 1), nil)
	raw(prepareCommand(13, 2, 1, commit.Write{Key: []byte("c")}), ErrScopeFull)
	d.commit()
	d.crash()
	d.govern(Governed{QuotaBytes: 10})
	raw(at(14, "d", 0), ErrScopeFull)
	raw(commitCommand(1, 15), nil)
	raw(at(16, "d", 0), ErrScopeFull)
	raw(at(17, "a", 0), nil)
	raw(at(18, "d", 6), nil)
	raw(prepareCommand(19, 3, 1, commit.Write{Key: []byte("a"), Delete: true}), nil)
	raw(at(20, "e", 0), ErrScopeFull) // it may still be aborted
	raw(AppendCommand(nil, OpAbort, commit.EncodeID(commit.TxnID{3})), nil)
	raw(at(21, "e", 0), ErrScopeFull)
}

// A segment's share goes with what it holds, and comes back; the parts of a whole are
// the whole again.
func TestQuotaOfSeveralSegments(t *testing.T) {
	d := newDriver(t)
	for i := range 10 {
		d.put(fmt.Sprintf("k%d", i), "12345678", 0)
	}
	gov := Governed{QuotaBytes: 300, QuotaKeys: 30, Rules: rules.Rules{}}
	d.govern(gov)
	d.index++
	b := d.seg.Begin(d.index, 1)
	child := d.space.Cut(b, 2, []byte("k3"), mvcc.Meta{Applied: 5, Term: 1})
	b.End()
	right, err := NewSpace(child, testIDs, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if err := right.Govern(&gov); err != nil {
		t.Fatal(err)
	}
	l, r := d.space.Usage(), right.Usage()
	if l.Bytes != 30 || r.Bytes != 70 || l.KeysLimit+r.KeysLimit > 30 || l.BytesLimit+r.BytesLimit > 300 || l.BytesLimit+r.BytesLimit < 298 {
		t.Fatalf("left %+v, right %+v", l, r)
	}
	if l.BytesLimit < 129 || r.BytesLimit < 169 {
		t.Fatalf("left may hold %d, right %d, want what they hold and half of the rest", l.BytesLimit, r.BytesLimit)
	}
	give := func(s *Space, index uint64, share Share) error {
		return s.Apply(index, 1, [][]byte{AppendShare([]byte{byte(OpShare)}, share)}, true)[0].Err
	}
	if err := give(right, 6, Share{Version: r.Share.Version + 1}); !errors.Is(err, ErrShareStale) {
		t.Errorf("a stale share: %v", err)
	}
	if err := give(right, 7, Share{Version: r.Share.Version, Keys: 1 << 28, Bytes: 1 << 28}); err != nil {
		t.Fatal(err)
	}
	if r = right.Usage(); r.BytesLimit != 75 || r.Share.Version != l.Share.Version+1 {
		t.Errorf("a quarter is %+v", r)
	}
	applied, _ := d.seg.Applied()
	b = d.seg.Begin(applied+1, 1)
	d.space.Absorb(b, right, 0)
	b.End()
	if u := d.space.Usage(); u.Keys != 10 || u.Bytes != 100 || u.BytesLimit != 300 || u.KeysLimit != 30 {
		t.Errorf("after the absorb %+v", u)
	}
	d.commit()
	d.crash()
	d.govern(gov)
	if u := d.space.Usage(); u.Bytes != 100 || u.BytesLimit != 300 {
		t.Errorf("after a restart %+v", u)
	}
}

// A Compact from outside leaves the history of a scope that keeps its own.
func TestOwnCompaction(t *testing.T) {
	d := newDriver(t)
	for range 5 {
		d.put("a", "v", 0)
	}
	for _, c := range []struct {
		scope string
		op    Op
		want  int64
	}{{"/s", OpCompact, -1}, {"/s", OpCompactOwn, 3}, {"", OpCompact, 4}} {
		d.govern(Governed{OwnCompaction: true, Rules: rules.Rules{Scope: c.scope}})
		d.must(c.op, &pb.CompactionRequest{Revision: max(3, c.want)})
		if _, compacted := d.space.Revision(); compacted != c.want {
			t.Errorf("%v in %q: compacted at %d, want %d", c.op, c.scope, compacted, c.want)
		}
	}
}

// dumb is a scope's rules and quota once more, for one write at a time.
type dumb struct {
	live        map[string]string
	keys, bytes int
}

func (m *dumb) play(events []mvcc.Event) (broken bool) {
	for _, e := range events {
		key := string(e.KV.Key)
		old, exists := m.live[key]
		if e.Delete {
			broken = broken || key >= "c"
			delete(m.live, key)
			continue
		}
		value := string(e.KV.Value())
		broken = broken || exists && key < "b" && !strings.HasPrefix(value, old) || len(value) > 2 && key >= "b"
		m.live[key] = value
	}
	return broken
}

func (m *dumb) count() (keys, bytes int) {
	for k, v := range m.live {
		keys, bytes = keys+1, bytes+len(k)+len(v)
	}
	return keys, bytes
}

// recorder keeps what an entry published.
type recorder struct{ events []mvcc.Event }

func (r *recorder) Publish(events []mvcc.Event, _ int64) { r.events = append(r.events, events...) }

// Against a dumb twin: what random requests would write is tried without rules, judged
// write by write, and must be refused as a whole exactly if one of them is. The figures of
// the quota are those of a new count, and replay on another replica gives the same state.
func TestGovernedAgainstATwin(t *testing.T) {
	const expr = `key < 'b' && deleted == false && old != null ? string(new).startsWith(string(old)) : (key < 'c' || !deleted) && (key < 'b' || size <= 2)`
	for seed := range uint64(20) {
		gov := expressed(expr)
		gov.QuotaKeys, gov.QuotaBytes = 7, 28
		d, free, again := newDriver(t).govern(gov), newDriver(t), newDriver(t).govern(gov)
		g := &traffic{rng: rand.New(rand.NewPCG(seed, 7)), m: newModel(testIDs)}
		m := &dumb{live: map[string]string{}}
		for id := int64(1); id < 4; id++ {
			for _, one := range []*driver{d, free, again} {
				one.grant(id, 60)
			}
		}
		free.commit()
		refused := 0
		for i := range 300 {
			op, req := g.write()
			if op != OpPut && op != OpDeleteRange && op != OpTxn {
				continue
			}
			cmd := command(op, req)
			rec := &recorder{}
			free.seg.SetPublisher(rec)
			tried := free.raw(cmd)
			keys, size := m.count()
			next := &dumb{live: map[string]string{}}
			for k, v := range m.live {
				next.live[k] = v
			}
			broken := next.play(rec.events)
			k, b := next.count()
			full := k > 7 && k > keys || b > 28 && b > size
			got := d.raw(cmd)
			if broken || full {
				var r *rules.Refusal
				if refused++; !errors.As(got.Err, &r) && !errors.Is(got.Err, ErrScopeFull) {
					t.Fatalf("seed %d, %d: %v %v: %v, want a refusal (rule %v, quota %v)", seed, i, op, req, got.Err, broken, full)
				}
				free.index = free.crash()
			} else if (got.Err == nil) != (tried.Err == nil) || !bytes.Equal(got.Response, tried.Response) {
				t.Fatalf("seed %d, %d: %v %v: %v, without rules %v", seed, i, op, req, got.Err, tried.Err)
			} else {
				m = next
				free.commit()
			}
			again.index++
			again.space.Apply(again.index, 1, [][]byte{cmd}, false)
			keys, size = m.count()
			if u := d.space.Usage(); int(u.Keys) != keys || int(u.Bytes) != size {
				t.Fatalf("seed %d, %d: %v %v: usage %+v, want %d keys, %d bytes", seed, i, op, req, u, keys, size)
			}
			if g.one(30) { // one replica restarts
				again.commit()
				again.index = again.crash()
				again.govern(gov)
			}
		}
		if a, b := d.hash(), again.hash(); a != b || d.space.Usage().Bytes != again.space.Usage().Bytes {
			t.Fatalf("seed %d: replicas differ: %d and %d, %+v and %+v", seed, a, b, d.space.Usage(), again.space.Usage())
		}
		if refused < 10 {
			t.Errorf("seed %d: only %d refusals", seed, refused)
		}
	}
}

func BenchmarkPutGoverned(b *testing.B) {
	value := make([]byte, 256)
	for _, c := range []struct {
		name string
		gov  *Governed
	}{
		{"free", nil},
		{"no rules", &Governed{}},
		{"value limit", &Governed{Rules: rules.Rules{ValueBytesMax: 1000}}},
		{"expression", &Governed{Rules: rules.Rules{Exprs: []rules.Expr{{Name: "m", Text: `deleted || size <= 1000`}}}}},
		{"quota", &Governed{QuotaBytes: 1 << 40}},
	} {
		b.Run(c.name, func(b *testing.B) {
			d := filled(b, 10_000)
			if err := d.space.Govern(c.gov); err != nil {
				b.Fatal(err)
			}
			benchApply(b, d, func(i int) []byte {
				return command(OpPut, &pb.PutRequest{Key: benchKey(i % 10_000), Value: value})
			})
		})
	}
}

func FuzzGovernedCommands(f *testing.F) {
	f.Add(given(Origin{User: "u", Peer: "p", Proof: []byte("x")}, command(OpPut, putOf("a"))))
	f.Add(AppendShare([]byte{byte(OpShare)}, Share{Keys: 1, Bytes: ShareWhole}))
	f.Add((&Usage{Counted: true, Keys: 3, BytesLimit: -1, Refused: 9, Share: Share{Version: 2}}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if u, err := ParseUsage(b); err == nil {
			if again, err := ParseUsage(u.Append(nil)); err != nil || again != u {
				t.Fatalf("%+v becomes %+v, %v", u, again, err)
			}
		}
		if o, rest, ok := ParseOrigin(b); ok {
			again, behind, ok := ParseOrigin(append(o.Append(nil), rest...))
			if !ok || again.User != o.User || again.Peer != o.Peer || !bytes.Equal(again.Proof, o.Proof) || !bytes.Equal(behind, rest) {
				t.Fatalf("%+v becomes %+v", o, again)
			}
		}
		if len(b) > 0 && (Op(b[0]) == OpBy || Op(b[0]) == OpShare) {
			d := newDriver(t).govern(Governed{QuotaKeys: 3, QuotaBytes: 9})
			d.raw(b)
			if l := d.space.Usage(); l.KeysLimit < 0 || l.KeysLimit > 3 || l.BytesLimit < 0 || l.BytesLimit > 9 {
				t.Fatalf("%x: %+v", b, l)
			}
		}
	})
}
