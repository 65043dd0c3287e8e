package traffic

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh/testnet/check"
)

// dial returns a client that notices within seconds that a node does not answer.
func dial(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		DialTimeout:          2 * time.Second,
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
		Logger:               zap.NewNop(),
	})
}

// outcome is what a client knows of a request.
type outcome int

const (
	answered outcome = iota
	unknown          // it may have taken effect, or do so later
	refused          // it has not, and will not
)

// refusals are answers that say that nothing happened and nothing will.
var refusals = []error{
	rpctypes.ErrNoSpace, rpctypes.ErrRequestTooLarge, rpctypes.ErrCompacted, rpctypes.ErrFutureRev,
	rpctypes.ErrEmptyKey, rpctypes.ErrDuplicateKey, rpctypes.ErrTooManyOps,
}

func judge(err error) outcome {
	if err == nil {
		return answered
	}
	err = rpctypes.Error(err) // etcd's own errors, whichever way they come
	for _, r := range refusals {
		if errors.Is(err, r) {
			return refused
		}
	}
	if strings.HasPrefix(status.Convert(err).Message(), ruled) {
		return refused
	}
	return unknown
}

// ruled is how a scope's rule answers what it refuses.
const ruled = "etcdserver: rule "

// retryable reports whether etcd, too, answers so while it has no leader, is
// overloaded or goes away, or the client gave up by itself. A lease that is gone is an
// answer: whether it may be is another checker's question.
func retryable(err error) bool {
	if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		return true
	}
	var known rpctypes.EtcdError
	code := status.Code(err)
	if errors.As(rpctypes.Error(err), &known) {
		code = known.Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		return true
	}
	return false
}

// do carries a request out. etcd's "requested lease not found" is an answer.
func do(ctx context.Context, c *clientv3.Client, r *check.Request) (*check.Result, error) {
	res, err := send(ctx, c, r)
	if err != nil && errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return &check.Result{NoLease: true}, nil
	}
	return res, err
}

func send(ctx context.Context, c *clientv3.Client, r *check.Request) (*check.Result, error) {
	switch r.Kind {
	case check.Revoke:
		resp, err := c.Revoke(ctx, clientv3.LeaseID(r.Lease))
		if err != nil {
			return nil, err
		}
		return &check.Result{Rev: resp.Header.Revision}, nil
	case check.Txn:
		resp, err := c.Txn(ctx).If(compares(r.If)...).Then(ops(r.Then)...).Else(ops(r.Else)...).Commit()
		if err != nil {
			return nil, err
		}
		return txnResult(resp), nil
	}
	resp, err := c.Do(ctx, op(r))
	if err != nil {
		return nil, err
	}
	return opResult(resp), nil
}

func op(r *check.Request) clientv3.Op {
	var opts []clientv3.OpOption
	if r.End != "" {
		opts = append(opts, clientv3.WithRange(r.End))
	}
	if r.Prev {
		opts = append(opts, clientv3.WithPrevKV())
	}
	switch r.Kind {
	case check.Put:
		if r.Lease != 0 {
			opts = append(opts, clientv3.WithLease(clientv3.LeaseID(r.Lease)))
		}
		return clientv3.OpPut(r.Key, r.Value, opts...)
	case check.Delete:
		return clientv3.OpDelete(r.Key, opts...)
	}
	if r.Serializable {
		opts = append(opts, clientv3.WithSerializable())
	}
	return clientv3.OpGet(r.Key, append(opts, clientv3.WithRev(r.Rev), clientv3.WithLimit(r.Limit))...)
}

func ops(rs []check.Request) []clientv3.Op {
	var out []clientv3.Op
	for i := range rs {
		out = append(out, op(&rs[i]))
	}
	return out
}

// compares knows what this package asks for: equal modification revisions.
func compares(cs []check.Compare) []clientv3.Cmp {
	var out []clientv3.Cmp
	for _, c := range cs {
		out = append(out, clientv3.Compare(clientv3.ModRevision(c.Key), c.Result, c.Int))
	}
	return out
}

func opResult(resp clientv3.OpResponse) *check.Result {
	switch {
	case resp.Put() != nil:
		out := &check.Result{Rev: resp.Put().Header.Revision}
		if kv := resp.Put().PrevKv; kv != nil {
			out.KVs = []check.KV{version(kv)}
		}
		return out
	case resp.Del() != nil:
		return &check.Result{Rev: resp.Del().Header.Revision, Count: resp.Del().Deleted, KVs: versions(resp.Del().PrevKvs)}
	}
	return &check.Result{Rev: resp.Get().Header.Revision, Count: resp.Get().Count, KVs: versions(resp.Get().Kvs)}
}

func txnResult(resp *clientv3.TxnResponse) *check.Result {
	out := &check.Result{Rev: resp.Header.Revision, Succeeded: resp.Succeeded}
	for _, sub := range resp.Responses {
		if get := sub.GetResponseRange(); get != nil {
			out.Sub = append(out.Sub, check.Result{Rev: resp.Header.Revision, Count: get.Count, KVs: versions(get.Kvs)})
		} else {
			out.Sub = append(out.Sub, check.Result{Rev: resp.Header.Revision})
		}
	}
	return out
}

func version(kv *mvccpb.KeyValue) check.KV {
	return check.KV{Key: string(kv.Key), Value: string(kv.Value), Create: kv.CreateRevision, Mod: kv.ModRevision, Version: kv.Version, Lease: kv.Lease}
}

func versions(kvs []*mvccpb.KeyValue) []check.KV {
	var out []check.KV
	for _, kv := range kvs {
		out = append(out, version(kv))
	}
	return out
}
