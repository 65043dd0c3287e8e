package watch

// Response is what a stream tells its client about one watch.
type Response struct {
	ID int64 // the watch; StreamID where it speaks for all of the stream
	// Revision is, for events, the revision of the last one; for Created, the
	// current revision; for Progress and Mark, the revision up to which everything
	// was sent; for Canceled by Hub.Stop or Hub.Bound, the revision up to which
	// everything was sent, so that the watch can go on elsewhere from Revision+1.
	Revision int64
	Events   []*Event
	Bytes    int // encoded size of Events
	// CompactRevision is set on a Canceled response: what the watch needed next is
	// below it and gone.
	CompactRevision int64
	Reason          error // why the hub cancelled the watch, if not by compaction
	Created         bool
	Canceled        bool
	Progress        bool
	Mark            bool // what Stream.Mark asked for; no client sees it
	PrevKV          bool // which form of the events the watch asked for
	Fragment        bool // the watch allows its responses to be cut
}

// StreamID is the ID of a progress response that speaks for all watches.
const StreamID int64 = -1

// responseOverhead is what a queued response counts beyond its events.
const responseOverhead = 128

// outbox is what waits to be read from a stream: responses in order. The owner
// serialises access.
type outbox struct {
	entries  []*entry
	head     int // entries before it were read
	bytes    int // events waiting, with overheads
	creates  int // Created responses waiting
	limit    int // no revision is admitted at or above it
	respSize int // a response of this size takes no further revision
	seals    int // counts stream-level progress responses
}

// entry is one waiting response. While it waits, further revisions of its watch
// may join it.
type entry struct {
	Response
	w     *watch
	seals int
	first [1]*Event // room for the usual single event
}

// admits reports whether a revision may begin.
func (b *outbox) admits() bool { return b.bytes < b.limit }

// drained reports that enough was read to let lagging watches go on.
func (b *outbox) drained() bool { return b.bytes <= b.limit/2 }

// add queues an event for w. It is false if the outbox is full; then nothing of
// this revision was queued. All events of a revision follow each other, so the
// decision falls at the first.
func (b *outbox) add(w *watch, ev *Event) bool {
	e := w.open
	if e != nil && e.Mark {
		e = nil
	}
	if e == nil || e.Revision != ev.rev {
		if !b.admits() {
			return false
		}
		if e == nil || e.seals != b.seals || e.Bytes >= b.respSize {
			e = &entry{w: w, seals: b.seals}
			e.ID, e.PrevKV, e.Fragment = w.id, w.has(wantPrevKV), w.has(wantFragment)
			e.Events = e.first[:0]
			w.open = e
			b.push(e)
		}
		e.Revision = ev.rev
	}
	size := len(ev.Field(e.PrevKV))
	e.Events = append(e.Events, ev)
	e.Bytes += size
	b.bytes += size + eventOverhead
	return true
}

// control queues a response without events; it is admitted always.
func (b *outbox) control(w *watch, r Response) {
	if w != nil {
		w.open = nil
	}
	if r.Created {
		b.creates++
	}
	if n := len(b.entries); r.ID == StreamID && r.Progress {
		if n > b.head && b.entries[n-1].Progress && b.entries[n-1].ID == StreamID {
			b.entries[n-1].Revision = r.Revision
			return
		}
		b.seals++
	}
	b.push(&entry{Response: r, w: w})
}

// mark queues a mark for w. One that is still unread behind the last event says
// the new revision instead, so there is at most one mark per response with events.
func (b *outbox) mark(w *watch, rev int64) {
	if w.open != nil && w.open.Mark {
		w.open.Revision = max(w.open.Revision, rev)
		return
	}
	w.open = &entry{Response: Response{ID: w.id, Revision: rev, Mark: true}, w: w}
	b.push(w.open)
}

func (b *outbox) push(e *entry) {
	b.bytes += responseOverhead
	b.entries = append(b.entries, e)
}

// pop removes the first response.
func (b *outbox) pop() (Response, bool) {
	if b.head == len(b.entries) {
		return Response{}, false
	}
	e := b.entries[b.head]
	b.entries[b.head] = nil
	b.head++
	switch {
	case b.head == len(b.entries):
		b.entries, b.head = b.entries[:0], 0
		if cap(b.entries) > keepEntries {
			b.entries = nil
		}
	case b.head >= keepEntries && b.head*2 >= len(b.entries):
		n := copy(b.entries, b.entries[b.head:])
		clear(b.entries[n:])
		b.entries, b.head = b.entries[:n], 0
	}
	if e.w != nil && e.w.open == e {
		e.w.open = nil
	}
	if e.Created {
		b.creates--
	}
	b.bytes -= responseOverhead + e.Bytes + len(e.Events)*eventOverhead
	return e.Response, true
}

// keepEntries is the length of queue that is kept for reuse.
const keepEntries = 64
