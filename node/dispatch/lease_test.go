package dispatch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/node/etcdapi"
)

// The answer to a revoke names a revision at which the keys are gone: while the line's
// home has no leader it waits, and it never names what the node happens to have.
func TestARevokeWaitsForItsRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		at, err := insist(t.Context(), func(context.Context) (anchormesh.Revision, error) {
			if asked++; asked < 4 {
				return 0, retry(etcdapi.ErrNoLeader)
			}
			return 9, nil
		})
		if at != 9 || err != nil || asked != 4 {
			t.Errorf("revision %d, %v, asked %d times", at, err, asked)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = insist(ctx, func(context.Context) (anchormesh.Revision, error) { return 0, retry(etcdapi.ErrNoLeader) })
		if !errors.Is(err, etcdapi.ErrTimeoutLeaderFail) {
			t.Errorf("without a leader for its whole time: %v", err)
		}
		_, err = insist(t.Context(), func(context.Context) (anchormesh.Revision, error) { return 0, etcdapi.ErrStopped })
		if !errors.Is(err, etcdapi.ErrStopped) {
			t.Errorf("on a node that stops: %v", err)
		}
	})
}
