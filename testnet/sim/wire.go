package sim

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/testnet/check"
)

// protoMessage is one of etcd's.
type protoMessage = proto.Message

func marshal(m protoMessage) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic("sim: a request cannot be encoded: " + err.Error())
	}
	return b
}

// tagField is a field that no request has: parsers skip it.
const tagField = 2000

// tagged makes a request unlike every other one of the run, so that its command is
// known again in the log.
func (m *mesh) tagged(raw []byte) []byte {
	m.tags++
	return protowire.AppendVarint(protowire.AppendTag(raw, tagField, protowire.VarintType), m.tags)
}

func encodeOp(r *check.Request) *pb.RequestOp {
	switch m := encode(r, 0).(type) {
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

// ops of the commands that writes become.
var ops = map[check.Kind]keyspace.Op{
	check.Put: keyspace.OpPut, check.Delete: keyspace.OpDeleteRange, check.Txn: keyspace.OpTxn,
	check.Grant: keyspace.OpLeaseGrant, check.Revoke: keyspace.OpLeaseRevoke,
}

// decode reads etcd's answer to a request.
func decode(kind check.Kind, b []byte) (*check.Result, error) {
	var m protoMessage
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

func convert(m protoMessage) check.Result {
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

func convertKV(kv *mvccpb.KeyValue) check.KV {
	return check.KV{Key: string(kv.GetKey()), Value: string(kv.GetValue()), Create: kv.GetCreateRevision(),
		Mod: kv.GetModRevision(), Version: kv.GetVersion(), Lease: kv.GetLease()}
}

func convertKVs(kvs ...*mvccpb.KeyValue) []check.KV {
	var out []check.KV
	for _, kv := range kvs {
		out = append(out, convertKV(kv))
	}
	return out
}
