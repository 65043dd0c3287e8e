package wal

import (
	"errors"
	"fmt"
	"io"

	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/internal/frame"
)

// recovery reads the files of a log back into its index.
type recovery struct {
	log   *Log
	win   window
	rec   record
	files []*logFile

	seq       uint64   // of the last whole frame; 0: none seen
	floor     uint64   // first needed file, as that frame says
	confirmed uint64   // the last frame that a whole one says was synced
	lost      int      // whole frames that were cut off behind a torn one
	open      []placed // the whole frames after that, which may be in the kernel's memory only
	first     struct {
		file int // index in files of the first whole frame
		seq  uint64
	}
	last int // index in files of the last whole frame
}

// placed is a frame in a file.
type placed struct {
	seq        uint64
	file       *logFile
	off, bytes int64
}

// run replays all files, judges how the log ends, and makes what it found
// durable. Nothing of the log may be used before that: what a crashed process
// left may be in the kernel's memory only.
func (r *recovery) run() error {
	l := r.log
	r.files = l.files
	r.floor = uint64(r.files[0].num())
	for i, f := range r.files {
		if err := r.replay(i, f); err != nil {
			return err
		}
	}
	if err := r.checkBeginning(); err != nil {
		return err
	}
	if err := r.settleEnd(); err != nil {
		return err
	}
	if err := r.checkGroups(); err != nil {
		return err
	}
	l.seq, l.floor, l.recorded = r.seq, uint32(r.floor), uint32(r.floor)
	l.stated, l.lost = l.floor, r.lost > 0
	l.tail.restart(r.seq)
	r.chooseActive()
	return nil
}

// replay applies the whole frames of a file up to the first that is not.
func (r *recovery) replay(i int, f *logFile) error {
	r.win.reset(f)
	for {
		h, payload, err := r.win.frame(f.end)
		if err != nil || payload == nil {
			return err
		}
		if r.seq == 0 {
			r.first.file, r.first.seq = i, h.Seq
		} else if h.Seq != r.seq+1 {
			return r.outOfOrder(i, f, h)
		}
		if err := r.applyFrame(f, payload); err != nil {
			return err
		}
		size := int64(frame.Padded(h.Length))
		r.note(h, placed{seq: h.Seq, file: f, off: f.end, bytes: frame.HeaderBytes + int64(h.Length)})
		r.last = i
		f.end += size
	}
}

// note takes a whole frame on the list of those that may not be synced.
func (r *recovery) note(h frame.Header, at placed) {
	m := parseMark(h.Mark)
	r.seq, r.floor = h.Seq, uint64(m.floor)
	r.confirmed = max(r.confirmed, m.confirms(h.Seq))
	known := 0
	for known < len(r.open) && r.open[known].seq <= r.confirmed {
		known++
	}
	r.open = append(r.open[known:], at)
}

// outOfOrder blames the place where the missing frame should be: a frame was
// begun only after the one before it was confirmed by the disk.
func (r *recovery) outOfOrder(i int, f *logFile, h frame.Header) error {
	at := f
	if f.end == fileHeaderBytes && h.Seq > r.seq && i > 0 {
		at = r.files[r.last]
	}
	return &CorruptError{File: at.name, Offset: at.end,
		Reason: fmt.Sprintf("batch %d is due, but %s goes on with batch %d", r.seq+1, f.name, h.Seq)}
}

func (r *recovery) applyFrame(f *logFile, payload []byte) error {
	d := decoder{b: payload}
	for d.left() > 0 {
		at := d.off
		err := d.record(&r.rec)
		base := uint32(f.end + frame.HeaderBytes)
		for i := range r.rec.refs {
			r.rec.refs[i].off += base
		}
		if err == nil && !r.log.apply(r.log.Group(r.rec.group), &r.rec, f) {
			err = fmt.Errorf("a record of group %v contradicts the ones before", r.rec.group)
		}
		if err != nil {
			return &CorruptError{File: f.name, Offset: f.end + frame.HeaderBytes + int64(at), Reason: err.Error()}
		}
	}
	return nil
}

