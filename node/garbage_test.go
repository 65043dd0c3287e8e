package node_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/message"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/transfer"
)

// A member of the mesh that has the key and talks nonsense, in every protocol:
// the node refuses it and serves on.
func TestAPeerThatSendsGarbage(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c := m.client()
	put(ctx, t, c, "k", "v")
	info := m.segments(0)[0]
	segment := anchormesh.SegmentID(info.GetDescriptor_().GetSegment())
	node := anchormesh.NodeID(info.GetLeader())
	rogue, err := mesh.Start(ctx, mesh.Config{
		Key: m.key, DataDir: t.TempDir(), Name: "rogue", Mesh: anchormesh.MeshID(info.GetDescriptor_().GetMesh()),
		PeerAddr: "/ip4/127.0.0.1/tcp/0", GossipAddr: "127.0.0.1:0", Join: []string{m.nodes[0].cfg.Listen.Gossip},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer rogue.Close()
	m.eventually(20*time.Second, "sight of the node", func() bool { return len(rogue.View().Alive()) == 2 })

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		rogue.Send(node, mesh.Class(rng.IntN(4)), junk(rng, 200))
		rogue.Send(node, 0, cut(rng, raftFrame(rng, segment)))
	}
	for range 100 {
		for method := range uint8(8) {
			short, cancel := context.WithTimeout(ctx, time.Second)
			if answer, err := rogue.Call(short, node, method, junk(rng, 60)); err == nil && method == 1 {
				t.Errorf("method %d answered junk: %x", method, answer)
			}
			// A good beginning and a bad end.
			head := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(segment)), 1)
			_, _ = rogue.Call(short, node, 1, head, junk(rng, 30))
			cancel()
		}
	}
	for range 40 {
		snapshotJunk(ctx, t, rogue, node, rng)
	}
	put(ctx, t, c, "k", "w")
	if got := get(ctx, t, c, "k"); got != "w" {
		t.Errorf("after the garbage k is %q", got)
	}
}

func junk(rng *rand.Rand, most int) []byte {
	b := make([]byte, rng.IntN(most))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// cut shortens a frame or changes a byte of it.
func cut(rng *rand.Rand, frame []byte) []byte {
	if rng.IntN(2) == 0 {
		return frame[:rng.IntN(len(frame))]
	}
	frame[len(frame)-1-rng.IntN(min(len(frame), 8))] ^= byte(1 + rng.IntN(255))
	return frame
}

// raftFrame is a message to a replica that does not exist.
func raftFrame(rng *rand.Rand, segment anchormesh.SegmentID) []byte {
	typ := raftpb.MessageType(rng.IntN(24))
	return message.Append(nil, segment, &raftpb.Message{
		Type: &typ, To: new(uint64(99)), From: new(uint64(98)), Term: new(rng.Uint64()), Index: new(rng.Uint64()),
		Entries: []*raftpb.Entry{{Term: new(uint64(1)), Index: new(uint64(2)), Data: junk(rng, 50)}},
	})
}

// snapshotJunk offers a snapshot that is none, at the pace at which the node
// takes them.
func snapshotJunk(ctx context.Context, t *testing.T, rogue *mesh.Mesh, node anchormesh.NodeID, rng *rand.Rand) {
	t.Helper()
	s, err := rogue.OpenBulk(ctx, node, transfer.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	body := junk(rng, 2000)
	if len(body) > 0 && rng.IntN(2) == 0 {
		body[0] = 1 // the version
	}
	_ = s.SetDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := s.Write(body); err == nil {
		answer, _ := io.ReadAll(io.LimitReader(s, 4096)) // it may wait for more
		if len(answer) > 0 && answer[0] != 2 {
			t.Errorf("junk was taken as a snapshot: %s", fmt.Sprintf("%x", answer))
		}
	}
	_ = s.Reset()
}
