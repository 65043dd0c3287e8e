package traffic

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/anchormesh/anchormesh/testnet/check"
)

func TestJudgeTrustsOnlyRefusals(t *testing.T) {
	for err, want := range map[error]outcome{
		nil:                             answered,
		context.DeadlineExceeded:        unknown,
		rpctypes.ErrTimeout:             unknown,
		rpctypes.ErrNoLeader:            unknown,
		rpctypes.ErrStopped:             unknown,
		rpctypes.ErrLeaderChanged:       unknown,
		errors.New("connection lost"):   unknown,
		rpctypes.ErrNoSpace:             refused,
		rpctypes.ErrCompacted:           refused,
		rpctypes.ErrGRPCNoSpace:         refused,
		rpctypes.ErrRequestTooLarge:     refused,
		rpctypes.ErrGRPCRequestTooLarge: refused,
	} {
		if got := judge(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

func TestNumberAndGroup(t *testing.T) {
	for text, want := range map[string]int{"": 0, "7 3.1": 7, "-2 1.9": -2, "12": 12} {
		if got := Number(text); got != want {
			t.Errorf("Number(%q) is %d, want %d", text, got, want)
		}
	}
	if got := Group("t/reg/4/1"); got != "t/reg/4/" {
		t.Errorf("group is %q", got)
	}
}

func TestGroupsAreThoseThatWereWritten(t *testing.T) {
	r := newRecorder(time.Now())
	r.op(check.Op{Request: check.Request{Kind: check.Put, Key: "t/reg/0/1"}})
	r.op(check.Op{Request: check.Request{Kind: check.Txn, Then: []check.Request{{Kind: check.Put, Key: "t/bank/0/1"}}}})
	r.op(check.Op{Request: check.Request{Kind: check.Revoke, Lease: 1}})
	w := &worker{rec: r}
	if got := w.groups(); !slices.Equal(got, []string{"t/bank/0/", "t/reg/0/"}) {
		t.Errorf("groups are %v", got)
	}
}

func TestConfigValidate(t *testing.T) {
	good := Default()
	good.Endpoints, good.Names, good.Prefix = []string{"e"}, []string{"n"}, "t/"
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Endpoints = nil }, func(c *Config) { c.Prefix = "t" }, func(c *Config) { c.Rate = 0 },
		func(c *Config) { c.Timeout = 0 }, func(c *Config) { c.Probe = 0 },
	} {
		c := good
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
