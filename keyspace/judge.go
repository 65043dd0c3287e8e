package keyspace

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/keyspace/rules"
	"github.com/anchormesh/anchormesh/keyspace/signed"
)

// signerTable is the side table of signers; see package signed.
const signerTable = "signer"

// Governed is what a scope's policy says to its segments.
type Governed struct {
	Rules rules.Rules
	// QuotaBytes and QuotaKeys bound what is alive in the scope: keys and values. Zero
	// does not bound.
	QuotaBytes, QuotaKeys int64
	// OwnCompaction: only OpCompactOwn compacts. The root scope has nothing around it and
	// ignores that.
	OwnCompaction bool
}

// govern is what the policy makes of the segment. It is changed between entries.
type govern struct {
	policy  *Governed    // nil: there is none
	judge   *rules.Judge // nil: everything is admitted
	counts  bool         // a quota is in force: used, reserved and share are kept
	used    amount       // by what is alive
	share   share
	signers signed.Signers
	// reserved is what prepared transactions will add at most.
	reserved map[commit.TxnID]amount

	asks atomic.Bool // rules want to know who writes; read without the lock

	// Since the segment was opened here: commands that wrote something, that the rules
	// refused, and that the quota had no room for.
	writes, refused, full atomic.Int64
}

// governs reports whether writes are judged or counted.
func (g *govern) governs() bool { return g.judge != nil || g.counts }

func (g *govern) ownHistory() bool {
	return g.policy != nil && g.policy.OwnCompaction && g.policy.Rules.Scope != ""
}

func (g *govern) load(seg *mvcc.Segment) (err error) {
	seg.ForEachAux(signerTable, func(k, v []byte) {
		if bad := g.signers.Load(k, v); bad != nil && err == nil {
			err = fmt.Errorf("%w: restore this replica from another", bad)
		}
	})
	seg.ForEachAux(shareTable, func(_, v []byte) {
		if bad := g.share.decode(v); bad != nil && err == nil {
			err = bad
		}
	})
	return err
}

// Govern puts what a policy says into force, from the next entry on; nil is no policy. Every replica
// calls it behind the same entry. Rules that cannot be compiled, which whoever admitted
// the policy has tried, refuse every write, and are the error. What is alive is counted
// when a quota comes into force: some hundred nanoseconds a key.
func (s *Space) Govern(p *Governed) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &s.govern
	if reflect.DeepEqual(g.policy, p) {
		return nil
	}
	if p == nil {
		g.policy, g.judge, g.counts, g.reserved = nil, nil, false, nil
		g.asks.Store(false)
		return nil
	}
	copied := *p
	g.policy = &copied
	var err error
	if g.judge = nil; !p.Rules.Empty() {
		if g.judge, err = rules.Compile(p.Rules); err != nil {
			g.judge = rules.Closed(p.Rules, err)
		}
	}
	g.asks.Store(g.judge != nil && g.judge.Asks())
	counted := g.counts
	if g.counts = p.QuotaBytes > 0 || p.QuotaKeys > 0; g.counts && !counted {
		s.count()
	}
	return err
}

// Governed returns the policy in force, or nil. It must not be modified.
func (s *Space) Governed() *Governed {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.govern.policy
}

// WantsOrigin reports whether commands have to say who gave them. It costs nothing.
func (s *Space) WantsOrigin() bool {
	return s.govern.asks.Load()
}

// note counts a command that was refused.
func (g *govern) note(err error) {
	var r *rules.Refusal
	switch {
	case errors.Is(err, ErrScopeFull):
		g.full.Add(1)
	case errors.As(err, &r):
		g.refused.Add(1)
	}
}

func (a *applier) saveSigners(rows []signed.Row) {
	for _, r := range rows {
		putSigner(a.b, r)
	}
}

func putSigner(b *mvcc.Batch, r signed.Row) {
	if r.Value == nil {
		b.DeleteAux(signerTable, r.Key)
	} else {
		b.PutAux(signerTable, r.Key, r.Value)
	}
}

// trial looks ahead at what a command would write, key by key in its order: each is
// judged by the scope's rules, behind those before it, and counted for its quota.
// Nothing is written before all have passed.
type trial struct {
	a       *applier
	judge   *rules.Judge
	counts  bool // whether it fits counts
	on      reader
	by      rules.Writer
	asked   bool
	made    map[string]version // by earlier operations of the request; nil outside of transactions
	growth  amount
	several bool // more operations may come
}

// version is a key as an earlier operation of the request left it.
type version struct {
	rules.Version
	lease int64
}

func (a *applier) trial(on reader, several bool) trial {
	return trial{a: a, judge: a.s.govern.judge, counts: a.s.govern.counts, on: on, several: several}
}

