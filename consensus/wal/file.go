package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/anchormesh/anchormesh/internal/frame"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

// These define the stored format.
const (
	formatVersion   = 1
	fileHeaderBytes = frame.SectorBytes // alone in its sector: never written again
	fileMagic       = "ANCHWAL\n"
	fileSuffix      = ".wal"
	tmpSuffix       = ".tmp"
	lockName        = "LOCK"
	headerSumOffset = 48
)

// fillBytes is written between two syncs while a file is filled with zeros, so
// that the fill does not flood the disk's queue before the batches behind it.
const fillBytes = 2 << 20

// logID is drawn when a log is created and stands in all its files.
type logID [16]byte

// fileHeader is the first sector of a file:
//
//	 0  magic "ANCHWAL\n"
//	 8  u32  format version
//	12  u32  zero
//	16  u64  number of the file
//	24  u64  size of the file in bytes
//	32  16 bytes  ID of the log
//	48  u32  CRC-32C of the above; also the seed of the file's frames
type fileHeader struct {
	num  uint32
	size int64
	id   logID
}

func (h *fileHeader) encode() []byte {
	b := make([]byte, fileHeaderBytes)
	copy(b, fileMagic)
	binary.LittleEndian.PutUint32(b[8:], formatVersion)
	binary.LittleEndian.PutUint64(b[16:], uint64(h.num))
	binary.LittleEndian.PutUint64(b[24:], uint64(h.size))
	copy(b[32:], h.id[:])
	binary.LittleEndian.PutUint32(b[headerSumOffset:], h.seed())
	return b
}

func (h *fileHeader) seed() uint32 {
	b := make([]byte, 0, headerSumOffset)
	b = append(b, fileMagic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.num))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.size))
	return frame.Checksum(0, append(b, h.id[:]...))
}

// parseHeader reads the first sector of the file called name.
func parseHeader(name string, b []byte) (*fileHeader, error) {
	if len(b) < fileHeaderBytes || string(b[:len(fileMagic)]) != fileMagic {
		if len(b) >= fileHeaderBytes && frame.Blank(b) {
			return nil, &CorruptError{File: name, Reason: "the file header is blank"}
		}
		return nil, fmt.Errorf("%s: %w: it does not begin with the log's magic number", name, ErrForeign)
	}
	// The checksum covers the same bytes in every format version.
	if binary.LittleEndian.Uint32(b[headerSumOffset:]) != frame.Checksum(0, b[:headerSumOffset]) {
		return nil, &CorruptError{File: name, Reason: "the file header fails its checksum"}
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != formatVersion {
		return nil, fmt.Errorf("%s: %w: it has version %d, this program reads version %d", name, ErrNewer, v, formatVersion)
	}
	num, size := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
	if num == 0 || num > 1<<32-2 || size < minFileBytes || size > maxFileBytes || !frame.Blank(b[12:16]) {
		return nil, &CorruptError{File: name, Reason: "the file header makes no sense"}
	}
	h := &fileHeader{num: uint32(num), size: int64(size)}
	copy(h.id[:], b[32:])
	return h, nil
}

func fileName(dir string, num uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", num, fileSuffix))
}

// parseFileName reads the base name that fileName gives.
func parseFileName(base string) (uint32, bool) {
	digits, ok := strings.CutSuffix(base, fileSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	num, err := strconv.ParseUint(digits, 16, 32)
	return uint32(num), err == nil && num > 0
}

// logFile is one open file. The appender owns all fields but f and users.
type logFile struct {
	name   string
	header fileHeader
	seed   uint32
	f      fsys.File

	users atomic.Int32 // the table's reference and one per reader

	end       int64       // where the next frame goes
	live      int         // heads and entries in it that groups need
	liveBytes int64       // their size
	groups    []*GroupLog // that have or had records in it, each once
}

func newLogFile(name string, h fileHeader, f fsys.File) *logFile {
	lf := &logFile{name: name, header: h, seed: h.seed(), f: f, end: fileHeaderBytes}
	lf.users.Store(1)
	return lf
}

func (f *logFile) num() uint32 { return f.header.num }

// release gives up one use; the last one closes the file.
func (f *logFile) release() error {
	if f.users.Add(-1) == 0 {
		return f.f.Close()
	}
	return nil
}

// createFile makes a file ready for use: filled with zeros, synced, then given
// its name, and the name synced. A .wal file is thus always complete.
func createFile(fs fsys.FS, dir string, h fileHeader) (*logFile, error) {
	name := fileName(dir, h.num)
	tmp := strings.TrimSuffix(name, fileSuffix) + tmpSuffix
	f, err := fs.Create(tmp)
	if err != nil {
		return nil, err
	}
	if err := fill(f, h); err != nil {
		return nil, errors.Join(err, f.Close(), fs.Remove(tmp))
	}
	if err := fs.Rename(tmp, name); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := fs.SyncDir(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errDirSync, err), f.Close())
	}
	return newLogFile(name, h, f), nil
}

// errDirSync marks the one failure of housekeeping that cannot be tried again.
var errDirSync = errors.New("syncing the log directory failed")

// fill writes every byte: blocks that were only reserved would be turned into
// written ones by the first batch in them, and its fdatasync would have to wait
// for the file system's journal.
func fill(f fsys.File, h fileHeader) error {
	if err := f.Preallocate(h.size); err != nil {
		return err
	}
	zeros := make([]byte, min(fillBytes, h.size))
	for off := int64(0); off < h.size; off += fillBytes {
		part := zeros[:min(fillBytes, h.size-off)]
		if _, err := f.WriteAt(part, off); err != nil {
			return err
		}
		if off+fillBytes < h.size {
			if err := f.Datasync(); err != nil {
				return err
			}
		}
	}
	if _, err := f.WriteAt(h.encode(), 0); err != nil {
		return err
	}
	return f.Sync()
}
