package commit

import (
	"bytes"
	"slices"
	"sort"

	"github.com/anchormesh/anchormesh"
)

// RecordsMax is how many prepared transactions a segment takes; a prepare beyond is
// refused with ErrTooMany. It is part of what apply decides: do not change it
// without a new format.
const RecordsMax = 16 << 10

// Record is a prepared transaction at one participant. It is never modified.
type Record struct {
	Txn TxnID
	// Stamp is p: the transaction's revision will be above it, and until then
	// nothing at or above it may be shown.
	Stamp    int64
	Decision []byte                // the key whose range holds the decision
	Spans    []anchormesh.KeyRange // of all participants, in order: who must be told
	Locks    []Lock
	Writes   []Write // in order of Sub; none at a participant that was only read
}

// Decision is what was decided, at the range that holds Key. It is never modified.
type Decision struct {
	Txn TxnID
	Verdict
	Key   []byte
	Spans []anchormesh.KeyRange
}

// Participant is a segment's share of the transactions over several segments: what
// is prepared here, and the decisions whose key lies here. It is a part of apply:
// methods that change it are called with applied entries only, in order, and give
// the same on every replica.
type Participant struct {
	records   []*Record   // by Txn
	decisions []*Decision // by Txn
	floor     int64
	changes   []Change
}

// Idle reports whether nothing is prepared here.
func (p *Participant) Idle() bool { return len(p.records) == 0 }

// Unsettled reports whether anything is prepared here, or decided and not forgotten.
func (p *Participant) Unsettled() bool { return len(p.records)+len(p.decisions) > 0 }

// Floor is the highest p and C applied here. Ordinary stamps must be above it and
// above the segment's newest revision: a commit may lie below the latter, and one
// that writes nothing here still comes before whatever follows it.
func (p *Participant) Floor() int64 { return p.floor }

// Lowest returns the smallest stamp of what is prepared. Barriers at or above it
// and watch events above it wait; compaction does, too. (Package line is told with
// Hold and Release, by a new leader for every record it finds.)
func (p *Participant) Lowest() (stamp int64, prepared bool) {
	for _, r := range p.records {
		if !prepared || r.Stamp < stamp {
			stamp, prepared = r.Stamp, true
		}
	}
	return stamp, prepared
}

// Blocks says which prepared transaction, other than id, holds one of the locks.
// An ordinary command in its way is refused at apply, too; it changes nothing and
// is tried again.
func (p *Participant) Blocks(id TxnID, locks []Lock) (TxnID, bool) {
	for _, r := range p.records {
		if r.Txn != id && conflict(r.Locks, locks) {
			return r.Txn, true
		}
	}
	return TxnID{}, false
}

// HoldsLease says which prepared transaction will put a key under the lease. A
// lease's end waits for it: a prepare that was admitted is not refused later.
func (p *Participant) HoldsLease(id int64) (TxnID, bool) {
	for _, r := range p.records {
		if slices.ContainsFunc(r.Writes, func(w Write) bool { return !w.Delete && w.Lease == id }) {
			return r.Txn, true
		}
	}
	return TxnID{}, false
}

// Record returns what is prepared under id.
func (p *Participant) Record(id TxnID) (*Record, bool) {
	i, ok := p.findRecord(id)
	if !ok {
		return nil, false
	}
	return p.records[i], true
}

// Records returns all that is prepared, Decisions all that is decided here and not
// forgotten: a leader hands to a Recoverer what stays too long.
func (p *Participant) Records() []*Record { return slices.Clone(p.records) }

// Decisions returns the decisions kept here, by Txn.
func (p *Participant) Decisions() []*Decision { return slices.Clone(p.decisions) }

func (p *Participant) findRecord(id TxnID) (int, bool) {
	return sort.Find(len(p.records), func(i int) int { return id.compare(p.records[i].Txn) })
}

func (p *Participant) findDecision(id TxnID) (int, bool) {
	return sort.Find(len(p.decisions), func(i int) int { return id.compare(p.decisions[i].Txn) })
}

// Prepare applies OpPrepare at place at with the stamp it carries. Everything else
// that can refuse (leases, quota, alarms, policy, keys outside the range) was asked
// by the caller: after this nothing can. The same one again changes nothing and answers
// with the first one's stamp. One of another part, whose coordinator does not know that
// two segments have become one, joins what is prepared, as Absorb would have joined them.
func (p *Participant) Prepare(at Place, stamp int64, c *Prepare) (int64, error) {
	before, joins := p.Record(c.Txn)
	if joins && before.has(c) {
		return before.Stamp, nil
	}
	_, conflicts := p.Blocks(c.Txn, c.Locks)
	_, decided := p.findDecision(c.Txn)
	switch {
	case decided:
		return 0, ErrDecided
	case c.Grant.Place != at || joins && before.clashes(c):
		return 0, ErrLockLost
	case stamp <= p.floor:
		return 0, ErrStampOrder
	case conflicts:
		return 0, ErrConflict
	case !joins && len(p.records) >= RecordsMax:
		return 0, ErrTooMany
	}
	r := &Record{Txn: c.Txn, Stamp: stamp, Decision: c.Decision, Spans: c.Spans, Locks: c.Locks, Writes: c.Writes}
	if joins {
		r = before.join(r)
	}
	p.setRecord(r)
	p.raise(stamp)
	return stamp, nil
}