// sameRequest is the revision of what the request itself has written.
const sameRequest = -1

func (a *applier) judgePut(t *mvcc.Txn, r *codec.PutRequest) error {
	try := a.trial(t, false)
	if err := try.put(r); err != nil {
		return err
	}
	return try.fits()
}

func (a *applier) judgeDelete(t *mvcc.Txn, r *codec.DeleteRangeRequest) error {
	try := a.trial(t, false)
	return try.remove(r) // it frees
}

func (a *applier) judgeTxn(t *mvcc.Txn, r *codec.TxnRequest, path []bool) error {
	try := a.trial(t, true)
	if err := try.ops(r, &walk{path: path}); err != nil {
		return err
	}
	return try.fits()
}

// judgePrepare judges this segment's share of a transaction over several.
func (a *applier) judgePrepare(c *commit.Prepare) error {
	t := a.open()
	defer t.End()
	try := a.trial(t, true)
	if err := try.writes(c); err != nil {
		return err
	}
	return try.fits()
}

func (t *trial) writes(c *commit.Prepare) error {
	for i := range c.Writes {
		w := &c.Writes[i]
		n := rules.Write{Key: w.Key, New: w.Value, Lease: w.Lease, Deleted: w.Delete}
		if err := t.write(&n, t.before(w.Key)); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) ops(r *codec.TxnRequest, w *walk) error {
	_, ops := w.branch(r)
	for i := range ops {
		var err error
		switch op := &ops[i]; op.Kind {
		case codec.KindPut:
			err = t.put(&op.Put)
		case codec.KindDeleteRange:
			err = t.remove(&op.DeleteRange)
		case codec.KindTxn:
			err = t.ops(op.Txn, w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// admit asks once who writes.
func (t *trial) admit(key []byte) (err error) {
	j := t.judge
	if t.asked || j == nil || !j.Asks() {
		return nil
	}
	if t.by, err = t.a.writer(j, key); err == nil {
		err = j.Admit(&t.by, key)
	}
	t.asked = true
	return err
}

func (t *trial) put(r *codec.PutRequest) error {
	w := rules.Write{Key: r.Key, New: r.Value, Lease: r.Lease}
	old := t.before(r.Key)
	if r.IgnoreValue || r.IgnoreLease {
		kept := old
		if kept.Revision == 0 { // it was deleted by this request: see putOp
			if kv, ok := t.on.Get(r.Key); ok {
				kept = versionOf(&kv)
			}
		}
		if r.IgnoreValue {
			w.New = kept.Value
		}
		if r.IgnoreLease {
			w.Lease = kept.lease
		}
	}
	return t.write(&w, old)
}

// remove tries the deletion of every key in the range.
func (t *trial) remove(r *codec.DeleteRangeRequest) error {
	if err := t.admit(r.Key); err != nil {
		return err
	}
	if !t.several && (t.judge == nil || !t.judge.Deletes()) { // it frees, whatever it deletes
		return nil
	}
	res, err := t.on.Range(r.Key, r.RangeEnd, 0, 0, false)
	if err != nil {
		panic("keyspace: reading the newest revision: " + err.Error())
	}
	for i := range res.KVs {
		kv := &res.KVs[i]
		old, made := t.made[string(kv.Key)]
		if !made {
			old = versionOf(kv)
		}
		if err := t.delete(kv.Key, old); err != nil {
			return err
		}
	}
	for _, key := range t.madeIn(r) {
		if err := t.delete([]byte(key), t.made[key]); err != nil {
			return err
		}
	}
	return nil
}

// madeIn lists what the request has written in a range before, in order.
func (t *trial) madeIn(r *codec.DeleteRangeRequest) (keys []string) {
	for key := range t.made {
		if len(r.RangeEnd) == 0 && key == string(r.Key) || len(r.RangeEnd) > 0 && key >= string(r.Key) &&
			(string(r.RangeEnd) == "\x00" || key < string(r.RangeEnd)) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func (t *trial) delete(key []byte, old version) error {
	if old.Revision == 0 {
		return nil
	}
	return t.write(&rules.Write{Key: key, Deleted: true}, old)
}

// write tries one key.
func (t *trial) write(w *rules.Write, old version) error {
	if err := t.admit(w.Key); err != nil {
		return err
	}
	w.Old, w.By = old.Version, t.by
	if t.judge != nil {
		if err := t.judge.Judge(w); err != nil {
			return err
		}
	}
	if old.Revision != 0 {
		t.growth.add(-1, -size(w.Key, old.Value))
	}
	if !w.Deleted {
		t.growth.add(1, size(w.Key, w.New))
	}
	if t.several {
		t.keep(w)
	}
	return nil
}

func (t *trial) keep(w *rules.Write) {
	if t.made == nil {
		t.made = make(map[string]version)
	}
	v := version{lease: w.Lease}
	if !w.Deleted {
		v.Value, v.Revision = bytes.Clone(w.New), sameRequest
	}
	t.made[string(w.Key)] = v
}

// before is a key as the next operation finds it, if anybody wants to know.
func (t *trial) before(key []byte) version {
	if v, ok := t.made[string(key)]; ok {
		return v
	}
	if !t.counts && !t.judge.Reads() {
		return version{}
	}
	kv, ok := t.on.Get(key)
	if !ok {
		return version{}
	}
	return versionOf(&kv)
}

func versionOf(kv *mvcc.KV) version {
	return version{Version: rules.Version{Value: kv.Value(), Revision: kv.Mod}, lease: kv.Lease}
}

// fits asks whether the scope's quota has room for what was tried.
func (t *trial) fits() error {
	if t.counts && !t.a.s.govern.hasRoom(t.growth) {
		return ErrScopeFull
	}
	return nil
}

// given applies a command of which is known who gave it.
func (a *applier) given(cmd []byte) Outcome {
	by, inner, ok := cutOrigin(cmd[1:])
	if !ok {
		return Outcome{Err: codec.ErrMalformed}
	}
	a.by, a.inner = &by, inner
	out := a.apply(inner)
	a.by, a.inner = nil, nil
	return out
}

// writer is who writes, as far as rules may know. Where the scope wants signatures, it is who
// signed; that is verified here, and a signature serves once.
func (a *applier) writer(j *rules.Judge, key []byte) (rules.Writer, error) {
	if a.by == nil {
		return rules.Writer{}, nil
	}
	w := rules.Writer{User: a.by.User, Peer: a.by.Peer}
	if j == nil || !j.Signed() || len(a.by.Proof) == 0 {
		return w, nil
	}
	if Op(a.inner[0]) == OpPrepare {
		return w, j.Denied("signed", key, "a signed write must keep to one segment, and this one spans several")
	}
	m := signed.Message{Mesh: a.s.ids.ClusterID, Scope: j.Rules().Scope, Method: a.inner[0], Request: a.inner[1:]}
	p, err := signed.Verify(a.by.Proof, &m)
	if err != nil {
		return w, j.Denied("signed", key, err.Error())
	}
	if a.dry {
		return rules.Writer{User: w.User, Peer: p.Peer(), Signed: true}, nil
	}
	row, err := a.s.govern.signers.Use(p.Key, p.Counter)
	if err != nil {
		return w, j.Denied("signed", key, err.Error())
	}
	a.saveSigners(row)
	return rules.Writer{User: w.User, Peer: p.Peer(), Signed: true}, nil
}

// Judge says of each command why the scope's rules refuse it in the newest applied
// state, each for itself; nil: they do not. It is for those who approve commands before
// they are proposed, and it is no apply: a signature is verified and not used up, and
// whether the scope has room, or the command fits the segment, shows there.
func (s *Space) Judge(cmds [][]byte) []error {
	out := make([]error, len(cmds))
	s.mu.RLock()
	j := s.govern.judge
	s.mu.RUnlock()
	if j == nil {
		return out
	}
	v := s.seg.ReadApplied()
	defer v.Close()
	for i, cmd := range cmds {
		out[i] = s.judgeAhead(j, snapshot{v}, cmd)
	}
	return out
}

func (s *Space) judgeAhead(j *rules.Judge, on reader, cmd []byte) error {
	a := applier{s: s, dry: true}
	if _, inner, ok := CutStamp(cmd); ok {
		cmd = inner
	}
	if len(cmd) > 0 && Op(cmd[0]) == OpBy {
		by, inner, ok := cutOrigin(cmd[1:])
		if !ok {
			return codec.ErrMalformed
		}
		a.by, a.inner, cmd = &by, inner, inner
	}
	if len(cmd) == 0 {
		return codec.ErrMalformed
	}
	t := trial{a: &a, judge: j, on: on}
	switch raw := cmd[1:]; Op(cmd[0]) {
	case OpPut:
		var r codec.PutRequest
		if err := codec.ParsePut(raw, &r); err != nil {
			return err
		}
		return t.put(&r)
	case OpDeleteRange:
		var r codec.DeleteRangeRequest
		if err := codec.ParseDeleteRange(raw, &r); err != nil {
			return err
		}
		return t.remove(&r)
	case OpTxn:
		var r codec.TxnRequest
		if err := codec.ParseTxn(raw, &r); err != nil {
			return err
		}
		t.several = true
		return t.ops(&r, &walk{path: decide(nil, on, &r)})
	case OpPrepare:
		c, err := commit.DecodePrepare(raw)
		if err != nil {
			return err
		}
		t.several = true
		return t.writes(c)
	}
	return nil
}
