package proofs

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

// Method is the mesh call of this package.
const Method = 9

const (
	interval    = time.Second
	callTimeout = 2 * time.Second
	callsAtOnce = 8
	// allEvery is how often all replicas are looked at: one that was installed anew is not
	// told of as changed.
	allEvery = 10 * time.Second
	// saveWait is how long a change waits for company before it is written.
	saveWait = 3 * time.Second
	// The file is written whole: with thousands of segments that takes a while, and is
	// followed by a rest so many times as long, of saveMost at most. What a crash takes is
	// gathered again.
	saveShare = 50
	saveMost  = 30 * time.Second

	// refused is the code of failed answers; the text says why.
	refused = 1
)

// Check reports whether a proof holds for an entry behind another one, nil if nothing
// is known of it, by the keys that node IDs hold.
func Check(before *lineage.Entry, p *lineage.Proof) error {
	key := Key{Verify: wire.SignedBy}
	return key.Check(before, p)
}

// Caller asks other nodes; mesh.Mesh is one.
type Caller interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
}

// Replicas tells of the replicas on this node.
type Replicas interface {
	Segments() []anchormesh.SegmentID // sorted
	Lineage(segment anchormesh.SegmentID) (Replica, bool)
}

// Config of a keeper.
type Config struct {
	Key    Key
	Files  fsys.FS
	Dir    string // where the file is
	Logger *slog.Logger
}

// Keeper is the shell of a Core. One goroutine, in Run, notes and asks.
type Keeper struct {
	cfg      Config
	replicas Replicas
	caller   Caller

	mu   sync.Mutex
	core *Core
	old  []*lineage.Proof       // from the file, until their lineages were noted
	here []anchormesh.SegmentID // held at the last look at all, which was
	all  time.Time

	news    sync.Mutex // never held for long, unlike mu
	changed []anchormesh.SegmentID

	kick  chan struct{}
	saved uint64 // the core's changes that the file has
	// saving is how long the last writing of it took.
	saving time.Duration
	last   time.Time
}

// New returns a keeper with what its file holds.
func New(cfg Config, r Replicas, c Caller) *Keeper {
	k := &Keeper{cfg: cfg, replicas: r, caller: c, core: NewCore(cfg.Key), kick: make(chan struct{}, 1)}
	old, err := load(cfg.Files, cfg.Dir)
	if err != nil {
		cfg.Logger.Warn("kept proofs cannot be read, and are gathered again", "err", err)
	}
	k.old = old
	return k
}

// Changed tells that the lineage of a replica here has changed. It does not wait for the
// keeper to look.
func (k *Keeper) Changed(segment anchormesh.SegmentID) {
	k.news.Lock()
	k.changed = append(k.changed, segment)
	k.news.Unlock()
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Run gathers until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		k.step(ctx)
		select {
		case <-ctx.Done():
			k.save(time.Now(), 0)
			return nil
		case <-ticker.C:
		case <-k.kick:
		}
	}
}

// saveAfter is how long to wait with the file after it was written, which took so long.
func saveAfter(took time.Duration) time.Duration { return max(saveWait, min(saveShare*took, saveMost)) }

func (k *Keeper) step(ctx context.Context) {
	now := time.Now()
	k.mu.Lock()
	k.note(now)
	asks := k.core.Due(now)
	k.mu.Unlock()
	k.ask(ctx, asks)
	k.save(now, saveAfter(k.saving))
}

// note brings the core up to date with the replicas here: those that changed, and all
// where others are held than before. The caller holds mu.
func (k *Keeper) note(now time.Time) {
	here := k.replicas.Segments()
	k.news.Lock()
	changed := k.changed
	k.changed = nil
	k.news.Unlock()
	all := now.Sub(k.all) >= allEvery
	switch {
	case all:
		changed, k.all = here, now
	case !slices.Equal(here, k.here):
		for _, id := range here {
			if _, before := slices.BinarySearch(k.here, id); !before {
				changed = append(changed, id)
			}
		}
	}
	if !slices.Equal(here, k.here) {
		for _, id := range k.core.Segments() {
			if _, found := slices.BinarySearch(here, id); !found {
				k.core.Drop(id)
			}
		}
		k.here = here
	}
	for _, id := range changed {
		if r, ok := k.replicas.Lineage(id); ok {
			k.core.Note(now, r)
		}
	}
	for _, p := range k.old {
		k.core.Known(p)
	}
	k.old = nil
}

func (k *Keeper) ask(ctx context.Context, asks []Ask) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var calls sync.WaitGroup
	slots := make(chan struct{}, callsAtOnce)
	for _, a := range asks {
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			k.question(ctx, a)
		})
	}
	calls.Wait()
}

func (k *Keeper) question(ctx context.Context, a Ask) {
	answer, err := k.caller.Call(ctx, a.To, Method, a.Request)
	if err != nil {
		k.cfg.Logger.Debug("no signature", "of", a.To.Short(), "entry", a.Hash, "err", err)
		return
	}
	k.mu.Lock()
	err = k.core.Take(a.Hash, answer)
	k.mu.Unlock()
	if err != nil {
		k.cfg.Logger.Warn("malformed proof", "from", a.To.Short(), "err", err)
	}
}

// Serve answers a question; it is the mesh's call handler.
func (k *Keeper) Serve(from anchormesh.NodeID, payload []byte, to mesh.Responder) {
	segment, entry, own, err := ParseRequest(payload)
	if err != nil {
		to.Fail(refused, err.Error())
		return
	}
	answer, err := k.answer(from, segment, entry, own)
	if err != nil {
		to.Fail(refused, err.Error())
		return
	}
	to.Reply(answer)
}

// answer looks again if the entry is not known: it may have been applied just now.
func (k *Keeper) answer(from anchormesh.NodeID, segment anchormesh.SegmentID, entry anchormesh.Hash, own []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.core.Offer(from, entry, own)
	answer, err := k.core.Answer(entry)
	if !errors.Is(err, ErrUnknown) {
		return answer, err
	}
	if r, ok := k.replicas.Lineage(segment); ok {
		k.core.Note(time.Now(), r)
		k.core.Offer(from, entry, own)
	}
	return k.core.Answer(entry)
}

// Proof returns the proof kept for an entry; nil if it is not complete yet.
func (k *Keeper) Proof(entry anchormesh.Hash) *lineage.Proof {
	k.mu.Lock()
	defer k.mu.Unlock()
	kept := k.core.kept[entry]
	if kept == nil {
		return nil
	}
	p, err := lineage.DecodeProof(kept)
	if err != nil {
		panic("proofs: a proof that was kept cannot be read: " + err.Error())
	}
	return p
}

// Of returns the encoded proofs kept for a segment's lineage, oldest first.
// They must not be modified.
func (k *Keeper) Of(segment anchormesh.SegmentID) [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.core.Of(segment)
}
