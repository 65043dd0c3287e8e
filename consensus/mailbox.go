package consensus

import "sync"

// mailbox hands everything that gathered to one goroutine at once. T is a
// bundle that both sides reuse: the receiver gives an emptied one for a full
// one, so that nothing is allocated in the steady state.
type mailbox[T any] struct {
	mu     sync.Mutex
	full   *T
	used   bool
	left   bool // something is there that does not wake the receiver
	closed bool
	wake   chan struct{}
}

func newMailbox[T any]() *mailbox[T] {
	return &mailbox[T]{full: new(T), wake: make(chan struct{}, 1)}
}

// put lets f add to the bundle. It reports false when the mailbox is closed.
func (m *mailbox[T]) put(f func(*T)) bool {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return false
	}
	f(m.full)
	first := !m.used
	m.used = true
	m.mu.Unlock()
	if first {
		m.wake <- struct{}{} // never blocks: one token per bundle
	}
	return true
}

// leave is put for what can wait: it comes with the next bundle, or the last.
func (m *mailbox[T]) leave(f func(*T)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	f(m.full)
	m.left = true
	return true
}

// take waits for a bundle and leaves an empty one. It returns nil when the
// mailbox is closed and empty.
func (m *mailbox[T]) take(empty *T) *T {
	<-m.wake
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.used && !m.left {
		return nil
	}
	full := m.full
	m.full, m.used, m.left = empty, false, false
	if m.closed {
		m.wake <- struct{}{}
	}
	return full
}

// close lets the receiver end after what has gathered; later puts are refused.
func (m *mailbox[T]) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.closed = true
	if !m.used {
		m.wake <- struct{}{}
	}
}
