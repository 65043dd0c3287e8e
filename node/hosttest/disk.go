package hosttest

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/anchormesh/anchormesh/internal/fsys"
)

// Disk is what a node has written.
type Disk struct {
	t      testing.TB
	mem    *fsys.Mem
	stores string // real directory

	boot int // runs of the machine so far

	mu        sync.Mutex
	recording *Recording
}

// Reboot starts the machine again; the disk lost nothing.
func (d *Disk) Reboot() { d.boot++ }

// NewDisk returns an empty disk.
func NewDisk(t testing.TB) *Disk {
	return &Disk{t: t, mem: fsys.NewMem(), stores: t.TempDir()}
}

// Recording holds copies of a disk.
type Recording struct {
	rng   *rand.Rand
	disk  *Disk
	disks []*Disk
}

// Record begins to copy the disk before each change of it, without some of what
// was not synced by then.
func (d *Disk) Record(seed uint64) *Recording {
	r := &Recording{rng: rand.New(rand.NewPCG(seed, 0)), disk: d}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recording = r
	return r
}

// Len is the number of copies so far.
func (r *Recording) Len() int {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	return len(r.disks)
}

// Stop ends the recording and returns the copies, of which the last is of now.
func (r *Recording) Stop() []*Disk {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	r.disk.recording = nil
	return append(r.disks, r.copyLocked())
}

func (r *Recording) copyLocked() *Disk {
	out := &Disk{t: r.disk.t, boot: r.disk.boot + 1, mem: r.disk.mem.CrashClone(r.rng), stores: r.disk.t.TempDir()}
	err := os.CopyFS(out.stores, os.DirFS(r.disk.stores))
	for errors.Is(err, fs.ErrNotExist) { // a store was given its name meanwhile
		out.stores = r.disk.t.TempDir()
		err = os.CopyFS(out.stores, os.DirFS(r.disk.stores))
	}
	if err != nil {
		r.disk.t.Error(err)
	}
	return out
}

// hook copies the disk before it changes.
func (d *Disk) hook(op fsys.Op) fsys.Fault {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.recording != nil && op.Changes() {
		d.recording.disks = append(d.recording.disks, d.recording.copyLocked())
	}
	return fsys.Fault{}
}

// dataDir is the node's data directory on its disk, and scopesDir the part of it
// that is real.
const (
	dataDir   = "/node"
	scopesDir = dataDir + "/scopes"
)

// files is the disk as a node sees it.
func (d *Disk) files() fsys.FS { return files{FS: fsys.Wrap(d.mem, d.hook), disk: d} }

// real is where a file of the stores is.
func (d *Disk) real(name string) string {
	return path.Join(d.stores, strings.TrimPrefix(name, scopesDir))
}

// files sends what concerns the stores to the real disk.
type files struct {
	fsys.FS
	disk *Disk
}

func (f files) at(name string) (fsys.FS, string) {
	if name == scopesDir || strings.HasPrefix(name, scopesDir+"/") {
		return fsys.OS, f.disk.real(name)
	}
	return f.FS, name
}

// Open implements fsys.FS.
func (f files) Open(name string) (fsys.File, error) {
	on, name := f.at(name)
	return on.Open(name)
}

// Remove implements fsys.FS.
func (f files) Remove(name string) error {
	on, name := f.at(name)
	return on.Remove(name)
}

// List implements fsys.FS.
func (f files) List(dir string) ([]string, error) {
	on, dir := f.at(dir)
	return on.List(dir)
}

// MkdirAll implements fsys.FS. The name exists on both disks, because the parent
// is listed.
func (f files) MkdirAll(dir string) error {
	if on, real := f.at(dir); real != dir {
		if err := on.MkdirAll(real); err != nil {
			return err
		}
	}
	return f.FS.MkdirAll(dir)
}

// Copy is what the disk holds, as a disk of its own.
func (d *Disk) Copy() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return (&Recording{rng: rand.New(rand.NewPCG(0, 0)), disk: d}).copyLocked()
}

// Remove deletes a directory of the node.
func (d *Disk) Remove(dir string) {
	d.t.Helper()
	f := d.files()
	names, err := f.List(dir)
	for _, name := range names {
		err = errors.Join(err, f.Remove(dir+"/"+name))
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// PowerCut is what the disk may hold if the power goes now; the machine is another run
// afterwards.
func (d *Disk) PowerCut(seed uint64) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return (&Recording{rng: rand.New(rand.NewPCG(seed, 1)), disk: d}).copyLocked()
}
