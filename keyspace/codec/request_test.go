package codec

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// parsers pairs every parser with the message it claims to read.
var parsers = []struct {
	name  string
	parse func(b []byte) (proto.Message, error)
	empty func() proto.Message
}{
	{"put", func(b []byte) (proto.Message, error) {
		var r PutRequest
		err := ParsePut(b, &r)
		return r.pb(), err
	}, func() proto.Message { return new(pb.PutRequest) }},
	{"range", func(b []byte) (proto.Message, error) {
		var r RangeRequest
		err := ParseRange(b, &r)
		return r.pb(), err
	}, func() proto.Message { return new(pb.RangeRequest) }},
	{"delete-range", func(b []byte) (proto.Message, error) {
		var r DeleteRangeRequest
		err := ParseDeleteRange(b, &r)
		return r.pb(), err
	}, func() proto.Message { return new(pb.DeleteRangeRequest) }},
	{"txn", func(b []byte) (proto.Message, error) {
		// A used request must parse as a fresh one does.
		r := TxnRequest{Success: make([]RequestOp, 0, 1)}
		_ = ParseTxn(dirtyTxn, &r)
		err := ParseTxn(b, &r)
		return r.pb(), err
	}, func() proto.Message { return new(pb.TxnRequest) }},
	{"compaction", func(b []byte) (proto.Message, error) {
		var r CompactionRequest
		err := ParseCompaction(b, &r)
		return &pb.CompactionRequest{Revision: r.Revision, Physical: r.Physical}, err
	}, func() proto.Message { return new(pb.CompactionRequest) }},
	{"lease-grant", func(b []byte) (proto.Message, error) {
		var r LeaseGrantRequest
		err := ParseLeaseGrant(b, &r)
		return &pb.LeaseGrantRequest{TTL: r.TTL, ID: r.ID}, err
	}, func() proto.Message { return new(pb.LeaseGrantRequest) }},
	{"lease-revoke", func(b []byte) (proto.Message, error) {
		id, err := ParseLeaseID(b)
		return &pb.LeaseRevokeRequest{ID: id}, err
	}, func() proto.Message { return new(pb.LeaseRevokeRequest) }},
	{"lease-keepalive", func(b []byte) (proto.Message, error) {
		id, err := ParseLeaseID(b)
		return &pb.LeaseKeepAliveRequest{ID: id}, err
	}, func() proto.Message { return new(pb.LeaseKeepAliveRequest) }},
	{"lease-ttl", func(b []byte) (proto.Message, error) {
		var r LeaseTimeToLiveRequest
		err := ParseLeaseTimeToLive(b, &r)
		return &pb.LeaseTimeToLiveRequest{ID: r.ID, Keys: r.Keys}, err
	}, func() proto.Message { return new(pb.LeaseTimeToLiveRequest) }},
	{"lease-checkpoint", func(b []byte) (proto.Message, error) {
		cs, err := ParseLeaseCheckpoints(b, nil)
		out := &pb.LeaseCheckpointRequest{}
		for _, c := range cs {
			out.Checkpoints = append(out.Checkpoints, &pb.LeaseCheckpoint{ID: c.ID, Remaining_TTL: c.Remaining})
		}
		return out, err
	}, func() proto.Message { return new(pb.LeaseCheckpointRequest) }},
	{"alarm", func(b []byte) (proto.Message, error) {
		var r AlarmRequest
		err := ParseAlarm(b, &r)
		return &pb.AlarmRequest{
			Action: pb.AlarmRequest_AlarmAction(r.Action), MemberID: r.MemberID, Alarm: pb.AlarmType(r.Alarm),
		}, err
	}, func() proto.Message { return new(pb.AlarmRequest) }},
}

var dirtyTxn = mustMarshal(&pb.TxnRequest{
	Compare: []*pb.Compare{{Key: []byte("dirt"), Target: pb.Compare_LEASE, TargetUnion: &pb.Compare_Lease{Lease: 9}}},
	Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("dirt"), Lease: 7, PrevKv: true}}},
		{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("dirt"), Limit: 7, KeysOnly: true}}},
		{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("dirt")}}}}},
	},
})

func mustMarshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// checkParsers compares every parser with proto.Unmarshal on the same bytes.
func checkParsers(b []byte) error {
	for _, p := range parsers {
		want := p.empty()
		wantErr := proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, want)
		got, err := p.parse(b)
		if errors.Is(err, ErrTooDeep) {
			continue
		}
		if (err == nil) != (wantErr == nil) {
			return fmt.Errorf("%s of %x: error %v, proto says %v", p.name, b, err, wantErr)
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			return fmt.Errorf("%s of %x: error %v is not ErrMalformed", p.name, b, err)
		}
		if err == nil && !proto.Equal(got, want) {
			return fmt.Errorf("%s of %x:\n got %v\nwant %v", p.name, b, got, want)
		}
	}
	return nil
}

