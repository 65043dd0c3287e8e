package traffic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/check"
)

const (
	ttlMin, ttlMax   = 3, 8 // seconds
	livesMax         = 20 * time.Second
	revokedOutOf     = 3 // one of so many leases is revoked, the others are left to expire
	keepAlivesPerTTL = 3
)

// runLeases takes one lease after the other until ctx ends: grant, attach a key,
// keep alive for a while, then revoke or forget it. A lease that was granted without
// our knowing expires unnoticed, and so does one that perhaps has no key: it is not
// written down.
func (w *worker) runLeases(ctx context.Context) {
	for ctx.Err() == nil {
		w.oneLease(ctx)
		w.pause(ctx, time.Second)
	}
}

func (w *worker) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (w *worker) oneLease(ctx context.Context) {
	granted, ok := w.grant(ctx)
	if !ok {
		return
	}
	id := clientv3.LeaseID(granted.ID)
	key := fmt.Sprintf("%slease/%d/%d", w.cfg.Prefix, w.id, w.seq)
	res := w.ask(ctx, "put-lease", check.Request{Kind: check.Put, Key: key, Value: w.value(), Lease: int64(id)})
	if res == nil {
		return
	}
	w.rec.lease(granted)
	if res.NoLease {
		w.rec.lease(check.Lease{What: check.Expire, ID: granted.ID, At: int64(w.rec.now())})
		return
	}
	until := time.Now().Add(time.Duration(w.rng.Int64N(int64(livesMax))))
	for time.Now().Before(until) && ctx.Err() == nil {
		w.pause(ctx, time.Duration(granted.TTL)*time.Second/keepAlivesPerTTL)
		if !w.keepAlive(ctx, id) {
			return
		}
	}
	if w.rng.IntN(revokedOutOf) == 0 {
		w.revoke(ctx, id)
	}
}

func (w *worker) grant(ctx context.Context) (granted check.Lease, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	sent := w.rec.now()
	resp, err := w.client.Grant(ctx, int64(ttlMin+w.rng.IntN(ttlMax-ttlMin+1)))
	w.rec.note("grant", judge(err), err)
	if err != nil {
		return granted, false
	}
	return check.Lease{What: check.Grant, ID: int64(resp.ID), TTL: resp.TTL, Sent: int64(sent), At: int64(w.rec.now())}, true
}

// keepAlive renews a lease; false means that it has ended. No answer is no promise,
// and the lease is tried again.
func (w *worker) keepAlive(ctx context.Context, id clientv3.LeaseID) bool {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	sent := w.rec.now()
	resp, err := w.client.KeepAliveOnce(ctx, id)
	w.rec.note("keep-alive", judge(err), err)
	if err != nil {
		return !errors.Is(err, rpctypes.ErrLeaseNotFound)
	}
	w.rec.lease(check.Lease{What: check.Renew, ID: int64(id), TTL: resp.TTL, Sent: int64(sent), At: int64(w.rec.now())})
	return true
}

// revoke ends a lease. From when it was sent the lease may end at any time, and
// promises nothing more.
func (w *worker) revoke(ctx context.Context, id clientv3.LeaseID) {
	sent := w.rec.now()
	res := w.ask(ctx, "revoke", check.Request{Kind: check.Revoke, Lease: int64(id)})
	w.rec.lease(check.Lease{What: check.Revoke, ID: int64(id), Sent: int64(sent), At: int64(sent)})
	if res != nil && !res.NoLease {
		w.rec.lease(check.Lease{What: check.Revoke, ID: int64(id), Sent: int64(sent), At: int64(w.rec.now())})
	}
}
