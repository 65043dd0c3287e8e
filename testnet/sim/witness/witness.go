package witness

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sort"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/internal/simkit"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/keyspace/lease"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/keyspace/rules"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/check"
)

// Witness is what the checkers are fed with.
type Witness struct {
	k     *simkit.Kernel
	Stats Stats
	Err   error

	Leaders    check.Leaders
	log        check.Log
	States     check.States
	History    check.History
	Events     map[string][]check.Event // by line, as first applied
	Acked      map[anchormesh.SegmentID]uint64
	Tags       uint64
	SplitLines map[string]bool                    // lines of scopes that were split
	Decided    map[anchormesh.Hash]*lineage.Entry // every structural decision that was applied
	places     map[string][]int64                 // of the events, in their revisions
	newest     map[string]int64                   // by line and key: revision of its last event
	Before     int64                              // revision before the entry that is being applied
	Applies    map[string]command                 // clients' commands, by their bytes, that took effect
	attempts   map[commit.TxnID]string            // transactions over several segments: the client's command
	decided    map[commit.TxnID]bool              // those that were committed
	ends       map[int64]time.Duration            // leases: first proposal to end it; negative: ended
	Order
}

// command is where a client's command was applied first, and when.
type command struct {
	segment anchormesh.SegmentID
	index   uint64
	At      time.Duration
	Before  int64 // revisions around its entry
	After   int64
	Place   int64 // among all commands
}

// Stats counts what a run did.
type Stats struct {
	Acked, Reads, Unknown, Dropped                                                    uint64
	Crashes, Elections, Snapshots, ConfChanges, Retired, Wiped, Rotten, Moves, Faults uint64
	Renewed, Expired, WatchEvents                                                     uint64
	Slept                                                                             uint64 // groups that fell asleep
	Governed
	Structure
	Spread
}

// Structure counts splits in force, attempts to merge, freezes that a driver was told of, and merges in
// force.
type Structure struct{ Splits, Attempts, Frozen, Merges uint64 }

// Volatile counts deaths of processes alone, what was said from memory, and replicas that
// may have forgotten something.
type Volatile struct{ Kills, Memory, Forgot uint64 }

// Spread counts what lines of several segments do: writes that got a stamp, barriers asked for,
// ranges over several segments, transactions that were committed and answered, and those that
// others had to end.
type Spread struct{ Stamped, Barriers, Wide, Spanning, Recovered uint64 }

// Governed counts what happened to policies and scopes: proposals made, policies that
// segments adopted, homes included, decisions entered again for others to sign, writes
// that a policy refused, writes that took effect with votes, batches whose votes were
// not given.
type Governed struct {
	Proposed, Adopted, Affirmed, Ruled, Approved, Forged uint64
	Volatile
}

// Fail ends the run with the first error.
func (m *Witness) Fail(err error) {
	if err != nil && m.Err == nil {
		m.Err = err
	}
}

// Applied sees every entry that a replica applies.
func (m *Witness) Applied(node string, idx int, segment anchormesh.SegmentID, space *keyspace.Space, e *replica.Entry, generation anchormesh.Generation, out []consensus.Outcome) {
	h := fnv.New64a()
	fmt.Fprint(h, e.Term, e.Refused, e.Generation, e.Conf != nil)
	for i, payload := range e.Payloads {
		h.Write(payload)
		if !e.Refused && e.Conf == nil && e.Generation == generation && (len(out) <= i || tookEffect(out[i].Err)) {
			if keyspace.Op(payload[0]) == keyspace.OpDecide && len(out) > i && out[i].Err == nil {
				m.decision(segment, e.Index, payload, out[i].Response)
			}
			m.commands(segment, space, e.Index, payload, out)
		}
	}
	m.Fail(m.log.Applied(uint64(segment), e.Index, h.Sum64(), node))
	m.k.Note("apply", idx, uint64(segment), e.Index, e.Term, h.Sum64()&0xffff)
}

