package wal

import (
	"fmt"

	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/internal/frame"
)

// recovery reads the files of a log back into its index.
type recovery struct {
	log   *Log
	win   window
	rec   record
	files []*logFile

	seq   uint64 // of the last whole frame; 0: none seen
	floor uint64 // first needed file, as that frame says
	first struct {
		file int // index in files of the first whole frame
		seq  uint64
	}
	last struct {
		file       int
		off, bytes int64
	}
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
		r.seq, r.floor = h.Seq, h.Mark
		r.last.file, r.last.off, r.last.bytes = i, f.end, frame.HeaderBytes+int64(h.Length)
		f.end += size
	}
}

// outOfOrder blames the place where the missing frame should be: a frame was
// begun only after the one before it was confirmed by the disk.
func (r *recovery) outOfOrder(i int, f *logFile, h frame.Header) error {
	at := f
	if f.end == fileHeaderBytes && h.Seq > r.seq && i > 0 {
		at = r.files[r.last.file]
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
	for i := r.last.file; i < len(r.files); i++ {
		f := r.files[i]
		tail, err := r.win.tail(f)
		if err != nil {
			return err
		}
		if at, ok := frame.Later(tail, f.seed, f.end, r.seq+1); ok {
			blame := r.files[r.last.file]
			return &CorruptError{File: blame.name, Offset: blame.end,
				Reason: fmt.Sprintf("batch %d is due, but a later one stands in %s at offset %d", r.seq+1, f.name, at)}
		}
		switch v := frame.Judge(tail, f.seed, f.end, r.seq+1); v {
		case frame.End:
		case frame.Torn:
			if err := cutTail(f, tail); err != nil {
				return err
			}
		default:
			return &CorruptError{File: f.name, Offset: f.end, Reason: fmt.Sprintf("batch %d was changed after it was written", r.seq+1)}
		}
	}
	return r.confirmLast()
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

// confirmLast makes the last batch durable, the only one that may not be. It is
// written again, because a sync that failed in the process before leaves pages
// that look clean and are not on disk; syncing alone would say all is well.
func (r *recovery) confirmLast() error {
	f := r.files[r.last.file]
	if r.seq == 0 {
		return nil
	}
	b := make([]byte, r.last.bytes)
	if _, err := f.f.ReadAt(b, r.last.off); err != nil {
		return fmt.Errorf("reading the last batch of %s: %w", f.name, err)
	}
	failpoint.Hit("wal/before-confirm")
	if _, err := f.f.WriteAt(b, r.last.off); err != nil {
		return fmt.Errorf("writing the last batch of %s again: %w", f.name, err)
	}
	if err := f.f.Datasync(); err != nil {
		return fmt.Errorf("syncing the last batch of %s: %w", f.name, err)
	}
	return nil
}

// chooseActive lets the log go on behind its last frame, or in the file after
// that if there are two: a crash came between beginning a file and its first
// batch.
func (r *recovery) chooseActive() {
	l := r.log
	ahead := len(r.files) - 1 - r.last.file
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
