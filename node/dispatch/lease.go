package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/host"
)

// openTries is how often a write opens its leases in its segments: a segment may be
// split, or a lease end, between the opening and the write.
const openTries = 3

// openLeases opens the leases that a write names in the segments of its keys, and
// reports whether that may have helped: a lease that its home does not know was not
// found for good.
func (d *Dispatcher) openLeases(ctx context.Context, call *etcdapi.Call) bool {
	opened := false
	for key, id := range leasesOf(call) {
		desc, ok := d.table.Lookup([]byte(key))
		if !ok || len(desc.Range.Start) == 0 { // the leases' home
			continue
		}
		if err := d.leases.OpenLease(ctx, id, desc.Range); err != nil {
			return false
		}
		opened = true
	}
	return opened
}

// leasesOf returns the keys that a write hangs on leases.
func leasesOf(call *etcdapi.Call) map[string]int64 {
	out := make(map[string]int64)
	switch call.Method {
	case etcdapi.MethodPut:
		var r codec.PutRequest
		if codec.ParsePut(call.Raw(), &r) == nil && r.Lease != 0 {
			out[string(r.Key)] = r.Lease
		}
	case etcdapi.MethodTxn:
		var r codec.TxnRequest
		if codec.ParseTxn(call.Raw(), &r) == nil {
			putsOf(&r, out)
		}
	}
	return out
}

func putsOf(r *codec.TxnRequest, out map[string]int64) {
	for _, ops := range [][]codec.RequestOp{r.Success, r.Failure} {
		for i := range ops {
			switch op := &ops[i]; {
			case op.Txn != nil:
				putsOf(op.Txn, out)
			case op.Put.Lease != 0:
				out[string(op.Put.Key)] = op.Put.Lease
			}
		}
	}
}

// ends reports whether a call ends a lease of a scope that was split: many commands
// in many segments.
func ends(r *host.Replica, call *etcdapi.Call) bool {
	return call.Method == etcdapi.MethodLeaseRevoke && r.Machine.State().Line != 0
}

func (d *Dispatcher) endLease(ctx context.Context, r *host.Replica, desc *anchormesh.Descriptor, call *etcdapi.Call) (codec.Chunks, error) {
	id, err := codec.ParseLeaseID(call.Raw())
	if err != nil {
		return nil, err
	}
	if err := d.leases.EndLease(ctx, r, id); err != nil {
		return nil, err
	}
	at, err := insist(ctx, func(ctx context.Context) (anchormesh.Revision, error) { return d.now(ctx, desc.Line) })
	if err != nil {
		return nil, err
	}
	return codec.Chunks{codec.AppendHeader(nil, 1, d.header(desc, at))}, nil
}

// insist asks for the newest revision until it is told, or ctx ends. What was asked for is done, in other segments
// too, so any smaller revision would be one at which it does not show.
func insist(ctx context.Context, now func(context.Context) (anchormesh.Revision, error)) (anchormesh.Revision, error) {
	for {
		at, err := now(ctx)
		if !errors.Is(err, errRetry) {
			return at, err
		}
		timer := time.NewTimer(retryWait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, gaveUp(ctx, err)
		}
	}
}
