package keyspace

import (
	"bytes"
	"cmp"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh/keyspace/lease"
)

// model is etcd's semantics as plainly as they can be written: the list of all
// writes ever made, looked through from one end to the other.
type model struct {
	ids       Identity
	index     uint64
	term      uint64
	rev       int64
	compacted int64
	writes    []modelWrite
	leases    map[int64]lease.Lease
	alarms    map[pb.AlarmType]map[uint64]bool
}

type modelWrite struct {
	main    int64
	deleted bool
	kv      *mvccpb.KeyValue
}

func newModel(ids Identity) *model {
	return &model{ids: ids, rev: 1, compacted: -1, leases: map[int64]lease.Lease{},
		alarms: map[pb.AlarmType]map[uint64]bool{pb.AlarmType_NOSPACE: {}, pb.AlarmType_CORRUPT: {}}}
}

func (m *model) header() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: m.ids.ClusterID, MemberId: m.ids.MemberID, Revision: m.rev, RaftTerm: m.term}
}

// get returns the key as a read at rev sees it, nil if it is not there.
func (m *model) get(key string, rev int64) *mvccpb.KeyValue {
	for i := len(m.writes) - 1; i >= 0; i-- {
		if w := m.writes[i]; w.main <= rev && string(w.kv.Key) == key {
			if w.deleted {
				return nil
			}
			return proto.Clone(w.kv).(*mvccpb.KeyValue)
		}
	}
	return nil
}

func inRange(k, key, end string) bool {
	switch end {
	case "":
		return k == key
	case "\x00":
		return k >= key
	}
	return k >= key && k < end
}

func (m *model) scan(key, end []byte, rev int64) []*mvccpb.KeyValue {
	keys := map[string]bool{}
	for _, w := range m.writes {
		if k := string(w.kv.Key); inRange(k, string(key), string(end)) {
			keys[k] = true
		}
	}
	var out []*mvccpb.KeyValue
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if kv := m.get(k, rev); kv != nil {
			out = append(out, kv)
		}
	}
	return out
}

// write is the state of one transaction: everything it writes gets m.rev+1.
type modelTxn struct {
	*model
	changed bool
}

func (t *modelTxn) now() int64 {
	if t.changed {
		return t.rev + 1
	}
	return t.rev
}

func (t *modelTxn) end() {
	t.rev = t.now()
	t.changed = false
}

func (t *modelTxn) put(key, value []byte, id int64) {
	old := t.get(string(key), math.MaxInt64)
	kv := &mvccpb.KeyValue{Key: key, Value: value, Lease: id, ModRevision: t.rev + 1, CreateRevision: t.rev + 1, Version: 1}
	if old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
	}
	t.writes = append(t.writes, modelWrite{main: t.rev + 1, kv: kv})
	t.changed = true
}

func (t *modelTxn) delete(key string) {
	t.writes = append(t.writes, modelWrite{main: t.rev + 1, deleted: true, kv: &mvccpb.KeyValue{Key: []byte(key)}})
	t.changed = true
}

func (m *model) apply(op Op, req proto.Message) (proto.Message, error) {
	if len(m.alarms[pb.AlarmType_CORRUPT]) > 0 && op != OpAlarm && op != OpLeaseCheckpoint {
		return nil, ErrCorrupt
	}
	noSpace := len(m.alarms[pb.AlarmType_NOSPACE]) > 0
	t := &modelTxn{model: m}
	switch r := req.(type) {
	case *pb.PutRequest:
		if noSpace {
			return nil, ErrNoSpace
		}
		if err := t.checkPut(r); err != nil {
			return nil, err
		}
		resp := t.doPut(r)
		t.end()
		resp.Header = m.header()
		return resp, nil
	case *pb.DeleteRangeRequest:
		resp := t.doDelete(r)
		t.end()
		resp.Header = m.header()
		return resp, nil
	case *pb.TxnRequest:
		if noSpace && putsSomething(r) {
			return nil, ErrNoSpace
		}
		return t.doTxn(r)
	case *pb.CompactionRequest:
		if r.Revision <= m.compacted {
			return nil, ErrCompacted
		}
		if r.Revision > m.rev {
			return nil, ErrFutureRev
		}
		m.compacted = r.Revision
		return &pb.CompactionResponse{Header: m.header()}, nil
	case *pb.AlarmRequest:
		return m.doAlarm(r), nil
	}
	return m.applyLease(t, req, noSpace)
}

