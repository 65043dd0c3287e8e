package mesh

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh/internal/fsys"
)

// EpochFile keeps the epoch of the node's newest record: one line,
//
//	anchormesh-epoch-v1:<decimal>
const EpochFile = "record.epoch"

const epochPrefix = "anchormesh-epoch-v1:"

// epochs implements gossip.Epochs. An epoch is at least one above the last
// one kept, and at least the time in milliseconds: a clock set back cannot
// lower it, and a lost or restored file cannot either unless the clock goes
// back, too.
type epochs struct {
	files fsys.FS
	dir   string
	mu    sync.Mutex // held while writing: changes of a record are rare
	last  uint64
}

// loadEpochs reads what was kept. A damaged file costs nothing but its use.
func loadEpochs(files fsys.FS, dir string) (*epochs, error) {
	e := &epochs{files: files, dir: dir}
	text, err := fsys.ReadSmall(files, filepath.Join(dir, EpochFile), 128)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return e, nil
	case err != nil:
		return nil, fmt.Errorf("record epoch %s cannot be read: %w", filepath.Join(dir, EpochFile), err)
	}
	if number, ok := strings.CutPrefix(strings.TrimSpace(string(text)), epochPrefix); ok {
		e.last, _ = strconv.ParseUint(number, 10, 64)
	}
	return e, nil
}

// Next implements gossip.Epochs.
func (e *epochs) Next(atLeast uint64) (uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := max(e.last+1, atLeast, uint64(max(time.Now().UnixMilli(), 0)))
	text := epochPrefix + strconv.FormatUint(next, 10) + "\n"
	if err := fsys.WriteSmall(e.files, e.dir, EpochFile, []byte(text)); err != nil {
		return 0, fmt.Errorf("cannot keep it in %s: %w", e.dir, err)
	}
	e.last = next
	return next, nil
}
