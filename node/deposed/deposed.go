// Package deposed ends calls to a leader that leads no more. One that was cut off or stopped
// answers nothing, and its connections hold for seconds: as long would everything wait that
// was asked of it, though the others elected another one long ago. A replica here hears of
// that; where there is none, calls wait for their timeouts.
package deposed

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh"
)

// patience is how long a call may be unanswered before it is asked whether
// its node still leads, and patienceStep the time between two such questions. One that
// hands its leadership over answers what it has taken in within that time.
const (
	patience     = 250 * time.Millisecond
	patienceStep = 100 * time.Millisecond
)

// Err is in the error of a call that While ended, beside mesh.ErrUnknownOutcome: the group
// here follows another leader than the one that was asked.
var Err = errors.New("the leader that was asked leads no more")

// watch ends a call to a node when that has led no more for patience.
type watch struct {
	node   anchormesh.NodeID
	leader func() anchormesh.NodeID
	cancel context.CancelCauseFunc

	mu     sync.Mutex
	timer  *time.Timer
	others int // looks in a row that found another leader
}

// While returns a context that ends with Err when the replica here, if there is
// one, has followed another leader than a node for patience. stop must be called.
func While(ctx context.Context, node anchormesh.NodeID, leader func() anchormesh.NodeID) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	w := &watch{node: node, leader: leader, cancel: cancel}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(patience, w.look)
	return watched, w.stop
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch now := w.leader(); {
	case now == "" || now == w.node:
		w.others = 0
	case w.others >= int(patience/patienceStep):
		w.cancel(Err)
		return
	default:
		w.others++
	}
	if w.timer != nil {
		w.timer.Reset(patienceStep)
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.timer = nil
	w.cancel(nil)
}

// Error is how a call ended under a context of While.
func Error(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), Err) {
		return errors.Join(mesh.ErrUnknownOutcome, Err)
	}
	return err
}
