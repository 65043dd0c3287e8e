package shard

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/message"
)

// frames gathers messages by destination. There are few destinations, so a
// slice is searched.
type frames struct {
	list  []Frame
	spare [][]byte // buffers of frames that were sent
}

// frameKept bounds a buffer that is kept for the next frame, and spareKept their
// number.
const (
	frameKept = 256 << 10
	spareKept = 16
)

// reset forgets the frames and keeps their memory.
func (f *frames) reset() {
	for _, sent := range f.list {
		if cap(sent.Data) <= frameKept && len(f.spare) < spareKept {
			f.spare = append(f.spare, sent.Data[:0])
		}
	}
	clear(f.list)
	f.list = f.list[:0]
}

// buffer returns an empty buffer of at least n bytes.
func (f *frames) buffer(n int) []byte {
	last := len(f.spare) - 1
	if last < 0 {
		return make([]byte, 0, n)
	}
	b := f.spare[last]
	f.spare = f.spare[:last]
	return slices.Grow(b, n)
}

func (f *frames) add(g *group, m *raftpb.Message) {
	if node, ok := g.node(anchormesh.ReplicaID(m.GetTo())); ok {
		f.addTo(node, g.segment, m)
	} // else not known yet: Raft repeats
}

func (f *frames) addTo(node anchormesh.NodeID, segment anchormesh.SegmentID, m *raftpb.Message) {
	for i := range f.list {
		if f.list[i].To == node {
			f.list[i].Data = message.Append(f.list[i].Data, segment, m)
			return
		}
	}
	data := message.Append(f.buffer(message.Size(m)), segment, m)
	f.list = append(f.list, Frame{To: node, Data: data})
}
