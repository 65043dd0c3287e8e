package codec

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// These turn a parsed request into etcd's generated form, so that both parsers
// can be compared field by field.

func (r *PutRequest) pb() *pb.PutRequest {
	return &pb.PutRequest{
		Key: r.Key, Value: r.Value, Lease: r.Lease,
		PrevKv: r.PrevKV, IgnoreValue: r.IgnoreValue, IgnoreLease: r.IgnoreLease,
	}
}

func (r *RangeRequest) pb() *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: r.Key, RangeEnd: r.RangeEnd, Limit: r.Limit, Revision: r.Revision,
		SortOrder: pb.RangeRequest_SortOrder(r.SortOrder), SortTarget: pb.RangeRequest_SortTarget(r.SortTarget),
		Serializable: r.Serializable, KeysOnly: r.KeysOnly, CountOnly: r.CountOnly,
		MinModRevision: r.MinModRevision, MaxModRevision: r.MaxModRevision,
		MinCreateRevision: r.MinCreateRevision, MaxCreateRevision: r.MaxCreateRevision,
	}
}

func (r *DeleteRangeRequest) pb() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: r.Key, RangeEnd: r.RangeEnd, PrevKv: r.PrevKV}
}

func (c *Compare) pb() *pb.Compare {
	out := &pb.Compare{
		Result: pb.Compare_CompareResult(c.Result), Target: pb.Compare_CompareTarget(c.Target),
		Key: c.Key, RangeEnd: c.RangeEnd,
	}
	switch c.Union {
	case UnionVersion:
		out.TargetUnion = &pb.Compare_Version{Version: c.Int}
	case UnionCreate:
		out.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: c.Int}
	case UnionMod:
		out.TargetUnion = &pb.Compare_ModRevision{ModRevision: c.Int}
	case UnionValue:
		out.TargetUnion = &pb.Compare_Value{Value: c.Value}
	case UnionLease:
		out.TargetUnion = &pb.Compare_Lease{Lease: c.Int}
	}
	return out
}

func (op *RequestOp) pb() *pb.RequestOp {
	switch op.Kind {
	case KindRange:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: op.Range.pb()}}
	case KindPut:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: op.Put.pb()}}
	case KindDeleteRange:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: op.DeleteRange.pb()}}
	case KindTxn:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: op.Txn.pb()}}
	}
	return &pb.RequestOp{}
}

func (r *TxnRequest) pb() *pb.TxnRequest {
	out := &pb.TxnRequest{}
	for i := range r.Compare {
		out.Compare = append(out.Compare, r.Compare[i].pb())
	}
	for i := range r.Success {
		out.Success = append(out.Success, r.Success[i].pb())
	}
	for i := range r.Failure {
		out.Failure = append(out.Failure, r.Failure[i].pb())
	}
	return out
}