func (m *model) applyLease(t *modelTxn, req proto.Message, noSpace bool) (proto.Message, error) {
	switch r := req.(type) {
	case *pb.LeaseGrantRequest:
		_, exists := m.leases[r.ID]
		switch {
		case noSpace:
			return nil, ErrNoSpace
		case r.ID == 0:
			return nil, ErrLeaseNotFound
		case r.TTL > 9000000000:
			return nil, ErrLeaseTTLTooLarge
		case exists:
			return nil, ErrLeaseExists
		}
		m.leases[r.ID] = lease.Lease{ID: r.ID, TTL: max(r.TTL, 1), Epoch: m.index}
		return &pb.LeaseGrantResponse{Header: m.header(), ID: r.ID, TTL: max(r.TTL, 1)}, nil
	case *pb.LeaseRevokeRequest:
		if _, ok := m.leases[r.ID]; !ok {
			return nil, ErrLeaseNotFound
		}
		for _, k := range m.leaseKeys(r.ID) {
			t.delete(k)
		}
		t.end()
		delete(m.leases, r.ID)
		return &pb.LeaseRevokeResponse{Header: m.header()}, nil
	case *pb.LeaseCheckpointRequest: // term and epoch right, or a clear
		for _, c := range r.Checkpoints {
			if l, ok := m.leases[c.ID]; ok {
				l.Remaining = c.Remaining_TTL
				if l.Remaining == 0 {
					l.Epoch = m.index
				}
				m.leases[c.ID] = l
			}
		}
		return &pb.LeaseCheckpointResponse{Header: m.header()}, nil
	}
	panic("the model does not know this request")
}

func (m *model) leaseKeys(id int64) (keys []string) {
	for _, kv := range m.scan([]byte{0}, []byte{0}, math.MaxInt64) {
		if kv.Lease == id {
			keys = append(keys, string(kv.Key))
		}
	}
	return keys
}

func (m *model) doAlarm(r *pb.AlarmRequest) *pb.AlarmResponse {
	resp := &pb.AlarmResponse{Header: m.header()}
	member := &pb.AlarmMember{MemberID: r.MemberID, Alarm: r.Alarm}
	set := m.alarms[r.Alarm]
	switch {
	case r.Action == pb.AlarmRequest_GET:
		for _, kind := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
			for _, id := range slices.Sorted(maps.Keys(m.alarms[kind])) {
				if r.Alarm == pb.AlarmType_NONE || r.Alarm == kind {
					resp.Alarms = append(resp.Alarms, &pb.AlarmMember{MemberID: id, Alarm: kind})
				}
			}
		}
	case r.Alarm == pb.AlarmType_NONE:
	case r.Action == pb.AlarmRequest_ACTIVATE:
		set[r.MemberID] = true
		resp.Alarms = append(resp.Alarms, member)
	case set[r.MemberID]:
		delete(set, r.MemberID)
		resp.Alarms = append(resp.Alarms, member)
	}
	return resp
}

func putsSomething(r *pb.TxnRequest) bool {
	for _, op := range append(slices.Clone(r.Success), r.Failure...) {
		if op.GetRequestPut() != nil || op.GetRequestTxn() != nil && putsSomething(op.GetRequestTxn()) {
			return true
		}
	}
	return false
}

func (t *modelTxn) checkPut(r *pb.PutRequest) error {
	if _, ok := t.leases[r.Lease]; !ok && r.Lease != 0 {
		return ErrLeaseNotFound
	}
	if (r.IgnoreValue || r.IgnoreLease) && t.get(string(r.Key), math.MaxInt64) == nil {
		return ErrKeyNotFound
	}
	return nil
}