// commands takes a batch of approved writes apart.
func (m *Witness) commands(segment anchormesh.SegmentID, space *keyspace.Space, index uint64, payload []byte, out []consensus.Outcome) {
	if keyspace.Op(payload[0]) != machine.OpApproved {
		m.once(segment, space, index, payload)
		return
	}
	batch, err := approval.Parse(payload[1:])
	if err != nil || len(out) != 1 || out[0].Err != nil {
		return
	}
	for i, part := range out[0].Parts {
		if write := batch.Slots[i].Bytes; write != nil && tookEffect(part.Err) { // with its stamp, if it has one
			m.once(segment, space, index, write)
		}
	}
}

// Nowhere are the known outcomes of a command in the log that say that it took effect
// nowhere and is to be tried again.
var Nowhere = []error{keyspace.ErrStampOrder, keyspace.ErrWrongSegment, machine.ErrUnapproved, machine.ErrFrozen, mvcc.ErrGone, keyspace.ErrLocked}

// tookEffect tells them, and a policy's refusals, from all other outcomes: of a refusal the
// client is told, and nothing happened.
func tookEffect(err error) bool {
	var refusal *rules.Refusal
	return !errors.As(err, &refusal) && !slices.ContainsFunc(Nowhere, func(is error) bool { return errors.Is(err, is) })
}

// once makes sure that a client's command is in the log at one place only: what is
// tried again must not have taken effect.
func (m *Witness) once(segment anchormesh.SegmentID, space *keyspace.Space, index uint64, payload []byte) {
	rev, inner, stamped := keyspace.CutStamp(payload)
	if stamped {
		payload = inner
	}
	op := keyspace.Op(payload[0])
	if op >= keyspace.OpPrepare && op <= keyspace.OpForget {
		return // parts of transactions: their decisions tell
	}
	m.count++
	if op == keyspace.OpLeaseExpire {
		m.Fail(m.expired(&m.History, payload[1:]))
		return
	}
	if op == keyspace.OpLeaseCheckpoint || op == keyspace.OpCompact || op >= keyspace.OpStructural {
		return
	}
	old, known := m.Applies[string(payload)]
	switch {
	case !known:
		after, _ := space.Revision()
		before := m.Before
		if stamped {
			before, after = rev-1, rev
		}
		m.Applies[string(payload)] = command{segment, index, m.k.Now(), before, after, m.count}
	case old.segment != segment || old.index != index:
		m.Fail(fmt.Errorf("segment %s: %w: %q at %d and at %d", segment, ErrTwice, payload, old.index, index))
	}
}

// Attempted tells of an attempt at a transaction over several segments, by a client's command.
func (m *Witness) Attempted(id commit.TxnID, command []byte) { m.attempts[id] = string(command) }

// decision sees what stands at a transaction's first key. At most one attempt at a client's
// transaction is ever committed.
func (m *Witness) decision(segment anchormesh.SegmentID, index uint64, payload, response []byte) {
	c, err := commit.DecodeDecide(payload[1:])
	if err != nil {
		return
	}
	reply, err := commit.DecodeReply(response)
	if err != nil || !reply.Commit || m.decided[c.Txn] {
		return
	}
	m.decided[c.Txn] = true
	client := m.attempts[c.Txn]
	if old, known := m.Applies[client]; known {
		m.Fail(fmt.Errorf("segment %s: %w: %q at %d and decided at %d", segment, ErrTwice, client, old.index, index))
	}
	m.Applies[client] = command{segment, index, m.k.Now(), reply.Revision - 1, reply.Revision, m.count}
}

// errTwice: a request that was said to have had no effect, and was tried again, had
// one.
var ErrTwice = errors.New("one request is in the log twice")

// Acknowledged sees every write that a client was told of.
func (m *Witness) Acknowledged(segment anchormesh.SegmentID, index uint64) {
	m.Stats.Acked++
	m.Acked[segment] = max(m.Acked[segment], index)
}

