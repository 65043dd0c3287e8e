package sim

import (
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
)

// chaos lets each kind of fault happen at random moments until the mesh is healed.
func (m *mesh) chaos() {
	f := m.cfg.Faults
	for _, kind := range []struct {
		every time.Duration
		do    func()
	}{
		{f.Crash, func() { m.hit((*computer).crash) }},
		{f.PowerCut, func() { m.hit(func(n *computer) { n.fuse = m.rng.IntN(12); n.mesh.later(time.Second, n.defuse) }) }},
		{f.Blackout, m.blackout},
		{f.Pause, func() { m.hit(func(n *computer) { n.pause(m.span(5 * time.Second)) }) }},
		{f.Cut, m.cut},
		{f.Partition, m.partition},
		{f.Swizzle, func() { m.net.Swizzle(len(m.computers), time.Duration(m.rng.Int64N(int64(3*time.Second)))) }},
		{f.DiskFull, func() {
			m.hit(func(n *computer) { n.full = true; m.later(m.span(5*time.Second), func() { n.full = false }) })
		}},
		{f.Jump, func() { m.hit(m.jump) }},
		{f.WrongDeath, m.slander},
		{f.WrongLost, func() {
			m.hit(func(n *computer) { n.proc.do(func() { n.proc.nodeLost(pick(m.rng, m.computers...).id) }) })
		}},
		{f.Transfer, func() { m.hit(m.transfer) }},
		{f.Wipe, m.wipe},
		{f.Split, m.splitSomewhere},
	} {
		if kind.every > 0 {
			m.again(kind.every, kind.do)
		}
	}
	m.again(20*time.Second, m.compact)
}

// again calls f at random moments.
func (m *mesh) again(mean time.Duration, f func()) {
	m.later(m.span(mean), func() {
		m.stats.Faults++
		f()
		m.again(mean, f)
	})
}

// later calls f unless the mesh is healed by then.
func (m *mesh) later(d time.Duration, f func()) {
	m.k.After(d, func() {
		if !m.healed {
			f()
		}
	})
}

func (m *mesh) span(mean time.Duration) time.Duration {
	return time.Duration(m.rng.ExpFloat64() * float64(mean))
}

// hit picks a node that runs.
func (m *mesh) hit(f func(n *computer)) {
	if running := m.running(); len(running) > 0 {
		f(pick(m.rng, running...).computer)
	}
}

// defuse ends a power cut that found nothing to cut.
func (n *computer) defuse() { n.fuse = -1 }

// revive boots the node after a while. A boot that fails (a full disk) is a crash,
// and leads here again.
func (n *computer) revive() { n.mesh.later(n.mesh.span(n.mesh.cfg.Faults.Down), n.boot) }

func (m *mesh) blackout() {
	for _, n := range m.computers {
		n.crash()
	}
}

func (m *mesh) cut() {
	a, b := pick(m.rng, m.computers...).idx, pick(m.rng, m.computers...).idx
	if a == b {
		return
	}
	m.net.Cut(a, b)
	both := m.rng.IntN(2) == 0
	if both {
		m.net.Cut(b, a)
	}
	m.later(m.span(10*time.Second), func() {
		m.net.Join(a, b)
		m.net.Join(b, a)
	})
}

// partition cuts the mesh in two; sometimes one direction stays open.
func (m *mesh) partition() {
	side := make([]bool, len(m.computers))
	for i := range side {
		side[i] = m.rng.IntN(2) == 0
	}
	oneWay := m.rng.IntN(3) == 0
	each := func(f func(from, to int)) {
		for a := range side {
			for b := range side {
				if side[a] != side[b] && (side[a] || !oneWay) {
					f(a, b)
				}
			}
		}
	}
	each(m.net.Cut)
	m.later(m.span(15*time.Second), func() { each(m.net.Join) })
}

func (m *mesh) jump(n *computer) {
	m.jumps++
	n.clock.Jump(time.Duration(m.rng.Int64N(int64(20*time.Second))) - 10*time.Second)
}

// slander makes one node believe for a while that another is dead.
func (m *mesh) slander() {
	a, b := pick(m.rng, m.computers...), pick(m.rng, m.computers...)
	m.wrong[[2]int{a.idx, b.idx}] = m.k.Now() + m.span(30*time.Second)
}

// transfer asks a leader to hand over to another voter.
func (m *mesh) transfer(n *computer) {
	for _, r := range n.proc.host.sorted() {
		d := r.machine.Descriptor()
		if voters := d.Voters(); len(voters) > 1 {
			to := pick(m.rng, voters...).Replica
			n.proc.with(d.Segment, func(r *replica.Replica) { r.TransferLeader(to) })
		}
	}
}

// wipe takes a node away for ever, with its disk, and brings a new one in its place;
// only where every configuration that any node knows keeps a majority, and names no
// other lost node: more is loss by permission.
func (m *mesh) wipe() {
	if m.stats.Wiped >= 4 {
		return
	}
	n := pick(m.rng, m.computers...)
	if n.gone || !m.expendable(n) {
		return
	}
	m.stats.Wiped++
	m.k.Note("wipe", n.idx, 0, 0, 0, 0)
	n.gone = true
	n.crash()
	fresh := newComputer(m, len(m.computers))
	m.computers = append(m.computers, fresh)
	fresh.revive()
}

// expendable reports whether every configuration that any node knows keeps a majority
// of replicas with their state without n, and names none that is lost already. What a
// node that is down knows cannot be asked for, so all must be up.
func (m *mesh) expendable(n *computer) bool {
	for _, o := range m.computers {
		if !o.gone && o.proc == nil {
			return false
		}
	}
	for _, p := range m.running() {
		for _, r := range p.host.sorted() {
			state := r.machine.State()
			for _, voters := range [][]uint64{state.Conf.GetVoters(), state.Conf.GetVotersOutgoing()} {
				left := 0
				for _, id := range voters {
					o := m.find(state.Peers()[anchormesh.ReplicaID(id)])
					if o == nil || o.gone {
						return false
					}
					if here := o.proc.host.held[state.Descriptor.Segment]; o != n && here != nil && uint64(here.id) == id {
						left++
					}
				}
				if len(voters) > 0 && 2*left <= len(voters) {
					return false
				}
			}
		}
	}
	return true
}

// compact lets a leader compact a segment's history.
func (m *mesh) compact() {
	if m.cfg.Load.Compact > 0 {
		m.hit(func(n *computer) { n.proc.compactSome() })
	}
}

// heal ends all faults for good.
func (m *mesh) heal() {
	m.k.Note("heal", -1, 0, 0, 0, 0)
	m.healed = true
	clear(m.wrong)
	m.net.Heal(len(m.computers))
	for _, n := range m.computers {
		n.full, n.fuse = false, -1
		n.disk.Heal()
		n.boot()
	}
}
