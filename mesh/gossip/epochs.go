package gossip

import "sync/atomic"

// MemoryEpochs are epochs that end with the process: for tests and for nodes
// whose identity does, too.
type MemoryEpochs struct{ last atomic.Uint64 }

// Next implements Epochs.
func (m *MemoryEpochs) Next(atLeast uint64) (uint64, error) {
	for {
		last := m.last.Load()
		next := max(last+1, atLeast)
		if m.last.CompareAndSwap(last, next) {
			return next, nil
		}
	}
}
