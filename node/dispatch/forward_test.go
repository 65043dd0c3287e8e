package dispatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/wire"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/route"
)

func forwardedPut(t testing.TB) []byte {
	raw, err := proto.Marshal(&pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
	if err != nil {
		t.Fatal(err)
	}
	b := binary.AppendUvarint(binary.AppendUvarint(nil, 1<<60), 3)
	return append(append(b, byte(etcdapi.MethodPut), 0), raw...)
}

func TestForwardedRequestBecomesACommandWithoutACopy(t *testing.T) {
	b := forwardedPut(t)
	req, err := parseForwarded(b)
	if err != nil {
		t.Fatal(err)
	}
	if req.segment != 1<<60 || req.generation != 3 || !req.call.Write || req.call.Serializable || string(req.call.Keys.Start) != "k" {
		t.Fatalf("%+v %+v", req, req.call)
	}
	command := req.call.Command(42)
	if command[0] != 42 || !bytes.Equal(command[1:], req.call.Raw()) || &command[1] != &req.call.Raw()[0] {
		t.Errorf("command %x of request %x", command, req.call.Raw())
	}
}

func TestForwardedRequestsCutInTheirHeadAreRefused(t *testing.T) {
	b := forwardedPut(t)
	const head = 9 + 1 + 2 // segment, generation, method and flags
	for cut := range head {
		if _, err := parseForwarded(b[:cut:cut]); err == nil {
			t.Errorf("cut to %d bytes: taken", cut)
		}
	}
}

// answer is what was sent back for a request.
type answer struct {
	code uint16
	text string
}

func (a *answer) Answer(_ uint64, code uint16, payload [][]byte) {
	a.code, a.text = code, string(bytes.Join(payload, nil))
}

// A node that stops takes nothing in any more. The node that forwarded a request to
// it tries another one; its client does not hear of a stop that is not its node's.
func TestAStoppingNodeSendsForwardedRequestsElsewhere(t *testing.T) {
	var got answer
	new(Dispatcher).failWith(wire.NewResponder(&got, 1, time.Time{}), 1, translate(consensus.ErrStopped))
	if got.code != codeRetry {
		t.Fatalf("answered with code %d, text %q", got.code, got.text)
	}
	table := route.NewTable()
	asking := &Dispatcher{table: table}
	table.SetLeader(1, "stopping")
	err := asking.remoteFailed(&anchormesh.Descriptor{Segment: 1}, "stopping", &mesh.RemoteError{Code: got.code, Text: got.text})
	if !errors.Is(err, errRetry) {
		t.Errorf("the asking node ends with %v", err)
	}
	if leader, ok := table.Leader(1); ok {
		t.Errorf("the asking node still takes %q for the leader", leader)
	}
}

// FuzzParseForwarded: a peer that sends garbage gets a refusal, nothing else.
func FuzzParseForwarded(f *testing.F) {
	f.Add(forwardedPut(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := parseForwarded(data)
		if err != nil {
			return
		}
		if req.call.Method == 0 {
			t.Error("a request without a method was taken")
		}
		if req.call.Write {
			opOf(req.call.Method) // panics for what is not a write
		} else if !leaderOnly(req.call.Method) && req.call.Method != etcdapi.MethodRange && req.call.Method != etcdapi.MethodTxn {
			t.Errorf("%v would be read", req.call.Method)
		}
	})
}
