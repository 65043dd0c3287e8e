package scopes

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// Config of the stores.
type Config struct {
	// CommitInterval is the time between commits. Longer costs less and makes
	// a restart replay more.
	CommitInterval time.Duration
	// ScrubBudget bounds the keys that one step of physical compaction visits.
	ScrubBudget int
	Store       mvcc.Options
	// Committed hears of every commit that wrote something.
	Committed func(took time.Duration)
	// Failed hears that a store cannot be written. The process must end before
	// it returns; nil, or if it returns: panic.
	Failed func(error)
}

// DefaultConfig returns measured values.
func DefaultConfig() Config {
	return Config{CommitInterval: time.Second, ScrubBudget: 4096, Store: mvcc.DefaultOptions(), Committed: func(time.Duration) {}}
}

// Stores are the opened stores of a node.
type Stores struct {
	cfg  Config
	path func(prefix []byte) string

	mu     sync.Mutex
	open   map[string]*mvcc.Store
	stop   context.CancelFunc
	ctx    context.Context
	ending sync.WaitGroup
}

// New returns an empty set; path says where a scope's file is.
func New(cfg Config, path func(prefix []byte) string) *Stores {
	ctx, stop := context.WithCancel(context.Background())
	return &Stores{cfg: cfg, path: path, open: make(map[string]*mvcc.Store), ctx: ctx, stop: stop}
}

// Open returns a scope's store, opening or creating its file.
func (s *Stores) Open(prefix []byte) (*mvcc.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if store := s.open[string(prefix)]; store != nil {
		return store, nil
	}
	path := s.path(prefix)
	backend, err := bolt.OpenFile(bolt.DefaultFileConfig(path))
	if err != nil {
		return nil, err
	}
	store, err := mvcc.Open(backend, s.cfg.Store)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", path, err), backend.Close())
	}
	s.open[string(prefix)] = store
	s.ending.Go(func() { s.commitLoop(path, store) })
	return store, nil
}

// Each calls f for every open store.
func (s *Stores) Each(f func(*mvcc.Store)) {
	s.mu.Lock()
	list := make([]*mvcc.Store, 0, len(s.open))
	for _, store := range s.open {
		list = append(list, store)
	}
	s.mu.Unlock()
	for _, store := range list {
		f(store)
	}
}

// Close commits and closes every store. Nothing may be applied any more.
func (s *Stores) Close() error {
	s.stop()
	s.ending.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, store := range s.open {
		errs = append(errs, store.Commit(), store.Close())
	}
	s.open = nil
	return errors.Join(errs...)
}

func (s *Stores) commitLoop(path string, store *mvcc.Store) {
	ticker := time.NewTicker(s.cfg.CommitInterval)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		case <-store.Wanted():
		}
		s.commit(path, store)
	}
}

func (s *Stores) commit(path string, store *mvcc.Store) {
	if store.Pending() > 0 {
		begin := time.Now()
		if err := store.Commit(); err != nil {
			s.failed(fmt.Errorf("store %s cannot be committed: %w", path, err))
		}
		s.cfg.Committed(time.Since(begin))
	}
	if _, err := store.Scrub(s.cfg.ScrubBudget); err != nil {
		s.failed(fmt.Errorf("store %s cannot be compacted: %w", path, err))
	}
}

func (s *Stores) failed(err error) {
	if s.cfg.Failed != nil {
		s.cfg.Failed(err)
	}
	panic("scopes: " + err.Error())
}
