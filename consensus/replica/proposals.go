package replica

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
)

// proposals is the way of requests into the log: queued, then in flight on an
// entry, then told.
type proposals struct {
	queue       []Proposal
	queuedBytes int
	sequence    uint64
	inflight    []flight // in the order of their sequence
	buf         []byte   // of the envelope being built
}

// bufferMax bounds the buffer that is kept between batches.
const bufferMax = 256 << 10

// flight is one proposed entry and who waits for it.
type flight struct {
	term, sequence uint64
	conf           bool
	waiters        []Waiter
	held           []func()
}

// Propose queues a request for the next entry. Done is called exactly once,
// possibly before Propose returns.
func (r *Replica) Propose(p Proposal) {
	switch {
	case !r.Leads(), p.Term != 0 && p.Term != r.last.Term:
		p.Done(Result{Err: ErrNotLeader})
	case r.proposals.queuedBytes+len(p.Payload) > r.cfg.MaxQueuedBytes:
		p.Done(Result{Err: ErrOverloaded})
	default:
		r.proposals.queue = append(r.proposals.queue, p)
		r.proposals.queuedBytes += len(p.Payload)
		r.out.touched = true
	}
}

// ProposeConfChange proposes a change of the anchor group. Only one may be
// under way.
func (r *Replica) ProposeConfChange(gen anchormesh.Generation, cc *raftpb.ConfChangeV2, context []byte, done Waiter) {
	if !r.Leads() {
		done(Result{Err: ErrNotLeader})
		return
	}
	for _, f := range r.proposals.inflight {
		if f.conf {
			done(Result{Err: ErrConfChangePending})
			return
		}
	}
	r.proposals.sequence++
	env := Envelope{Term: r.last.Term, Generation: gen, Sequence: r.proposals.sequence, Payloads: [][]byte{context}}
	cc.Context = env.append(nil)
	if err := r.node.ProposeConfChange(cc); err != nil {
		done(Result{Err: ErrDropped})
		return
	}
	r.proposals.inflight = append(r.proposals.inflight, flight{
		term: env.Term, sequence: env.Sequence, conf: true, waiters: []Waiter{done},
	})
	r.out.touched = true
}

// flush puts queued requests onto entries while the limit of entries in flight
// allows. Called after everything else was stepped, so that a commit index and
// new entries travel in one message.
func (r *Replica) flush() {
	p := &r.proposals
	if len(p.queue) == 0 {
		return
	}
	if !r.Leads() {
		p.failQueued(ErrNotLeader)
		return
	}
	for len(p.queue) > 0 && len(p.inflight) < r.cfg.MaxInflightBatches {
		if !r.proposeBatch() {
			return
		}
	}
}

// proposeBatch proposes one entry from the head of the queue: requests of one
// generation up to the limits. It reports whether raft took it.
func (r *Replica) proposeBatch() bool {
	p := &r.proposals
	n, bytes := 0, 0
	for n < len(p.queue) && n < r.cfg.MaxBatchRequests {
		next := &p.queue[n]
		if n > 0 && (bytes+len(next.Payload) > r.cfg.MaxBatchBytes || !together(&p.queue[0], next)) {
			break
		}
		bytes += len(next.Payload)
		n++
	}
	env := Envelope{
		Term: r.last.Term, Generation: p.queue[0].Generation, Sequence: p.sequence + 1,
		Payloads: make([][]byte, n),
	}
	waiters := make([]Waiter, n)
	var held []func()
	for i := range n {
		env.Payloads[i], waiters[i] = p.queue[i].Payload, p.queue[i].Done
		if f := p.queue[i].Held; f != nil {
			held = append(held, f)
		}
	}
	// raft copies what it appends, so one buffer serves every batch.
	p.buf = env.append(slices.Grow(p.buf[:0], env.size()))
	if err := r.node.Propose(p.buf); err != nil {
		return false // a transfer of leadership is under way, or the log is full: wait
	}
	if cap(p.buf) > bufferMax {
		p.buf = nil
	}
	p.sequence++
	p.inflight = append(p.inflight, flight{term: env.Term, sequence: env.Sequence, waiters: waiters, held: held})
	p.queuedBytes -= bytes
	rest := copy(p.queue, p.queue[n:])
	clear(p.queue[rest:])
	p.queue = p.queue[:rest]
	return true
}