func (t *modelTxn) doPut(r *pb.PutRequest) *pb.PutResponse {
	prev := t.get(string(r.Key), math.MaxInt64)
	kept := prev
	if kept == nil {
		kept = t.get(string(r.Key), t.rev) // deleted earlier in this transaction
	}
	value, id := r.Value, r.Lease
	if r.IgnoreValue {
		value = kept.Value
	}
	if r.IgnoreLease {
		id = kept.Lease
	}
	t.put(r.Key, value, id)
	resp := &pb.PutResponse{Header: &pb.ResponseHeader{Revision: t.rev + 1}}
	if r.PrevKv {
		resp.PrevKv = prev
	}
	return resp
}

func (t *modelTxn) doDelete(r *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	gone := t.scan(r.Key, r.RangeEnd, math.MaxInt64)
	for _, kv := range gone {
		t.delete(string(kv.Key))
	}
	resp := &pb.DeleteRangeResponse{Deleted: int64(len(gone)), Header: &pb.ResponseHeader{Revision: t.now()}}
	if r.PrevKv {
		resp.PrevKvs = gone
	}
	return resp
}

func (t *modelTxn) doTxn(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	took := map[*pb.TxnRequest]bool{}
	t.decide(r, took)
	if err := t.check(r, took); err != nil {
		return nil, err
	}
	resp := t.run(r, took)
	t.end()
	resp.Header = t.header()
	return resp, nil
}

func (t *modelTxn) decide(r *pb.TxnRequest, took map[*pb.TxnRequest]bool) {
	took[r] = true
	for _, c := range r.Compare {
		took[r] = took[r] && t.holds(c)
	}
	for _, op := range taken(r, took) {
		if n := op.GetRequestTxn(); n != nil {
			t.decide(n, took)
		}
	}
}

func taken(r *pb.TxnRequest, took map[*pb.TxnRequest]bool) []*pb.RequestOp {
	if took[r] {
		return r.Success
	}
	return r.Failure
}

func (t *modelTxn) holds(c *pb.Compare) bool {
	kvs := t.scan(c.Key, c.RangeEnd, math.MaxInt64)
	if len(kvs) == 0 {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		kvs = []*mvccpb.KeyValue{{}}
	}
	for _, kv := range kvs {
		var sign int
		switch c.Target {
		case pb.Compare_VALUE:
			sign = bytes.Compare(kv.Value, c.GetValue())
		case pb.Compare_CREATE:
			sign = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
		case pb.Compare_MOD:
			sign = cmp.Compare(kv.ModRevision, c.GetModRevision())
		case pb.Compare_VERSION:
			sign = cmp.Compare(kv.Version, c.GetVersion())
		case pb.Compare_LEASE:
			sign = cmp.Compare(kv.Lease, c.GetLease())
		}
		ok := map[pb.Compare_CompareResult]bool{
			pb.Compare_EQUAL: sign == 0, pb.Compare_NOT_EQUAL: sign != 0, pb.Compare_GREATER: sign > 0, pb.Compare_LESS: sign < 0,
		}
		if holds, known := ok[c.Result]; known && !holds {
			return false
		}
	}
	return true
}

func (t *modelTxn) check(r *pb.TxnRequest, took map[*pb.TxnRequest]bool) error {
	for _, op := range taken(r, took) {
		var err error
		switch {
		case op.GetRequestRange() != nil:
			rev := op.GetRequestRange().Revision
			if rev > t.rev {
				err = ErrFutureRev
			} else if rev != 0 && rev < t.compacted {
				err = ErrCompacted
			}
		case op.GetRequestPut() != nil:
			err = t.checkPut(op.GetRequestPut())
		case op.GetRequestTxn() != nil:
			err = t.check(op.GetRequestTxn(), took)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *modelTxn) run(r *pb.TxnRequest, took map[*pb.TxnRequest]bool) *pb.TxnResponse {
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: took[r]}
	for _, op := range taken(r, took) {
		out := &pb.ResponseOp{}
		switch {
		case op.GetRequestRange() != nil:
			rr := t.doRange(op.GetRequestRange(), t.now())
			rr.Header = &pb.ResponseHeader{Revision: t.now()}
			out.Response = &pb.ResponseOp_ResponseRange{ResponseRange: rr}
		case op.GetRequestPut() != nil:
			out.Response = &pb.ResponseOp_ResponsePut{ResponsePut: t.doPut(op.GetRequestPut())}
		case op.GetRequestDeleteRange() != nil:
			out.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: t.doDelete(op.GetRequestDeleteRange())}
		case op.GetRequestTxn() != nil:
			out.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: t.run(op.GetRequestTxn(), took)}
		}
		resp.Responses = append(resp.Responses, out)
	}
	return resp
}

