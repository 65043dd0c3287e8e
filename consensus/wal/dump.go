package wal

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/frame"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"go.etcd.io/raft/v3/raftpb"
)

// Dump writes what is in a log file, or in all log files of a directory, as
// lines for a reader, up to the first damage of each file. It changes nothing
// and takes no lock; of a log in use it may show the newest batch as torn. It
// returns a CorruptError, ErrForeign or ErrNewer if a file is not as it should
// be, after having written what could be read.
func Dump(fs fsys.FS, path string, w io.Writer) error {
	b := bufio.NewWriter(w)
	err := dump(fs, path, func(line any) { fmt.Fprintln(b, line) })
	return errors.Join(err, b.Flush())
}

// DumpJSON is Dump with one JSON object per line.
func DumpJSON(fs fsys.FS, path string, w io.Writer) error {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(b)
	err := dump(fs, path, func(line any) { enc.Encode(line) })
	return errors.Join(err, b.Flush())
}

type dumpFile struct {
	File    string `json:"file"`
	Number  uint32 `json:"number"`
	Version int    `json:"version"`
	Bytes   int64  `json:"bytes"`
	Log     string `json:"log"`
}

func (d dumpFile) String() string {
	return fmt.Sprintf("%s: file %d of log %s, format %d, %d bytes", d.File, d.Number, d.Log, d.Version, d.Bytes)
}

type dumpBatch struct {
	Offset int64  `json:"offset"`
	Batch  uint64 `json:"batch"`
	Bytes  int    `json:"bytes"`
	Floor  uint32 `json:"first_needed_file"`
	// Unsynced is how many batches before this one were not known to be synced then.
	Unsynced uint32 `json:"unsynced,omitempty"`
}

func (d dumpBatch) String() string {
	s := fmt.Sprintf("%10d batch %d, %d bytes, first needed file %d", d.Offset, d.Batch, d.Bytes, d.Floor)
	if d.Unsynced > 0 {
		s += fmt.Sprintf(", %d before it not synced", d.Unsynced)
	}
	return s
}

type dumpRecord struct {
	Group     string `json:"group"`
	HasState  bool   `json:"has_hard_state"`
	Term      uint64 `json:"term"`
	Vote      uint64 `json:"vote"`
	Commit    uint64 `json:"commit"`
	MarkIndex uint64 `json:"mark_index"`
	MarkTerm  uint64 `json:"mark_term"`
	First     uint64 `json:"first,omitempty"`
	Last      uint64 `json:"last,omitempty"`
	FirstTerm uint64 `json:"first_term,omitempty"`
	LastTerm  uint64 `json:"last_term,omitempty"`
	DataBytes uint64 `json:"data_bytes,omitempty"`
	Memory    bool   `json:"memory,omitempty"`
	Restart   bool   `json:"restart,omitempty"`
	Carried   bool   `json:"carried,omitempty"`
	Removed   bool   `json:"removed,omitempty"`
}

func (d dumpRecord) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "           group %s", d.Group)
	if d.Removed {
		return b.String() + ": removed"
	}
	if d.HasState {
		fmt.Fprintf(&b, ": term %d, vote %d, commit %d", d.Term, d.Vote, d.Commit)
	} else {
		b.WriteString(": no hard state")
	}
	fmt.Fprintf(&b, "; begins behind %d (term %d)", d.MarkIndex, d.MarkTerm)
	if d.Restart {
		b.WriteString(" anew")
	}
	if d.First > 0 {
		fmt.Fprintf(&b, "; entries %d to %d (terms %d to %d), %d bytes", d.First, d.Last, d.FirstTerm, d.LastTerm, d.DataBytes)
	}
	if d.Memory {
		b.WriteString(", acknowledged from memory")
	}
	if d.Carried {
		b.WriteString(", carried")
	}
	return b.String()
}

type dumpEnd struct {
	Offset  int64  `json:"offset"`
	End     string `json:"end"`
	Batches int    `json:"batches"`
	Note    string `json:"note,omitempty"`
}

func (d dumpEnd) String() string {
	s := fmt.Sprintf("%10d %s, %d batches", d.Offset, d.End, d.Batches)
	if d.Note != "" {
		s += ": " + d.Note
	}
	return s
}

type dumpError struct {
	Error string `json:"error"`
}

func (d dumpError) String() string { return "error: " + d.Error }

