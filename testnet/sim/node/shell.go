package node

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/machine"
)

// Shell is a part of a process above engine and host.
type Shell interface {
	// booted is called when the process runs.
	Booted()
	// opened is called before a replica's state is used.
	Opened(segment anchormesh.SegmentID, space *keyspace.Space)
	// follows is called when who leads a group has changed.
	Follows(g *Group)
	// changed is called when a replica here has applied a change of its record.
	Changed(r *ReplicaHere, c machine.Change)
}

// Quiet is a shell that does nothing; others embed it.
type Quiet struct{}

func (Quiet) Booted() {}

func (Quiet) Opened(anchormesh.SegmentID, *keyspace.Space) {}

func (Quiet) Follows(*Group) {}

func (Quiet) Changed(*ReplicaHere, machine.Change) {}

// Part finds a process's shell of type T.
func Part[T Shell](p *Process) T {
	for _, s := range p.shells {
		if t, ok := s.(T); ok {
			return t
		}
	}
	panic("sim: a process lacks one of its parts")
}
