package etcdapi

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/rules"
)

var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

// wireErrors is every error that can leave this package: each sentinel of a
// backend, and what the checks answer themselves (whose sentinel is the answer).
var wireErrors = []struct {
	name string
	err  error
	want error // nil: no counterpart in etcd
}{
	{"ErrCompacted", ErrCompacted, rpctypes.ErrGRPCCompacted},
	{"ErrFutureRevision", ErrFutureRevision, rpctypes.ErrGRPCFutureRev},
	{"ErrKeyNotFound", ErrKeyNotFound, rpctypes.ErrGRPCKeyNotFound},
	{"ErrLeaseNotFound", ErrLeaseNotFound, rpctypes.ErrGRPCLeaseNotFound},
	{"ErrLeaseExists", ErrLeaseExists, rpctypes.ErrGRPCLeaseExist},
	{"ErrLeaseTTLTooLarge", ErrLeaseTTLTooLarge, rpctypes.ErrGRPCLeaseTTLTooLarge},
	{"ErrTooLarge", ErrTooLarge, rpctypes.ErrGRPCRequestTooLarge},
	{"ErrNoSpace", ErrNoSpace, rpctypes.ErrGRPCNoSpace},
	{"keyspace.ErrScopeFull", keyspace.ErrScopeFull, rpctypes.ErrGRPCNoSpace},
	{"a rule about the writer", &rules.Refusal{Scope: "/s", Rule: "writers", Key: "/s/k", Reason: "the writer is not known", Denied: true}, nil},
	{"a rule about the write", &rules.Refusal{Scope: "/s", Rule: "create_only", Key: "/s/\xff", Reason: "it exists"}, nil},
	{"ErrTooManyRequests", ErrTooManyRequests, rpctypes.ErrGRPCRequestTooManyRequests},
	{"ErrCorrupt", ErrCorrupt, rpctypes.ErrGRPCCorrupt},
	{"ErrNoLeader", ErrNoLeader, rpctypes.ErrGRPCNoLeader},
	{"ErrNotLeader", ErrNotLeader, rpctypes.ErrGRPCNotLeader},
	{"ErrLeaderChanged", ErrLeaderChanged, rpctypes.ErrGRPCLeaderChanged},
	{"ErrBadTransferee", ErrBadTransferee, rpctypes.ErrGRPCBadLeaderTransferee},
	{"ErrTimeoutTransfer", ErrTimeoutTransfer, nil},
	{"ErrUnhealthy", ErrUnhealthy, rpctypes.ErrGRPCUnhealthy},
	{"ErrStopped", ErrStopped, rpctypes.ErrGRPCStopped},
	{"ErrTimeout", ErrTimeout, rpctypes.ErrGRPCTimeout},
	{"ErrTimeoutLeaderFail", ErrTimeoutLeaderFail, rpctypes.ErrGRPCTimeoutDueToLeaderFail},
	{"ErrTimeoutConnectionLost", ErrTimeoutConnectionLost, rpctypes.ErrGRPCTimeoutDueToConnectionLost},
	{"ErrTimeoutApply", ErrTimeoutApply, rpctypes.ErrGRPCTimeoutWaitAppliedIndex},
	{"ErrCanceled", ErrCanceled, rpctypes.ErrGRPCCanceled},
	{"ErrLightTxn", ErrLightTxn, nil},
	{"ErrNotAnchor", ErrNotAnchor, nil},
	{"context.Canceled", context.Canceled, nil},
	{"context.DeadlineExceeded", context.DeadlineExceeded, nil},
	{"check: empty key", rpctypes.ErrGRPCEmptyKey, rpctypes.ErrGRPCEmptyKey},
	{"check: sort option", rpctypes.ErrGRPCInvalidSortOption, rpctypes.ErrGRPCInvalidSortOption},
	{"check: value provided", rpctypes.ErrGRPCValueProvided, rpctypes.ErrGRPCValueProvided},
	{"check: lease provided", rpctypes.ErrGRPCLeaseProvided, rpctypes.ErrGRPCLeaseProvided},
	{"check: too many operations", rpctypes.ErrGRPCTooManyOps, rpctypes.ErrGRPCTooManyOps},
	{"check: duplicate key", rpctypes.ErrGRPCDuplicateKey, rpctypes.ErrGRPCDuplicateKey},
	{"check: client version", rpctypes.ErrGRPCInvalidClientAPIVersion, rpctypes.ErrGRPCInvalidClientAPIVersion},
	{"watch: canceled", rpctypes.ErrGRPCWatchCanceled, rpctypes.ErrGRPCWatchCanceled},
	{"auth: not enabled", rpctypes.ErrGRPCAuthNotEnabled, rpctypes.ErrGRPCAuthNotEnabled},
}

// Texts and codes are API. The golden file holds them, so that neither a change
// here nor one of a dependency goes unseen.
func TestErrorsOnTheWire(t *testing.T) {
	var b strings.Builder
	covered := 0
	for _, e := range wireErrors {
		st := Status(fmt.Errorf("node 3: %w", fmt.Errorf("segment 1: %w", e.err)))
		fmt.Fprintf(&b, "%-28s %-18s %s\n", e.name, st.Code(), st.Message())
		if e.want != nil && st.String() != status.Convert(e.want).String() {
			t.Errorf("%s is %v on the wire, want %v", e.name, st, e.want)
		}
		for _, a := range answers {
			if a.is == e.err {
				covered++
			}
		}
	}
	if covered != len(answers) {
		t.Errorf("%d of %d sentinels are tested", covered, len(answers))
	}
	golden(t, "testdata/errors", b.String())
}

func golden(t *testing.T, path, have string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(path, []byte(have), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if have != string(want) {
		t.Errorf("%s differs; have:\n%s", path, have)
	}
}

func TestStatusOfForeignErrors(t *testing.T) {
	if st := Status(errors.New("disk on fire")); st.Code() != codes.Unknown || st.Message() != "disk on fire" {
		t.Errorf("an unknown error: %v", st)
	}
	far := status.Error(codes.ResourceExhausted, "told by another node")
	if st := Status(fmt.Errorf("forwarded: %w", far)); st.Code() != codes.ResourceExhausted || st.Message() != "told by another node" {
		t.Errorf("a wrapped status: %v", st)
	}
	if Status(nil) != nil || toWire(nil) != nil {
		t.Error("no error has a status")
	}
}

func TestSettle(t *testing.T) {
	alive := context.Background()
	gone, cancel := context.WithCancel(alive)
	cancel()
	late, cancel := context.WithTimeout(alive, 0)
	defer cancel()
	<-late.Done()
	for _, c := range []struct {
		name   string
		client context.Context
		write  bool
		err    error
		want   error
	}{
		{"write, client gone", gone, true, context.Canceled, ErrCanceled},
		{"write, client late", late, true, context.DeadlineExceeded, ErrTimeout},
		{"write, server late", alive, true, context.DeadlineExceeded, ErrTimeout},
		{"read, client gone", gone, false, context.Canceled, context.Canceled},
		{"read, client late", late, false, context.DeadlineExceeded, context.DeadlineExceeded},
		{"read, server late", alive, false, context.DeadlineExceeded, ErrTimeout},
		{"other", gone, true, ErrNoLeader, ErrNoLeader},
	} {
		if got := settle(c.client, c.write, fmt.Errorf("while waiting: %w", c.err)); !errors.Is(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
