package consensus_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
)

// gate is a disk whose syncs can be held up.
type gate struct {
	*wal.Log
	mu *sync.RWMutex // locked: no sync returns
}

func newLock() *sync.RWMutex { return new(sync.RWMutex) }

func (g gate) Sync() error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.Log.Sync()
}

// gated starts three nodes with a light group 1 and a normal group 2 whose disks wait for
// one lock.
func gated(t *testing.T) ([]*member, *net, *sync.RWMutex) {
	disk := new(sync.RWMutex)
	n := newNet()
	members := make([]*member, nodes)
	for i := range members {
		members[i] = startOn(t, n, t.TempDir(), i, 2, func(l *wal.Log) consensus.Log { return gate{Log: l, mu: disk} })
	}
	return members, n, disk
}

// begin proposes and returns where the end is told.
func begin(ctx context.Context, members []*member, id anchormesh.SegmentID, line string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- propose(ctx, members, id, line) }()
	return done
}

func ended(c <-chan error) bool { return len(c) > 0 }

// TestALightGroupDoesNotWaitForTheDisk: light and normal groups share one log. While no
// disk syncs, the light one goes on; the normal one, what a light one has to keep, and
// what comes behind that, do not.
func TestALightGroupDoesNotWaitForTheDisk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	members, n, disk := gated(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(propose(ctx, members, 1, "opens"))
	must(propose(ctx, members, 2, "first"))
	// One more each, so that nobody's first is still on its way to a follower's disk.
	must(propose(ctx, members, 1, "opens too"))
	must(propose(ctx, members, 2, "second"))
	for _, m := range members {
		m.settled(t)
		if !m.log.Group(1).Memory() || m.log.Group(2).Memory() {
			t.Fatalf("%s: acknowledged from memory: light %v, normal %v", m.id, m.log.Group(1).Memory(), m.log.Group(2).Memory())
		}
	}

	disk.Lock()
	normal := begin(ctx, members, 2, "waits")
	for k := range 50 {
		must(propose(ctx, members, 1, fmt.Sprint("light ", k)))
	}
	kept := begin(ctx, members, 1, "kept")
	members[0].reaches(ctx, t, 1, 1+1+2+50+1) // it is in the log, in front of what comes now
	behind := begin(ctx, members, 1, "behind")
	must(ctx.Err())
	if ended(normal) || ended(kept) || ended(behind) {
		t.Fatalf("acknowledged without a sync: normal %v, kept %v, behind it %v", ended(normal), ended(kept), ended(behind))
	}
	disk.Unlock()
	must(<-normal)
	must(<-kept)
	must(<-behind)
	lines := converge(ctx, t, members, 1)
	if i, j := slices.Index(lines, "kept"), slices.Index(lines, "behind"); len(lines) != 54 || i > j {
		t.Errorf("the light group has %d lines, kept at %d, behind at %d", len(lines), i, j)
	}
	for _, m := range members {
		m.stop(t, n)
	}
}

// settled waits until all that was handed to the log is carried out.
func (m *member) settled(t *testing.T) {
	t.Helper()
	done := make(chan struct{})
	m.engine.SetLight(99, false, func() { close(done) }) // of no group: behind everything
	<-done
}

// reaches waits until a group's log has an entry.
func (m *member) reaches(ctx context.Context, t *testing.T, id anchormesh.SegmentID, index uint64) {
	t.Helper()
	for {
		if last, _ := m.log.Group(id).LastIndex(); last >= index {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the log of %s never reached %d", m.id, index)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestAGroupThatIsLightNoMoreWaits: from the switch on its acknowledgements mean disk, and
// the switch is told as done when all before it is there, too.
func TestAGroupThatIsLightNoMoreWaits(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	members, n, disk := gated(t)
	for k := range 3 {
		if err := propose(ctx, members, 1, fmt.Sprint("opens ", k)); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range members {
		m.settled(t)
	}
	disk.Lock()
	if err := propose(ctx, members, 1, "light"); err != nil {
		t.Fatal(err)
	}
	hard := make(chan struct{}, nodes)
	for _, m := range members {
		m.engine.SetLight(1, false, func() { hard <- struct{}{} })
	}
	later := begin(ctx, members, 1, "waits")
	light := begin(ctx, members, 2, "waits as well")
	members[0].reaches(ctx, t, 1, 1+1+3+1+1)
	if len(hard) > 0 || ended(later) || ended(light) {
		t.Fatalf("without a sync: %d of the replicas say that they are on disk, acknowledged: %v, %v", len(hard), ended(later), ended(light))
	}
	disk.Unlock()
	for range members {
		<-hard
	}
	if err := <-later; err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if m.log.Group(1).Memory() {
			t.Errorf("%s: its log says that it acknowledges from memory", m.id)
		}
		m.stop(t, n)
	}
}

// TestACleanStopLeavesNothingInMemory: the log says so.
func TestACleanStopLeavesNothingInMemory(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	n := newNet()
	members, dirs := make([]*member, nodes), make([]string, nodes)
	shell := func(l *wal.Log) consensus.Log { return struct{ consensus.Log }{l} }
	for i := range members {
		dirs[i] = t.TempDir()
		members[i] = startOn(t, n, dirs[i], i, 2, shell)
	}
	for k := range 5 {
		if err := propose(ctx, members, 1, fmt.Sprint(k)); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range members {
		m.settled(t)
		if !m.log.Group(1).Memory() {
			t.Errorf("%s never acknowledged from memory", m.id)
		}
		m.stop(t, n)
		again := startOn(t, n, dirs[i], i, 2, shell)
		if again.log.Group(1).Memory() {
			t.Errorf("%s: its log says after a clean stop that something may be gone", m.id)
		}
		members[i] = again
	}
	if err := propose(ctx, members, 1, "after"); err != nil {
		t.Fatal(err)
	}
	if lines := converge(ctx, t, members, 1); len(lines) != 6 {
		t.Errorf("%d lines after the restart", len(lines))
	}
	for _, m := range members {
		m.stop(t, n)
	}
}

// TestALogBeginsWithoutTheDisk: a new group starts while no disk syncs, and acknowledges
// nothing until one does.
func TestALogBeginsWithoutTheDisk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	members, n, disk := gated(t)
	const born anchormesh.SegmentID = 3
	disk.Lock()
	for i, m := range members {
		if err := m.engine.BeginLog(born, wal.Mark{Index: 1, Term: 1}); err != nil {
			t.Fatal(err)
		}
		if first, err := m.log.Group(born).FirstIndex(); err != nil || first != 2 {
			t.Fatalf("%s: the log begins at %d, %v", m.id, first, err)
		}
		m.run(t, consensus.GroupSpec{Segment: born, Replica: anchormesh.ReplicaID(i + 1), Campaign: i == 0})
	}
	first := begin(ctx, members, born, "first")
	for st, _ := members[0].engine.Status(born); st.Term < 2; st, _ = members[0].engine.Status(born) {
		select { // until it asks for votes
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatal("nobody stood for election")
		}
	}
	for _, m := range members {
		m.engine.Progress(born) // behind what it was told
	}
	if st, _ := members[0].engine.Status(born); st.Leads() || ended(first) {
		t.Errorf("without a sync: leads %v, acknowledged %v", st.Leads(), ended(first))
	}
	disk.Unlock()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		m.stop(t, n)
	}
}
