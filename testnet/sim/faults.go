package sim

import (
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/testnet/sim/dispatch"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// chaos lets each kind of fault happen at random moments until the mesh is healed.
func (m *world) chaos() {
	f := m.Cfg.Faults
	for _, kind := range []struct {
		every time.Duration
		do    func()
	}{
		{f.Crash, func() { m.hit((*node.Computer).Crash) }},
		{f.PowerCut, func() { m.hit(func(n *node.Computer) { n.Fuse = m.Rng.IntN(12); n.Mesh.Later(time.Second, n.Defuse) }) }},
		{f.Blackout, m.blackout},
		{f.Pause, func() { m.hit(func(n *node.Computer) { n.Pause(m.Span(5 * time.Second)) }) }},
		{f.Cut, m.cut},
		{f.Partition, m.partition},
		{f.Swizzle, func() { m.Net.Swizzle(len(m.Computers), time.Duration(m.Rng.Int64N(int64(3*time.Second)))) }},
		{f.DiskFull, func() {
			m.hit(func(n *node.Computer) { n.Full = true; m.Later(m.Span(5*time.Second), func() { n.Full = false }) })
		}},
		{f.Jump, func() { m.hit(m.jump) }},
		{f.WrongDeath, m.slander},
		{f.WrongLost, func() {
			m.hit(func(n *node.Computer) { n.Proc.Do(func() { n.Proc.NodeLost(plan.Pick(m.Rng, m.Computers...).ID) }) })
		}},
		{f.Transfer, func() { m.hit(m.transfer) }},
		{f.Wipe, m.wipe},
		{f.Rot, m.rot},
		{f.Split, m.splitSomewhere},
		{m.Cfg.Governance.Every, m.operators.Act},
		{f.Merge, m.mergeSomewhere},
		{f.Move, m.moveSomewhere},
		{f.Kill, func() { m.hit((*node.Computer).Kill) }},
	} {
		if kind.every > 0 {
			m.again(kind.every, kind.do)
		}
	}
	m.again(20*time.Second, m.compact)
}

// again calls f at random moments.
func (m *world) again(mean time.Duration, f func()) {
	m.Later(m.Span(mean), func() {
		m.Stats.Faults++
		f()
		m.again(mean, f)
	})
}

// hit picks a node that runs.
func (m *world) hit(f func(n *node.Computer)) {
	if running := m.Running(); len(running) > 0 {
		f(plan.Pick(m.Rng, running...).Computer)
	}
}

func (m *world) blackout() {
	for _, n := range m.Computers {
		n.Crash()
	}
}

func (m *world) cut() {
	a, b := plan.Pick(m.Rng, m.Computers...).Index, plan.Pick(m.Rng, m.Computers...).Index
	if a == b {
		return
	}
	m.Net.Cut(a, b)
	both := m.Rng.IntN(2) == 0
	if both {
		m.Net.Cut(b, a)
	}
	m.Later(m.Span(10*time.Second), func() {
		m.Net.Join(a, b)
		m.Net.Join(b, a)
	})
}

// partition cuts the mesh in two; sometimes one direction stays open.
func (m *world) partition() {
	side := make([]bool, len(m.Computers))
	for i := range side {
		side[i] = m.Rng.IntN(2) == 0
	}
	oneWay := m.Rng.IntN(3) == 0
	each := func(f func(from, to int)) {
		for a := range side {
			for b := range side {
				if side[a] != side[b] && (side[a] || !oneWay) {
					f(a, b)
				}
			}
		}
	}
	each(m.Net.Cut)
	m.Later(m.Span(15*time.Second), func() { each(m.Net.Join) })
}

func (m *world) jump(n *node.Computer) {
	m.Jumps++
	n.Clock.Jump(time.Duration(m.Rng.Int64N(int64(20*time.Second))) - 10*time.Second)
}

// slander makes one node believe for a while that another is dead.
func (m *world) slander() {
	a, b := plan.Pick(m.Rng, m.Computers...), plan.Pick(m.Rng, m.Computers...)
	m.Wrong[[2]int{a.Index, b.Index}] = m.K.Now() + m.Span(30*time.Second)
}

// transfer asks a leader to hand over to another voter.
func (m *world) transfer(n *node.Computer) {
	for _, r := range n.Proc.Host.Sorted() {
		d := r.Machine.Descriptor()
		if voters := d.Voters(); len(voters) > 1 {
			to := plan.Pick(m.Rng, voters...).Replica
			n.Proc.With(d.Segment, func(r *replica.Replica) { r.TransferLeader(to) })
		}
	}
}

// wipe takes a node away for ever, with its disk, and brings a new one in its place;
// only where every configuration that any node knows keeps a majority, and names no
// other lost node: more is loss by permission.
func (m *world) wipe() {
	if m.Stats.Wiped >= 4 {
		return
	}
	n := plan.Pick(m.Rng, m.Computers...)
	if n.Gone || !m.expendable(n) {
		return
	}
	n.Crash()
	m.lose(n)
}

// rot changes a bit on the disk of a machine that the mesh can do without. One whose process
// refuses what is left is taken away, as the operator of it would do.
func (m *world) rot() {
	n := plan.Pick(m.Rng, m.Computers...)
	if m.Stats.Wiped >= 4 || n.Gone || n.Full || !m.expendable(n) {
		return
	}
	n.Crash()
	if n.Rot() {
		m.Stats.Rotten++
		m.lose(n)
	}
}

// lose takes a machine that is down away for ever, and brings a new one.
func (m *world) lose(n *node.Computer) {
	m.Stats.Wiped++
	m.K.Note("wipe", n.Index, 0, 0, 0, 0)
	n.Gone = true
	fresh := node.NewComputer(m.Mesh, len(m.Computers))
	m.Computers = append(m.Computers, fresh)
	fresh.Revive()
}

// expendable reports whether every configuration that any node knows keeps a majority
// of replicas with their state without n, and names none that is lost already. What a
// node that is down knows cannot be asked for, so all must be up.
func (m *world) expendable(n *node.Computer) bool {
	for _, o := range m.Computers {
		if !o.Gone && o.Proc == nil {
			return false
		}
	}
	for _, p := range m.Running() {
		for _, r := range p.Host.Sorted() {
			state := r.Machine.State()
			for _, voters := range [][]uint64{state.Conf.GetVoters(), state.Conf.GetVotersOutgoing()} {
				left := 0
				for _, id := range voters {
					o := m.Find(state.Peers()[anchormesh.ReplicaID(id)])
					if o == nil || o.Gone {
						return false
					}
					if here := o.Proc.Host.Held[state.Descriptor.Segment]; o != n && here != nil && uint64(here.ID) == id {
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
func (m *world) compact() {
	if m.Cfg.Load.Compact > 0 {
		m.hit(func(n *node.Computer) { dispatch.DispatcherAt(n.Proc).CompactSome() })
	}
}

// heal ends all faults for good.
func (m *world) heal() {
	m.K.Note("heal", -1, 0, 0, 0, 0)
	m.Healed = true
	clear(m.Wrong)
	m.Net.Heal(len(m.Computers))
	for _, n := range m.Computers {
		n.Full, n.Fuse = false, -1
		n.Disk.Heal()
		n.Boot()
	}
}