// Has reports whether just this part of a transaction is prepared here already.
func (p *Participant) Has(c *Prepare) bool {
	r, ok := p.Record(c.Txn)
	return ok && r.has(c)
}

func (r *Record) has(c *Prepare) bool {
	for _, l := range c.Locks {
		if !slices.ContainsFunc(r.Locks, func(held Lock) bool { return held.Range.Covers(l.Range) }) {
			return false
		}
	}
	return true
}

// clashes reports whether what calls itself another part of a prepared transaction has
// keys, or places of writes, in common with it: the shares of a division have none.
func (r *Record) clashes(c *Prepare) bool {
	return slices.ContainsFunc(r.Locks, func(held Lock) bool {
		return slices.ContainsFunc(c.Locks, func(l Lock) bool { return held.Range.Overlaps(l.Range) })
	}) || slices.ContainsFunc(r.Writes, func(held Write) bool {
		return slices.ContainsFunc(c.Writes, func(w Write) bool { return held.Sub == w.Sub })
	})
}

// Commit applies OpCommit and returns the writes to be made at revision c, which
// may lie below the segment's newest one. Nothing prepared means that it was done
// before: no writes, no error.
func (p *Participant) Commit(id TxnID, c int64) ([]Write, error) {
	r, ok := p.Record(id)
	if !ok {
		return nil, nil
	}
	if c <= r.Stamp {
		return nil, ErrStampOrder
	}
	p.dropRecord(id)
	p.raise(c)
	return r.Writes, nil
}

// Abort applies OpAbort: what is prepared is thrown away.
func (p *Participant) Abort(id TxnID) { p.dropRecord(id) }

// Decide applies OpDecide at the range that holds the decision's key; that it does
// is for the caller to check, with the generation. The first one
// written wins and is returned. It takes effect here at once: writes are those of
// this participant, to be made at the verdict's revision. To commit, the
// transaction must be prepared here, which is what keeps a late coordinator from
// deciding again what was decided and forgotten.
func (p *Participant) Decide(c *Decide) (Verdict, []Write, error) {
	if i, ok := p.findDecision(c.Txn); ok {
		return p.decisions[i].Verdict, nil, nil
	}
	var writes []Write
	if c.Commit {
		r, ok := p.Record(c.Txn)
		if !ok || !bytes.Equal(r.Decision, c.Key) {
			return Verdict{}, nil, ErrNotPrepared
		}
		var err error
		if writes, err = p.Commit(c.Txn, c.Revision); err != nil {
			return Verdict{}, nil, err
		}
	} else {
		p.Abort(c.Txn)
	}
	d := &Decision{Txn: c.Txn, Verdict: c.Verdict, Key: c.Key, Spans: c.Spans}
	p.setDecision(d)
	return d.Verdict, writes, nil
}

// Forget applies OpForget: every participant has confirmed.
func (p *Participant) Forget(id TxnID) {
	if i, ok := p.findDecision(id); ok {
		p.decisions = slices.Delete(slices.Clone(p.decisions), i, i+1)
		p.change(TableDecision, id, nil)
	}
}

func (p *Participant) raise(to int64) {
	if to > p.floor {
		p.floor = to
		p.changes = append(p.changes, floorChange(to))
	}
}

func (p *Participant) setRecord(r *Record) {
	i, ok := p.findRecord(r.Txn)
	p.records = slices.Clone(p.records)
	if ok {
		p.records[i] = r
	} else {
		p.records = slices.Insert(p.records, i, r)
	}
	p.change(TablePrepared, r.Txn, r.encode())
}

func (p *Participant) dropRecord(id TxnID) {
	if i, ok := p.findRecord(id); ok {
		p.records = slices.Delete(slices.Clone(p.records), i, i+1)
		p.change(TablePrepared, id, nil)
	}
}

func (p *Participant) setDecision(d *Decision) {
	i, ok := p.findDecision(d.Txn)
	p.decisions = slices.Clone(p.decisions)
	if ok {
		p.decisions[i] = d
	} else {
		p.decisions = slices.Insert(p.decisions, i, d)
	}
	p.change(TableDecision, d.Txn, d.encode())
}
