package node

import (
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/wire"
	"github.com/anchormesh/anchormesh/node/telemetry"
)

// sources are what a scrape of the metrics reads. Before the node serves they
// are all zero.
func (n *Node) sources(a *assembly) telemetry.Sources {
	return telemetry.Sources{
		Log: func() (s wal.Stats) {
			if n.serving.Load() != nil {
				s = a.wal.Stats()
			}
			return s
		},
		Wire: func() (s wire.Stats) {
			if n.serving.Load() != nil {
				s = a.mesh.Stats().Wire
			}
			return s
		},
		Watches: func() (sum watch.Stats) {
			if n.serving.Load() == nil {
				return sum
			}
			for _, id := range a.host.Segments() {
				if r, ok := a.host.Get(id); ok {
					one := r.Hub.Stats()
					sum.Watches += one.Watches
					sum.Streams += one.Streams
					sum.Lagging += one.Lagging
					sum.QueueBytes += one.QueueBytes
					sum.QueueDrops += one.QueueDrops
				}
			}
			return sum
		},
		Members: func() (m telemetry.Members) {
			if n.serving.Load() == nil {
				return m
			}
			for _, member := range a.mesh.View().Members() {
				switch member.State {
				case mesh.Alive:
					m.Alive++
				case mesh.Left:
					m.Left++
				case mesh.Dead:
					m.Dead++
				}
			}
			return m
		},
		Scopes: func() (s telemetry.Scopes) {
			if n.serving.Load() != nil {
				s = a.scopeFigures()
			}
			return s
		},
		Groups: func() (l consensus.Load) {
			if n.serving.Load() != nil {
				l = a.engine.Load()
			}
			return l
		},
		Stores: func() (s telemetry.Stores) {
			if n.serving.Load() != nil {
				s = a.storeFigures()
				s.QuotaBytes = n.cfg.Limits.Quota()
			}
			return s
		},
	}
}

// scopeFigures adds up what scopes refuse here.
func (a *assembly) scopeFigures() (s telemetry.Scopes) {
	s.Forgetful = len(a.host.Forgotten())
	for _, id := range a.host.Segments() {
		r, ok := a.host.Get(id)
		if !ok || r.Machine.State().Policy == nil {
			continue
		}
		u := r.Machine.Space().Usage()
		s.Refused, s.Full, s.Shed = s.Refused+u.Refused, s.Full+u.Full, s.Shed+r.Pace.Shed()
		if st, ok := a.engine.Status(id); ok && st.Leads() && u.NearlyFull() {
			s.Tight++
		}
	}
	return s
}

// storeFigures adds up the stores, and the leases that are led here.
func (a *assembly) storeFigures() (s telemetry.Stores) {
	a.stores.Each(func(store *mvcc.Store) {
		total, inUse := store.SizeBytes()
		s.SizeBytes += total
		s.InUseBytes += inUse
		s.PendingBytes += int64(store.Pending())
	})
	for _, id := range a.host.Segments() {
		st, led := a.engine.Status(id)
		if r, ok := a.host.Get(id); ok && led && st.Leads() {
			s.Leases += int64(len(r.Machine.Space().Leases()))
		}
	}
	return s
}