// Published sees every event of every replica; all must agree.
func (m *Witness) Published(line string, ev *mvcc.Event) {
	e := check.Event{Line: line, Rev: ev.Main, Delete: ev.Delete, KV: check.KV{Key: string(ev.KV.Key), Mod: ev.Main}}
	if !ev.Delete {
		e.KV = check.KV{Key: string(ev.KV.Key), Value: string(ev.KV.Value()), Create: ev.KV.Create, Mod: ev.KV.Mod, Version: ev.KV.Version, Lease: ev.KV.Lease}
	}
	list := m.Events[line]
	// Segments of one line publish one beside the other; of each key events come in
	// order.
	if id := line + e.KV.Key; e.Rev > m.newest[id] {
		m.newest[id] = e.Rev
		m.insert(line, e, ev.Sub)
		return
	}
	for _, o := range list[from(list, e.Rev):] {
		if o.Rev == e.Rev && o.KV == e.KV && o.Delete == e.Delete {
			return
		}
		if o.Rev > e.Rev {
			break
		}
	}
	m.Fail(fmt.Errorf("line %s: %w: a replica published %+v, another did not", line, check.ErrDiverged, e))
}

// insert puts an event where it belongs: those of one revision, which several segments may
// publish, have their places in it.
func (m *Witness) insert(line string, e check.Event, place int64) {
	list, places := m.Events[line], m.places[line]
	i := from(list, e.Rev+1)
	for i > 0 && list[i-1].Rev == e.Rev && places[i-1] > place {
		i--
	}
	m.Events[line], m.places[line] = slices.Insert(list, i, e), slices.Insert(places, i, place)
}

// from returns the first event at or above a revision.
func from(list []check.Event, rev int64) int {
	return sort.Search(len(list), func(i int) bool { return list[i].Rev >= rev })
}

// Expiring sees a leader decide that a lease has run out.
func (m *Witness) Expiring(id int64) {
	if _, known := m.ends[id]; !known {
		m.ends[id] = m.k.Now()
	}
}

// LeaseEvents sees the ends of leases as the first replica applies them.
func (m *Witness) LeaseEvents(line string, events []lease.Event, newest func() int64) {
	for _, ev := range events {
		end, ok := ev.(lease.Revoked)
		if !ok || m.ends[end.ID] < 0 || Eternal(end.ID) {
			continue
		}
		first := m.ends[end.ID]
		m.ends[end.ID] = -1
		m.Stats.Expired++
		after := max(m.Before, newest())
		m.k.Note("lease ends", -1, uint64(end.ID), 0, 0, 0)
		m.expiries[end.ID] = len(m.History.Ops)
		m.History.Leases = append(m.History.Leases, check.Lease{What: check.Expire, ID: end.ID, At: int64(m.k.Now())})
		m.History.Ops = append(m.History.Ops, check.Op{
			Client: -1, Line: line, Request: check.Request{Kind: check.Expire, Lease: end.ID},
			Call: int64(first), Return: int64(m.k.Now()), Result: &check.Result{}, RevMin: m.Before, RevMax: after,
		})
	}
}

// EternalTTL is the TTL of leases that are ended by a revoke only.
const EternalTTL = 1 << 30

// Eternal reports whether a lease was granted to be revoked: its ID is odd.
func Eternal(id int64) bool { return id%2 == 1 }

func NewWitness(k *simkit.Kernel) Witness {
	return Witness{k: k, SplitLines: make(map[string]bool), Decided: make(map[anchormesh.Hash]*lineage.Entry), newest: make(map[string]int64),
		Events: make(map[string][]check.Event), places: make(map[string][]int64), Acked: make(map[anchormesh.SegmentID]uint64), ends: make(map[int64]time.Duration),
		attempts: make(map[commit.TxnID]string), decided: make(map[commit.TxnID]bool),
		Applies: make(map[string]command), Order: newOrder()}
}