// checkBeginning refuses a log that lacks its first files or batches. The newest
// frame tells which file is the first needed; older ones may be there still.
func (r *recovery) checkBeginning() error {
	front, end := r.files[0], r.files[len(r.files)-1]
	const none = "it has no whole batch, though it should"
	switch {
	case r.seq == 0 && front.num() > 1:
		return &CorruptError{File: front.name, Offset: fileHeaderBytes, Reason: none}
	case r.seq != 0 && r.first.seq != 1 && r.floor < uint64(r.files[r.first.file].num()) && r.first.file > 0:
		return &CorruptError{File: front.name, Offset: fileHeaderBytes, Reason: none}
	case r.floor < uint64(front.num()):
		return &CorruptError{File: fileName(r.log.dir, uint32(r.floor)), Reason: "the file is missing"}
	case r.floor > uint64(end.num()):
		return &CorruptError{File: end.name, Reason: fmt.Sprintf("file %d is the first needed, but it is missing", r.floor)}
	}
	return nil
}

// settleEnd judges what stands behind the last whole frame, cuts a torn one and
// writes the last frame again.
func (r *recovery) settleEnd() error {
	for i := r.last; i < len(r.files); i++ {
		f := r.files[i]
		tail, err := r.win.tail(f)
		if err != nil {
			return err
		}
		at, lost, ok := proof(f, tail, r.seq+1)
		r.lost += lost
		if ok {
			blame := r.files[r.last]
			return &CorruptError{File: blame.name, Offset: blame.end,
				Reason: fmt.Sprintf("batch %d is due, but a later one, behind its sync, stands in %s at offset %d", r.seq+1, f.name, at)}
		}
		switch v := frame.Judge(tail, f.seed, f.end, r.seq+1); v {
		case frame.End:
		case frame.Torn:
			if err := cutTail(f, tail); err != nil {
				return err
			}
		default:
			if overtaken(f, tail, r.seq+1) {
				if err := cutTail(f, tail); err != nil {
					return err
				}
				continue
			}
			return &CorruptError{File: f.name, Offset: f.end, Reason: fmt.Sprintf("batch %d was changed after it was written", r.seq+1)}
		}
	}
	return r.confirmLast()
}

// proof looks in what follows the last whole frame of a log, which the frame numbered
// due should, for one that was written after that was synced. Later frames that say no
// such thing were lost together with it: lost counts them, and none of them was
// confirmed.
func proof(f *logFile, tail []byte, due uint64) (at int64, lost int, found bool) {
	for from := f.end; ; from = at + frame.Align {
		at, found = frame.Later(tail[from-f.end:], f.seed, from, due)
		if !found {
			return 0, lost, false
		}
		h, _ := frame.ParseHeader(tail[at-f.end:], f.seed, at)
		if parseMark(h.Mark).confirms(h.Seq) >= due {
			return at, lost, true
		}
		lost++
	}
}

// overtaken reports whether the frame that is due was written while the one before was
// being synced: the disk may have taken a sector of it half written then.
func overtaken(f *logFile, tail []byte, due uint64) bool {
	h, ok := frame.ParseHeader(tail, f.seed, f.end)
	return ok && h.Seq == due && parseMark(h.Mark).unsynced > 0
}

// cutTail puts zeros over what is left of a batch that was never confirmed.
func cutTail(f *logFile, tail []byte) error {
	end := len(tail)
	for end > 0 && tail[end-1] == 0 {
		end--
	}
	failpoint.Hit("wal/before-cut")
	if _, err := f.f.WriteAt(make([]byte, end), f.end); err != nil {
		return fmt.Errorf("cutting a torn batch off %s: %w", f.name, err)
	}
	if err := f.f.Datasync(); err != nil {
		return fmt.Errorf("cutting a torn batch off %s: %w", f.name, err)
	}
	return nil
}

