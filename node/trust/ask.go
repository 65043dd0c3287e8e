package trust

import (
	"context"
	"crypto/sha256"
	"encoding/binary"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// PieceKeys is how many keys are compared at a time.
const PieceKeys = 512

// asked is a question on its way, with what its answer is judged by.
type asked struct {
	question
	bar  uint64 // index that must be applied there
	hash [32]byte
}

// ask asks the other voters of every segment that is awake, once. A node that has not
// answered yet is asked again the next time.
func (k *Keeper) ask(ctx context.Context) {
	byNode := make(map[anchormesh.NodeID][]asked)
	for _, id := range k.toLookAt() {
		g, ok := k.awake(id)
		if !ok {
			continue
		}
		q := k.question(&g)
		for _, node := range g.voters {
			if node != k.cfg.Self && len(byNode[node]) < SegmentsMax {
				byNode[node] = append(byNode[node], q)
			}
		}
	}
	k.forget()
	for node, list := range byNode {
		if !k.call(node, true) {
			continue
		}
		go func() {
			k.askNode(ctx, node, list)
			k.call(node, false)
		}()
	}
}

// call notes that a node is being asked, or is not any more; false: it is already.
func (k *Keeper) call(node anchormesh.NodeID, begins bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if begins && k.calls[node] {
		return false
	}
	k.calls[node] = begins
	return true
}

// forget drops what was seen of segments that are not here any more, or that sleep for so
// long that it is worth nothing.
func (k *Keeper) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, s := range k.seen {
		st, runs := k.engine.Status(id)
		if s.slept++; !st.Asleep {
			s.slept = 0
		}
		if !runs || s.slept > 2*k.cfg.Window {
			delete(k.seen, id)
		}
	}
}

// question makes the segment's next question.
func (k *Keeper) question(g *group) asked {
	applied, _ := g.replica.Machine.Segment().Applied()
	writes := g.writes()
	k.mu.Lock()
	s := k.seen[g.segment]
	if s == nil || s.generation != g.state.Descriptor.Generation {
		s = &seen{generation: g.state.Descriptor.Generation, of: make(map[anchormesh.NodeID]*record), reported: writes}
		k.seen[g.segment] = s
	}
	if !g.status.Leads() {
		s.reported = writes // whoever led meanwhile has judged by these
	}
	s.keep(g.voters)
	q := asked{question: question{segment: g.segment, generation: s.generation}, bar: s.tick(applied, k.cfg.LateAfter)}
	compare := k.cfg.PieceEvery > 0 && s.asked%k.cfg.PieceEvery == 0
	from := s.cursor
	k.mu.Unlock()
	if !compare {
		return q
	}
	// What a voter shows at this revision it has shown a while: it is applied elsewhere too.
	p, ok := pieceOf(g.replica.Machine.Segment(), 0, from)
	if ok {
		q.revision, q.from, q.hash = p.revision, from, p.hash
	}
	k.mu.Lock()
	s.cursor = p.next
	k.mu.Unlock()
	return q
}

// piece is some keys as they were at a revision.
type piece struct {
	revision anchormesh.Revision
	hash     [32]byte
	next     []byte // the piece behind begins here; nil: at the beginning
}

// pieceOf hashes the keys from one on, at a revision, or (0) at the newest that is shown.
// It is false if that cannot be read here.
func pieceOf(g *mvcc.Segment, revision anchormesh.Revision, from []byte) (p piece, ok bool) {
	v := g.Read()
	defer v.Close()
	rng := v.KeyRange()
	if p.revision = revision; revision == 0 {
		p.revision = v.Rev()
	}
	if p.revision > v.Rev() || p.revision < v.Compacted() || p.revision == 0 {
		return p, false
	}
	start, end := from, rng.End
	if len(start) == 0 || !rng.Contains(start) {
		start = rng.Start
	}
	if len(start) == 0 {
		start = []byte{0}
	}
	if len(end) == 0 {
		end = []byte{0} // etcd's: to the end
	}
	res, err := v.Range(start, end, p.revision, PieceKeys, false)
	if err != nil {
		return p, false
	}
	h := sha256.New()
	for i := range res.KVs {
		kv := &res.KVs[i]
		var numbers []byte
		for _, n := range []uint64{uint64(len(kv.Key)), uint64(kv.Create), uint64(kv.Mod), uint64(kv.Version), uint64(kv.Lease), uint64(len(kv.Value()))} {
			numbers = binary.AppendUvarint(numbers, n)
		}
		h.Write(numbers)
		h.Write(kv.Key)
		h.Write(kv.Value())
	}
	p.hash = [32]byte(h.Sum(nil))
	if n := len(res.KVs); n == PieceKeys {
		p.next = append(append([]byte{}, res.KVs[n-1].Key...), 0)
	}
	return p, true
}

// askNode asks one node about all its segments, and notes what came of it.
func (k *Keeper) askNode(ctx context.Context, node anchormesh.NodeID, list []asked) {
	questions := make([]question, len(list))
	for i := range list {
		questions[i] = list[i].question
	}
	bounded, cancel := context.WithTimeout(ctx, k.cfg.Every)
	defer cancel()
	answer, err := k.caller.Call(bounded, node, Method, appendQuestions(nil, questions))
	if ctx.Err() != nil {
		return
	}
	var replies []reply
	if err == nil {
		if replies, err = parseReplies(answer); err == nil && len(replies) != len(list) {
			err = errMalformed
		}
		if err != nil {
			k.cfg.Logger.Warn("an anchor's answer cannot be read", "node", node.Short(), "err", err)
		}
	}
	for i := range list {
		k.judge(node, &list[i], replies, i, err)
	}
}

// judge notes one answer.
func (k *Keeper) judge(node anchormesh.NodeID, q *asked, replies []reply, i int, err error) {
	o := missed
	if err == nil {
		if !replies[i].here {
			return // it has not applied yet that it is a voter, or not any more
		}
		if o = answered; replies[i].applied < q.bar {
			o = late
		}
	}
	differs := err == nil && replies[i].hashed && q.revision != 0 && replies[i].hash != q.hash
	k.note(q.segment, node, func(r *record) {
		if differs {
			r.now.differs++
		}
		r.add(o, k.cfg.Window)
	})
	if differs {
		k.cfg.Logger.Error("an anchor's keys differ from those here", "segment", q.segment, "node", node.Short(),
			"revision", q.revision, "from", q.from)
		if f := k.cfg.Listener.Differs; f != nil {
			f(q.segment, node)
		}
	}
}

// answer answers another node's questions.
func (k *Keeper) answer(list []question) []reply {
	out := make([]reply, len(list))
	for i := range list {
		q := &list[i]
		r, here := k.replicas.Get(q.segment)
		if !here || r.Machine.Descriptor().Generation != q.generation {
			continue
		}
		out[i].here = true
		out[i].applied, _ = r.Machine.Segment().Applied()
		if q.revision == 0 {
			continue
		}
		if p, ok := pieceOf(r.Machine.Segment(), q.revision, q.from); ok {
			out[i].hashed, out[i].hash = true, p.hash
		}
	}
	return out
}
