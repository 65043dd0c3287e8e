package consensus

import (
	"slices"
	"testing"
	"testing/synctest"
)

// What is left in a mailbox wakes nobody, comes with what does, in order, and is not lost
// at the end.
func TestWhatIsLeftComesAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMailbox[[]int]()
		var got [][]int
		done := make(chan struct{})
		go func() {
			defer close(done)
			for b := m.take(new([]int)); b != nil; b = m.take(new([]int)) {
				got = append(got, *b)
			}
		}()
		add := func(n int) func(*[]int) { return func(b *[]int) { *b = append(*b, n) } }
		m.leave(add(1))
		m.leave(add(2))
		synctest.Wait()
		if len(got) > 0 {
			t.Errorf("it woke the receiver: %v", got)
		}
		m.put(add(3))
		synctest.Wait()
		m.leave(add(4))
		m.put(add(5))
		synctest.Wait()
		m.leave(add(6))
		m.close()
		<-done
		if m.leave(add(7)) || !slices.EqualFunc(got, [][]int{{1, 2, 3}, {4, 5}, {6}}, slices.Equal) {
			t.Errorf("it came as %v", got)
		}
	})
}