// confirmLast makes the newest batches durable, those that may not be. They are
// written again, because a sync that failed in the process before leaves pages
// that look clean and are not on disk; syncing alone would say all is well.
func (r *recovery) confirmLast() error {
	for _, p := range r.open {
		b := make([]byte, p.bytes)
		if _, err := p.file.f.ReadAt(b, p.off); err != nil {
			return fmt.Errorf("reading a batch at the end of %s: %w", p.file.name, err)
		}
		failpoint.Hit("wal/before-confirm")
		if _, err := p.file.f.WriteAt(b, p.off); err != nil {
			return fmt.Errorf("writing a batch at the end of %s again: %w", p.file.name, err)
		}
	}
	if len(r.open) == 0 {
		return nil
	}
	f := r.open[len(r.open)-1].file
	if err := f.f.Datasync(); err != nil {
		return fmt.Errorf("syncing %s: %w", f.name, err)
	}
	return nil
}

// chooseActive lets the log go on behind its last frame, or in the file after
// that if there are two: a crash came between beginning a file and its first
// batch.
func (r *recovery) chooseActive() {
	l := r.log
	ahead := len(r.files) - 1 - r.last
	if ahead == 0 {
		return
	}
	l.spare.file = r.files[len(r.files)-1]
	l.files = r.files[:len(r.files)-1]
}

// checkGroups refuses an index with holes: every entry between a group's mark
// and its last must have been found.
func (r *recovery) checkGroups() error {
	for _, g := range r.log.groups {
		for i := range g.refs {
			if g.refs[i].file == 0 {
				return &CorruptError{File: r.files[0].name, Offset: fileHeaderBytes,
					Reason: fmt.Sprintf("entry %d of group %v is in no file", g.head.mark.Index+1+uint64(i), g.id)}
			}
		}
	}
	return nil
}

const windowBytes = 1 << 20 // read ahead while a file is replayed

// window reads a file front to back in large pieces.
type window struct {
	f     *logFile
	buf   []byte // holds the file from start on
	start int64
}

func (w *window) reset(f *logFile) { w.f, w.buf, w.start = f, w.buf[:0], 0 }

// bytes returns n bytes of the file from off on, valid until the next call; nil
// if the file is too short.
func (w *window) bytes(off, n int64) ([]byte, error) {
	if off+n > w.f.header.size {
		return nil, nil
	}
	if off < w.start || off+n > w.start+int64(len(w.buf)) {
		size := min(max(n, windowBytes), w.f.header.size-off)
		if int64(cap(w.buf)) < size {
			w.buf = make([]byte, size)
		}
		w.buf, w.start = w.buf[:size], off
		if _, err := w.f.f.ReadAt(w.buf, off); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading %s at offset %d: %w", w.f.name, off, err)
		}
	}
	return w.buf[off-w.start:][:n], nil
}

// frame returns the frame at off; a nil payload if no whole one stands there.
func (w *window) frame(off int64) (frame.Header, []byte, error) {
	b, err := w.bytes(off, frame.HeaderBytes)
	if err != nil || b == nil {
		return frame.Header{}, nil, err
	}
	h, ok := frame.ParseHeader(b, w.f.seed, off)
	if !ok {
		return frame.Header{}, nil, nil
	}
	b, err = w.bytes(off, int64(frame.HeaderBytes+h.Length))
	if err != nil || b == nil || !h.Matches(b[frame.HeaderBytes:]) {
		return frame.Header{}, nil, err
	}
	return h, b[frame.HeaderBytes:], nil
}

// tail returns everything from the end of f's whole frames on.
func (w *window) tail(f *logFile) ([]byte, error) {
	w.f, w.start = f, 0
	w.buf = make([]byte, f.header.size-f.end)
	if len(w.buf) == 0 {
		return nil, nil
	}
	if _, err := f.f.ReadAt(w.buf, f.end); err != nil {
		return nil, fmt.Errorf("reading %s at offset %d: %w", f.name, f.end, err)
	}
	w.start = f.end
	return w.buf, nil
}
