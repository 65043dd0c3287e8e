package wire

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/testnet/check"
)

// ProtoMessage is one of etcd's.
type ProtoMessage = proto.Message

func Marshal(m ProtoMessage) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic("sim: a request cannot be encoded: " + err.Error())
	}
	return b
}

// tagField is a field that no request has: parsers skip it.
const tagField = 2000

// Tagged makes a request unlike every other one of the run, so that its command is
// known again in the log.
func Tagged(tag uint64, raw []byte) []byte {
	return protowire.AppendVarint(protowire.AppendTag(raw, tagField, protowire.VarintType), tag)
}

func encodeOp(r *check.Request) *pb.RequestOp {
	switch m := Encode(r, 0).(type) {
	case *pb.PutRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: m}}
	case *pb.DeleteRangeRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: m}}
	case *pb.RangeRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: m}}
	}
	panic("sim: no such operation in a transaction: " + string(r.Kind))
}

func encodeCompare(c *check.Compare) *pb.Compare {
	out := &pb.Compare{Key: []byte(c.Key)}
	out.Result = map[string]pb.Compare_CompareResult{
		"=": pb.Compare_EQUAL, "!=": pb.Compare_NOT_EQUAL, "<": pb.Compare_LESS, ">": pb.Compare_GREATER,
	}[c.Result]
	switch c.Target {
	case "create":
		out.Target, out.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: c.Int}
	case "mod":
		out.Target, out.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: c.Int}
	case "version":
		out.Target, out.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: c.Int}
	case "lease":
		out.Target, out.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: c.Int}
	default:
		out.Target, out.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: []byte(c.Str)}
	}
	return out
}

// Ops of the commands that writes become.
var Ops = map[check.Kind]keyspace.Op{
	check.Put: keyspace.OpPut, check.Delete: keyspace.OpDeleteRange, check.Txn: keyspace.OpTxn,
	check.Grant: keyspace.OpLeaseGrant, check.Revoke: keyspace.OpLeaseRevoke,
}

// Decode reads etcd's answer to a request.
func Decode(kind check.Kind, b []byte) (*check.Result, error) {
	var m ProtoMessage
	switch kind {
	case check.Put:
		m = &pb.PutResponse{}
	case check.Delete:
		m = &pb.DeleteRangeResponse{}
	case check.Range:
		m = &pb.RangeResponse{}
	case check.Txn:
		m = &pb.TxnResponse{}
	case check.Grant:
		m = &pb.LeaseGrantResponse{}
	default:
		m = &pb.LeaseRevokeResponse{}
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("answer to a %s: %w", kind, err)
	}
	res := convert(m)
	return &res, nil
}

func convert(m ProtoMessage) check.Result {
	switch m := m.(type) {
	case *pb.PutResponse:
		out := check.Result{Rev: m.GetHeader().GetRevision()}
		if m.GetPrevKv() != nil {
			out.KVs = convertKVs(m.GetPrevKv())
		}
		return out
	case *pb.DeleteRangeResponse:
		return check.Result{Rev: m.GetHeader().GetRevision(), Count: m.GetDeleted(), KVs: convertKVs(m.GetPrevKvs()...)}
	case *pb.RangeResponse:
		return check.Result{Rev: m.GetHeader().GetRevision(), Count: m.GetCount(), KVs: convertKVs(m.GetKvs()...)}
	case *pb.TxnResponse:
		out := check.Result{Rev: m.GetHeader().GetRevision(), Succeeded: m.GetSucceeded()}
		for _, sub := range m.GetResponses() {
			switch r := sub.GetResponse().(type) {
			case *pb.ResponseOp_ResponsePut:
				out.Sub = append(out.Sub, convert(r.ResponsePut))
			case *pb.ResponseOp_ResponseDeleteRange:
				out.Sub = append(out.Sub, convert(r.ResponseDeleteRange))
			case *pb.ResponseOp_ResponseRange:
				out.Sub = append(out.Sub, convert(r.ResponseRange))
			}
		}
		return out
	case interface{ GetHeader() *pb.ResponseHeader }:
		return check.Result{Rev: m.GetHeader().GetRevision()}
	}
	panic(fmt.Sprintf("sim: %T is no answer", m))
}

func ConvertKV(kv *mvccpb.KeyValue) check.KV {
	return check.KV{Key: string(kv.GetKey()), Value: string(kv.GetValue()), Create: kv.GetCreateRevision(),
		Mod: kv.GetModRevision(), Version: kv.GetVersion(), Lease: kv.GetLease()}
}

func convertKVs(kvs ...*mvccpb.KeyValue) []check.KV {
	var out []check.KV
	for _, kv := range kvs {
		out = append(out, ConvertKV(kv))
	}
	return out
}

// Encode turns a request into etcd's.
func Encode(r *check.Request, ttl int64) ProtoMessage {
	switch r.Kind {
	case check.Put:
		return &pb.PutRequest{Key: []byte(r.Key), Value: []byte(r.Value), Lease: r.Lease, PrevKv: r.Prev}
	case check.Delete:
		return &pb.DeleteRangeRequest{Key: []byte(r.Key), RangeEnd: []byte(r.End), PrevKv: r.Prev}
	case check.Range:
		return &pb.RangeRequest{Key: []byte(r.Key), RangeEnd: []byte(r.End), Limit: r.Limit, Revision: r.Rev, Serializable: r.Serializable}
	case check.Grant:
		return &pb.LeaseGrantRequest{ID: r.Lease, TTL: ttl}
	case check.Revoke:
		return &pb.LeaseRevokeRequest{ID: r.Lease}
	}
	out := &pb.TxnRequest{}
	for i := range r.If {
		out.Compare = append(out.Compare, encodeCompare(&r.If[i]))
	}
	for i := range r.Then {
		out.Success = append(out.Success, encodeOp(&r.Then[i]))
	}
	for i := range r.Else {
		out.Failure = append(out.Failure, encodeOp(&r.Else[i]))
	}
	return out
}

// KeysOf is the range of keys that a request names; of leases it is none.
func KeysOf(r *check.Request) anchormesh.KeyRange {
	switch r.Kind {
	case check.Grant, check.Revoke:
		return anchormesh.KeyRange{}
	case check.Txn:
		var all []string
		for _, c := range r.If {
			all = append(all, c.Key, c.Key+"\x00")
		}
		for _, list := range [][]check.Request{r.Then, r.Else} {
			for i := range list {
				k := KeysOf(&list[i])
				all = append(all, string(k.Start), string(k.End))
			}
		}
		low, high := all[0], all[0]
		for _, k := range all {
			low, high = min(low, k), max(high, k)
		}
		return anchormesh.KeyRange{Start: []byte(low), End: []byte(high)}
	}
	return anchormesh.RequestRange([]byte(r.Key), []byte(r.End))
}
