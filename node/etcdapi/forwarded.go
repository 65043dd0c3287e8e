package etcdapi

import (
	"context"
	"fmt"
	"math"

	"google.golang.org/grpc"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// ForwardedCall makes a call of a request that another node checked: buf is one
// spare byte and the request, and becomes the call's own. It fills in Keys and
// Range; Write and Serializable come with the request. The bytes must be well
// formed all the same, since nothing else may reach a log.
func ForwardedCall(method Method, buf []byte) (*Call, error) {
	if method == 0 || int(method) >= len(methodNames) || len(buf) == 0 {
		return nil, fmt.Errorf("etcdapi: forwarded request names no known method (%d)", method)
	}
	c := &Call{Method: method, buf: buf}
	switch method {
	case MethodRange:
		if err := codec.ParseRange(c.Raw(), &c.Range); err != nil {
			return nil, err
		}
		c.Keys = keyRange(c.Range.Key, c.Range.RangeEnd)
	case MethodPut:
		var r codec.PutRequest
		if err := codec.ParsePut(c.Raw(), &r); err != nil {
			return nil, err
		}
		c.Keys, c.Write = keyRange(r.Key, nil), true
	case MethodDeleteRange:
		var r codec.DeleteRangeRequest
		if err := codec.ParseDeleteRange(c.Raw(), &r); err != nil {
			return nil, err
		}
		c.Keys, c.Write = keyRange(r.Key, r.RangeEnd), true
	case MethodTxn:
		r := txns.Get().(*codec.TxnRequest)
		defer putTxn(r)
		if err := codec.ParseTxn(c.Raw(), r); err != nil {
			return nil, err
		}
		c.Keys, c.Write = txnKeys(r), !r.ReadOnly()
	default:
		if err := wellFormed(c); err != nil {
			return nil, err
		}
		c.Write = method != MethodLeaseTimeToLive && method != MethodLeaseLeases
	}
	return c, nil
}

// Invoke runs a call on another node as a client would, over gRPC: for answers
// too large for a mesh call. Nothing is decoded on the way.
func Invoke(ctx context.Context, conn grpc.ClientConnInterface, call *Call) (codec.Chunks, error) {
	if call.Method != MethodRange && call.Method != MethodTxn {
		panic("etcdapi: " + call.Method.String() + " has no large answers")
	}
	var answer frame
	err := conn.Invoke(ctx, "/etcdserverpb.KV/"+call.Method.String(), &frame{call.Raw()}, &answer,
		grpc.ForceCodecV2(newWireCodec()), grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32))
	if err != nil {
		return nil, err
	}
	return codec.Chunks{answer.raw}, nil
}