func FuzzParsers(f *testing.F) {
	for _, b := range seedMessages(rand.New(rand.NewPCG(1, 2)), 100) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := checkParsers(b); err != nil {
			t.Fatal(err)
		}
	})
}

// TestParsersOnMutants runs the fuzzer's check over valid messages and damaged
// ones, so that every ordinary test run covers both.
func TestParsersOnMutants(t *testing.T) {
	const seed = 20240607
	rng := rand.New(rand.NewPCG(seed, 0))
	for i, b := range seedMessages(rng, 4000) {
		for m := 0; m < 3; m++ {
			if err := checkParsers(b); err != nil {
				t.Fatalf("seed %d, message %d: %v", seed, i, err)
			}
			b = mutate(rng, b)
		}
	}
}

func TestParserCorners(t *testing.T) {
	tag := protowire.AppendTag
	for name, b := range map[string][]byte{
		"empty":              {},
		"tag only":           {0x0a},
		"field zero":         {0x02, 0x00},
		"field too large":    protowire.AppendVarint(nil, (1<<29)<<3),
		"ten byte varint":    append(tag(nil, 3, protowire.VarintType), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"varint overflow":    append(tag(nil, 3, protowire.VarintType), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02),
		"bool above one":     append(tag(nil, 4, protowire.VarintType), 0x80, 0x02),
		"wrong wire type":    append(tag(nil, 1, protowire.VarintType), 0x05),
		"unknown group":      append(append(tag(nil, 99, protowire.StartGroupType), 0x08, 0x01), tag(nil, 99, protowire.EndGroupType)...),
		"open group":         tag(nil, 99, protowire.StartGroupType),
		"stray end group":    tag(nil, 99, protowire.EndGroupType),
		"reserved wire type": {0x0e},
		"overlong tag":       {0x8a, 0x00, 0x01, 'k'},
		"length past end":    {0x0a, 0x05, 'k'},
		"last scalar wins":   {0x0a, 0x01, 'a', 0x0a, 0x01, 'b'},
		"empty last wins":    {0x0a, 0x01, 'a', 0x0a, 0x00},
		// success: {range{key a}, range{limit 3}} of one operation is merged;
		// {range, put} replaces.
		"oneof merged":   {0x12, 0x09, 0x0a, 0x03, 0x0a, 0x01, 'a', 0x0a, 0x02, 0x18, 0x03},
		"oneof replaced": {0x12, 0x0a, 0x0a, 0x03, 0x0a, 0x01, 'a', 0x12, 0x03, 0x12, 0x01, 'v'},
		"nested merged": {0x12, 0x10,
			0x22, 0x06, 0x12, 0x04, 0x0a, 0x02, 0x18, 0x01,
			0x22, 0x06, 0x1a, 0x04, 0x0a, 0x02, 0x18, 0x01},
	} {
		if err := checkParsers(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTxnDepth(t *testing.T) {
	nest := func(levels int) []byte {
		r := &pb.TxnRequest{}
		for range levels - 1 {
			r = &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}}}
		}
		return mustMarshal(r)
	}
	var r TxnRequest
	if err := ParseTxn(nest(TxnDepthMax), &r); err != nil {
		t.Errorf("%d levels: %v", TxnDepthMax, err)
	}
	if err := ParseTxn(nest(TxnDepthMax+1), &r); !errors.Is(err, ErrTooDeep) {
		t.Errorf("%d levels: %v, want ErrTooDeep", TxnDepthMax+1, err)
	}
}

func TestReadOnly(t *testing.T) {
	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}
	serial := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k"), Serializable: true}}}
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k")}}}
	nested := &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{}}}
	for _, tc := range []struct {
		name                   string
		txn                    *pb.TxnRequest
		readOnly, serializable bool
	}{
		{"empty", &pb.TxnRequest{}, true, true},
		{"reads", &pb.TxnRequest{Success: []*pb.RequestOp{get}, Failure: []*pb.RequestOp{serial}}, true, false},
		{"serializable reads", &pb.TxnRequest{Success: []*pb.RequestOp{serial}}, true, true},
		{"put", &pb.TxnRequest{Failure: []*pb.RequestOp{put}}, false, false},
		{"nested counts as a write", &pb.TxnRequest{Success: []*pb.RequestOp{nested}}, false, false},
	} {
		var r TxnRequest
		if err := ParseTxn(mustMarshal(tc.txn), &r); err != nil {
			t.Fatal(err)
		}
		if r.ReadOnly() != tc.readOnly || r.Serializable() != tc.serializable {
			t.Errorf("%s: ReadOnly %v Serializable %v", tc.name, r.ReadOnly(), r.Serializable())
		}
	}
}
