package dispatch

import (
	"context"
	"sync"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/host"
)

// runLocal runs what only the leader may, on the leader.
func (d *Dispatcher) runLocal(ctx context.Context, r *host.Replica, desc *anchormesh.Descriptor, term uint64, call *etcdapi.Call) (codec.Chunks, error) {
	if !call.Write {
		if err := d.readIndex(ctx, desc.Segment); err != nil {
			return nil, err
		}
		answer, err := d.leases.LeaseRead(ctx, r, term, call.Method, call.Raw())
		return codec.Chunks{answer}, err
	}
	command := call.Command(byte(opOf(call.Method)))
	if err := d.admit(r, desc, command); err != nil {
		return nil, err
	}
	r.Meter.Write(call.Keys.Start, len(command))
	res := d.propose(ctx, desc, command)
	if res.Err != nil {
		return nil, translate(res.Err)
	}
	return codec.Chunks{res.Response}, nil
}

// admit refuses a command that would grow a store beyond its quota. As in etcd
// the refusal raises the NOSPACE alarm, which then refuses on every replica
// alike until an operator takes it back.
func (d *Dispatcher) admit(r *host.Replica, desc *anchormesh.Descriptor, command []byte) error {
	space := r.Machine.Space()
	limits := space.Limits()
	if limits.QuotaBytes < 0 {
		return nil
	}
	total, _ := r.Store.SizeBytes()
	if !limits.OverQuota(total, keyspace.Cost(command)) {
		return nil
	}
	if len(space.Alarms(codec.AlarmNoSpace)) == 0 {
		alarm := codec.AppendAlarm(nil, codec.AlarmRequest{
			Action: codec.AlarmActivate, MemberID: d.self.MemberID(), Alarm: codec.AlarmNoSpace,
		})
		d.engine.Propose(desc.Segment, desc.Generation, keyspace.AppendCommand(nil, keyspace.OpAlarm, alarm), func(consensus.Result) {})
	}
	return keyspace.ErrNoSpace
}

// proposed is one wait for a proposal; pooled, since every write needs one.
type proposed struct{ result chan consensus.Result }

var waits = sync.Pool{New: func() any { return &proposed{result: make(chan consensus.Result, 1)} }}

// propose puts a command into the segment's log and waits for its apply.
func (d *Dispatcher) propose(ctx context.Context, desc *anchormesh.Descriptor, command []byte) consensus.Result {
	w := waits.Get().(*proposed)
	d.engine.Propose(desc.Segment, desc.Generation, command, func(r consensus.Result) { w.result <- r })
	select {
	case res := <-w.result:
		waits.Put(w)
		return res
	case <-ctx.Done():
		// The result may still come: w is left to it.
		return consensus.Result{Err: ctx.Err()}
	}
}

// readLocal reads from the replica here.
func (d *Dispatcher) readLocal(ctx context.Context, r *host.Replica, desc *anchormesh.Descriptor, call *etcdapi.Call) (codec.Chunks, error) {
	if call.Serializable {
		d.host.CatchUp(ctx, r)
	} else {
		if err := d.readIndex(ctx, desc.Segment); err != nil {
			return nil, err
		}
		// What was applied while the read waited may have moved the range away.
		if now := r.Machine.Descriptor(); now.Generation != desc.Generation {
			return nil, retry(etcdapi.ErrNotAnchor)
		}
	}
	status, ok := d.engine.Status(desc.Segment)
	if !ok {
		return nil, retry(consensus.ErrNoGroup)
	}
	answer, err := d.read(ctx, r, status.Term, call)
	if err == nil {
		r.Meter.Read(call.Keys.Start, answer.Size())
	}
	return answer, err
}

func (d *Dispatcher) read(ctx context.Context, r *host.Replica, term uint64, call *etcdapi.Call) (codec.Chunks, error) {
	space := r.Machine.Space()
	switch call.Method {
	case etcdapi.MethodRange:
		return space.Range(ctx, &call.Range, term)
	case etcdapi.MethodTxn:
		var req codec.TxnRequest
		if err := codec.ParseTxn(call.Raw(), &req); err != nil {
			return nil, err
		}
		return space.ReadTxn(ctx, &req, term)
	case etcdapi.MethodAlarm:
		var req codec.AlarmRequest
		if err := codec.ParseAlarm(call.Raw(), &req); err != nil {
			return nil, err
		}
		return codec.Chunks{codec.AppendAlarmResponse(nil, space.Header(term), space.Alarms(req.Alarm))}, nil
	}
	panic("dispatch: " + call.Method.String() + " is not a read")
}

// readIndex waits until a read of the replica here is linearizable.
func (d *Dispatcher) readIndex(ctx context.Context, segment anchormesh.SegmentID) error {
	done := make(chan error, 1)
	d.engine.ReadIndex(segment, func(_ uint64, err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return retry(err)
		}
		return nil
	case <-ctx.Done():
		return gaveUp(ctx, etcdapi.ErrNoLeader)
	}
}

// opOf names the command of a writing method.
func opOf(m etcdapi.Method) keyspace.Op {
	switch m {
	case etcdapi.MethodPut:
		return keyspace.OpPut
	case etcdapi.MethodDeleteRange:
		return keyspace.OpDeleteRange
	case etcdapi.MethodTxn:
		return keyspace.OpTxn
	case etcdapi.MethodCompact:
		return keyspace.OpCompact
	case etcdapi.MethodLeaseGrant:
		return keyspace.OpLeaseGrant
	case etcdapi.MethodLeaseRevoke:
		return keyspace.OpLeaseRevoke
	case etcdapi.MethodAlarm:
		return keyspace.OpAlarm
	}
	panic("dispatch: " + m.String() + " is not a write")
}