// readRange is a range request on its own.
func (m *model) readRange(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if r.Revision > m.rev {
		return nil, ErrFutureRev
	}
	if r.Revision > 0 && r.Revision < m.compacted {
		return nil, ErrCompacted
	}
	resp := m.doRange(r, m.rev)
	resp.Header = m.header()
	return resp, nil
}

// doRange follows the steps of etcd's executeRange, whose order shows.
func (m *model) doRange(r *pb.RangeRequest, now int64) *pb.RangeResponse {
	if r.Revision > 0 {
		now = r.Revision
	}
	kvs := m.scan(r.Key, r.RangeEnd, now)
	resp := &pb.RangeResponse{Count: int64(len(kvs))}
	if r.CountOnly {
		return resp
	}
	filters := r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
	plain := r.SortOrder == pb.RangeRequest_NONE || r.SortTarget == pb.RangeRequest_KEY && r.SortOrder == pb.RangeRequest_ASCEND
	if plain && !filters && r.Limit > 0 && int64(len(kvs)) > r.Limit+1 {
		kvs = kvs[:r.Limit+1]
	}
	kvs = slices.DeleteFunc(kvs, func(kv *mvccpb.KeyValue) bool {
		return r.MaxModRevision != 0 && kv.ModRevision > r.MaxModRevision ||
			kv.ModRevision < r.MinModRevision && r.MinModRevision != 0 ||
			r.MaxCreateRevision != 0 && kv.CreateRevision > r.MaxCreateRevision ||
			kv.CreateRevision < r.MinCreateRevision && r.MinCreateRevision != 0
	})
	order := r.SortOrder
	if order == pb.RangeRequest_NONE && r.SortTarget != pb.RangeRequest_KEY {
		order = pb.RangeRequest_ASCEND
	}
	byField := modelSort{kvs, r.SortTarget}
	switch {
	case order == pb.RangeRequest_DESCEND:
		sort.Sort(sort.Reverse(byField))
	case order == pb.RangeRequest_ASCEND && r.SortTarget != pb.RangeRequest_KEY:
		sort.Sort(byField)
	}
	if r.Limit > 0 && int64(len(kvs)) > r.Limit {
		kvs, resp.More = kvs[:r.Limit], true
	}
	for _, kv := range kvs {
		if r.KeysOnly {
			kv.Value = nil
			if r.SortTarget != pb.RangeRequest_VALUE {
				kv.Lease = 0
			}
		}
	}
	resp.Kvs = kvs
	return resp
}

type modelSort struct {
	kvs    []*mvccpb.KeyValue
	target pb.RangeRequest_SortTarget
}

func (s modelSort) Len() int      { return len(s.kvs) }
func (s modelSort) Swap(i, j int) { s.kvs[i], s.kvs[j] = s.kvs[j], s.kvs[i] }
func (s modelSort) Less(i, j int) bool {
	a, b := s.kvs[i], s.kvs[j]
	switch s.target {
	case pb.RangeRequest_KEY:
		return strings.Compare(string(a.Key), string(b.Key)) < 0
	case pb.RangeRequest_VERSION:
		return a.Version < b.Version
	case pb.RangeRequest_CREATE:
		return a.CreateRevision < b.CreateRevision
	case pb.RangeRequest_MOD:
		return a.ModRevision < b.ModRevision
	}
	return bytes.Compare(a.Value, b.Value) < 0
}

// readTxn is a transaction of ranges, served without the log.
func (m *model) readTxn(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	return (&modelTxn{model: m}).doTxn(r)
}