func dump(fs fsys.FS, path string, emit func(any)) error {
	names, err := fs.List(path)
	if err != nil {
		err = dumpOne(fs, path, emit)
		if err != nil && !errors.Is(err, ErrForeign) { // of what is no log there is nothing to show
			emit(dumpError{err.Error()})
		}
		return err
	}
	var errs []error
	for _, base := range names {
		if !strings.HasSuffix(base, fileSuffix) {
			continue
		}
		if err := dumpOne(fs, filepath.Join(path, base), emit); err != nil {
			emit(dumpError{err.Error()})
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func dumpOne(fs fsys.FS, name string, emit func(any)) error {
	f, err := openFile(fs, name, false)
	if err != nil {
		return err
	}
	defer f.release()
	emit(dumpFile{name, f.num(), formatVersion, f.header.size, fmt.Sprintf("%x", f.header.id)})
	var win window
	win.reset(f)
	seq, batches := uint64(0), 0
	for {
		h, payload, err := win.frame(f.end)
		if err != nil {
			return err
		}
		if payload == nil || seq != 0 && h.Seq != seq+1 {
			break
		}
		m := parseMark(h.Mark)
		emit(dumpBatch{f.end, h.Seq, h.Length, m.floor, m.unsynced})
		if err := dumpRecords(f, payload, emit); err != nil {
			return err
		}
		seq, batches = h.Seq, batches+1
		f.end += int64(frame.Padded(h.Length))
	}
	return dumpTail(&win, f, seq, batches, emit)
}

func dumpRecords(f *logFile, payload []byte, emit func(any)) error {
	d, r := decoder{b: payload}, record{}
	for d.left() > 0 {
		at := d.off
		if err := d.record(&r); err != nil {
			return &CorruptError{File: f.name, Offset: f.end + frame.HeaderBytes + int64(at), Reason: err.Error()}
		}
		h := r.head
		line := dumpRecord{
			Group: r.group.String(), HasState: h.hasState, Term: h.term, Vote: h.vote, Commit: h.commit,
			MarkIndex: h.mark.Index, MarkTerm: h.mark.Term,
			Memory: h.memory, Restart: r.is(flagRestart), Carried: r.is(flagCarried), Removed: r.is(flagRemove),
		}
		if n := len(r.refs); n > 0 {
			line.First, line.Last = r.first, r.first+uint64(n)-1
			line.FirstTerm, line.LastTerm = r.refs[0].term, r.refs[n-1].term
			for i := range r.refs {
				line.DataBytes += uint64(r.refs[i].size)
			}
		}
		emit(line)
	}
	return nil
}

// dumpTail says how the file ends. Whether a torn batch was confirmed only the
// files after this one can prove; Open looks there.
func dumpTail(win *window, f *logFile, seq uint64, batches int, emit func(any)) error {
	tail, err := win.tail(f)
	if err != nil {
		return err
	}
	v := frame.Judge(tail, f.seed, f.end, seq+1)
	end := dumpEnd{Offset: f.end, End: v.String(), Batches: batches}
	if v == frame.Torn {
		end.Note = "its writing was cut short; the next start removes it"
	}
	at, lost, ok := proof(f, tail, seq+1)
	if lost > 0 {
		end.Note = fmt.Sprintf("it and %d batches behind it were not synced; the next start removes them", lost)
	}
	if ok && v != frame.End {
		v, end.End, end.Note = frame.Damaged, frame.Damaged.String(), fmt.Sprintf("a later batch stands at offset %d", at)
	}
	emit(end)
	if v == frame.Damaged {
		return &CorruptError{File: f.name, Offset: f.end, Reason: "a batch was changed after it was written"}
	}
	return nil
}

// Scanned is one record of a log file: what one batch says of one group.
type Scanned struct {
	Group  anchormesh.SegmentID
	Commit uint64 // of the group's hard state; 0: it has none
	Mark   Mark   // the group's log begins behind it
	// Restart: the group's log was emptied first. Carried: the entries were written before
	// and moved here. Removed: the group is gone.
	Restart, Carried, Removed bool
	Entries                   []*raftpb.Entry
}

// Scan calls f with every record in the files of a log directory, in the order in which
// they were written, those that the log has let go of too, as long as their file is
// there. Like Dump it changes nothing, takes no lock, and ends at the first damage of
// each file, or at f's first error.
func Scan(fs fsys.FS, dir string, f func(*Scanned) error) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, base := range names {
		if !strings.HasSuffix(base, fileSuffix) {
			continue
		}
		errs = append(errs, scanFile(fs, filepath.Join(dir, base), f))
	}
	return errors.Join(errs...)
}

func scanFile(fs fsys.FS, name string, f func(*Scanned) error) error {
	file, err := openFile(fs, name, false)
	if err != nil {
		return err
	}
	defer file.release()
	var win window
	win.reset(file)
	for seq := uint64(0); ; {
		h, payload, err := win.frame(file.end)
		if err != nil {
			return err
		}
		if payload == nil || seq != 0 && h.Seq != seq+1 {
			return nil
		}
		if err := scanRecords(file, payload, f); err != nil {
			return err
		}
		seq = h.Seq
		file.end += int64(frame.Padded(h.Length))
	}
}

func scanRecords(file *logFile, payload []byte, f func(*Scanned) error) error {
	d, r := decoder{b: payload}, record{}
	for d.left() > 0 {
		at := d.off
		if err := d.record(&r); err != nil {
			return &CorruptError{File: file.name, Offset: file.end + frame.HeaderBytes + int64(at), Reason: err.Error()}
		}
		out := &Scanned{
			Group: r.group, Commit: r.head.commit, Mark: r.head.mark,
			Restart: r.is(flagRestart), Carried: r.is(flagCarried), Removed: r.is(flagRemove),
		}
		for i := range r.refs {
			e := &r.refs[i]
			b := append([]byte(nil), payload[e.off:int(e.off)+e.diskBytes()]...) // the window is used again
			out.Entries = append(out.Entries, decodeEntry(&loaded{}, b, r.first+uint64(i), e))
		}
		if err := f(out); err != nil {
			return err
		}
	}
	return nil
}
