package message

import (
	"errors"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
)

// What a replica says to its own shell must not come from another node.
func TestLocalMessagesDoNotTravel(t *testing.T) {
	never := map[raftpb.MessageType]bool{
		raftpb.MsgSnap: true, raftpb.MsgProp: true, raftpb.MsgForgetLeader: true, // streamed; not forwarded; local by use
	}
	for n := range raftpb.MessageType_name {
		typ := raftpb.MessageType(n)
		frame := Append(nil, 7, &raftpb.Message{Type: typ.Enum(), To: new(uint64(1)), From: new(uint64(2))})
		seen := 0
		err := Decode(frame, func(anchormesh.SegmentID, *raftpb.Message) { seen++ })
		if refused := raft.IsLocalMsg(typ) || never[typ]; refused != errors.Is(err, ErrMalformed) || refused != (seen == 0) {
			t.Errorf("%v: %v, %d messages", typ, err, seen)
		}
	}
	for _, typ := range []byte{24, 63, 64, 128, 255} {
		frame := Append(nil, 7, &raftpb.Message{Type: raftpb.MsgApp.Enum()})
		frame[1] = typ
		if err := Decode(frame, func(anchormesh.SegmentID, *raftpb.Message) {}); !errors.Is(err, ErrMalformed) {
			t.Errorf("type %d: %v", typ, err)
		}
	}
}

// Any bytes are messages or an error.
func FuzzDecode(f *testing.F) {
	f.Add(Append(nil, 7, &raftpb.Message{
		Type: raftpb.MsgApp.Enum(), To: new(uint64(1)), From: new(uint64(2)), Term: new(uint64(3)), Context: []byte("c"),
		Entries: []*raftpb.Entry{{Term: new(uint64(3)), Index: new(uint64(9)), Data: []byte("data")}},
	}))
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 3, 7})
	f.Fuzz(func(t *testing.T, frame []byte) {
		var again []byte
		err := Decode(frame, func(s anchormesh.SegmentID, m *raftpb.Message) { again = Append(again, s, m) })
		if err != nil {
			return
		}
		var twice []byte
		if err := Decode(again, func(s anchormesh.SegmentID, m *raftpb.Message) { twice = Append(twice, s, m) }); err != nil || string(twice) != string(again) {
			t.Errorf("%x became %x and then %x, %v", frame, again, twice, err)
		}
	})
}
