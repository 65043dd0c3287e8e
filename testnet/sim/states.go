package sim

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
)

// stand is where a replica stood when its state was hashed last.
type stand struct {
	machine *machine.Machine
	index   uint64
}

// post is a replica's place: it may begin anew there, as another machine.
type post struct {
	computer int
	segment  anchormesh.SegmentID
}

// compareEvery is how often states are compared; every wholeEvery-th time all of them are
// hashed, also of those that have applied nothing since, whose commits and compactions
// went on: most replicas of a run rest at most times, and to read all that they hold
// again was a sixth of its cost.
const (
	compareEvery = 3 * time.Second
	wholeEvery   = 10
)

// observe compares states now and then.
func (m *world) observe() {
	m.K.After(compareEvery, func() {
		m.looks++
		m.compareStates(m.looks%wholeEvery == 0)
		m.observe()
	})
}

// compareStates hashes the replicas that stand at the same index: all, or those that
// moved since they were hashed last.
func (m *world) compareStates(all bool) {
	for _, p := range m.Running() {
		for _, id := range slices.Sorted(maps.Keys(p.Host.Held)) {
			r := p.Host.Held[id]
			index, _ := r.Machine.Segment().Applied()
			here, now := post{p.Index, id}, stand{r.Machine, index}
			if !all && m.stands[here] == now {
				continue
			}
			m.stands[here] = now
			sum, err := stateOf(r.Machine)
			if errors.Is(err, mvcc.ErrGone) {
				continue // absorbed a moment ago
			}
			if err != nil {
				m.Fail(fmt.Errorf("node %d: hash of segment %s: %w", p.Index, id, err))
				return
			}
			m.Fail(m.States.At(uint64(id), index, sum, string(p.ID)))
		}
	}
}

// stateOf hashes everything that replicas at one index must agree on.
func stateOf(r *machine.Machine) (uint64, error) {
	sum, compacted, rev, err := r.Segment().Hash(0)
	if err != nil {
		return 0, err
	}
	h := fnv.New64a()
	fmt.Fprint(h, sum, compacted, rev, r.Space().Leases(), r.State().Descriptor, r.State().Conf)
	if record := r.State().Scope; record != nil {
		h.Write(record.Encode())
	}
	return h.Sum64(), nil
}