// together reports whether two requests may share an entry. A request of an earlier
// term is never in the queue: it is emptied when a term ends.
func together(a, b *Proposal) bool {
	return a.Generation == b.Generation && !a.Alone && !b.Alone
}

// match finds who waits for a committed entry. Whatever of an earlier term is
// still in flight can never commit: log terms do not fall.
func (p *proposals) match(term, stamped, sequence uint64) (waiters []Waiter, held []func()) {
	for len(p.inflight) > 0 {
		head := p.inflight[0]
		switch {
		case head.term < term || (head.term == stamped && head.sequence < sequence):
			p.pop()
			for _, done := range head.waiters {
				done(Result{Err: ErrDropped})
			}
		case head.term == term && head.term == stamped && head.sequence == sequence:
			p.pop()
			return head.waiters, head.held
		default:
			return nil, nil
		}
	}
	return nil, nil
}

// refused finds who waits for a change of the configuration that raft turned into an
// empty entry, because it did not take it. Entries come in the order in which they
// were proposed, so if that was here, it is the head.
func (p *proposals) refused(term uint64) []Waiter {
	if len(p.inflight) == 0 || p.inflight[0].term != term || !p.inflight[0].conf {
		return nil
	}
	waiters := p.inflight[0].waiters
	p.pop()
	return waiters
}

func (p *proposals) pop() {
	p.inflight[0] = flight{}
	p.inflight = p.inflight[1:]
	if len(p.inflight) == 0 {
		p.inflight = nil
	}
}

func (p *proposals) failQueued(err error) {
	queue := p.queue
	p.queue, p.queuedBytes = nil, 0
	for _, q := range queue {
		q.Done(Result{Err: err})
	}
}

func (p *proposals) failInflight(err error) {
	inflight := p.inflight
	p.inflight = nil
	for _, f := range inflight {
		for _, done := range f.waiters {
			done(Result{Err: err})
		}
	}
}

// committed turns raft's committed entries into ours, applying changes of the
// configuration in passing. A change is in force from here on, on every replica
// at the same place of the log.
func (r *Replica) committed(ents []*raftpb.Entry) []Entry {
	out := make([]Entry, len(ents))
	for i, e := range ents {
		out[i] = r.commit(e)
	}
	return out
}

func (r *Replica) commit(e *raftpb.Entry) Entry {
	entry := Entry{Index: e.GetIndex(), Term: e.GetTerm()}
	first := r.out.committedTerm != entry.Term // a leader begins its term with an empty entry
	r.out.committedTerm = entry.Term
	var cc *raftpb.ConfChangeV2
	data := e.GetData()
	if e.GetType() == raftpb.EntryConfChangeV2 {
		cc = &raftpb.ConfChangeV2{}
		if err := proto.Unmarshal(data, cc); err != nil {
			panic("replica: committed change of configuration cannot be read: " + err.Error())
		}
		data = cc.GetContext()
	}
	if len(data) == 0 {
		r.proposals.match(entry.Term, 0, 0)
		if cc == nil && !first {
			for _, done := range r.proposals.refused(entry.Term) {
				done(Result{Err: ErrConfChangePending})
			}
		}
		if cc != nil { // raft's own "leave joint" carries no context
			entry.Conf = &ConfChange{Change: cc, State: r.node.ApplyConfChange(cc)}
		}
		return entry
	}
	env, err := ParseEnvelope(data)
	if err != nil {
		panic("replica: committed entry cannot be read: " + err.Error())
	}
	entry.Generation, entry.Refused = env.Generation, env.Term != entry.Term
	entry.Waiters, entry.Held = r.proposals.match(entry.Term, env.Term, env.Sequence)
	if cc == nil {
		entry.Payloads = env.Payloads
		return entry
	}
	if entry.Refused {
		return entry
	}
	entry.Conf = &ConfChange{Change: cc, Context: env.Payloads[0], State: r.node.ApplyConfChange(cc)}
	return entry
}

var _ raft.Logger = silent{}
