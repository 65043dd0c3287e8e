package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/anchormesh/anchormesh/testnet/compose"
)

// errNoDisks is returned where file systems cannot be mounted.
var errNoDisks = errors.New("target: small disks need Linux, root, mkfs.ext4 and loop devices")

// diskBytes is the size of a node's disk: enough for what a run writes. The file
// behind it is sparse.
const diskBytes = 1 << 30

// Disks are small file systems, one per node, each an ext4 in a file (a loop device).
type Disks struct {
	Dirs []string // where they are mounted
}

// ballast is the file that fills a disk.
const ballast = "ballast"

// NewDisks makes and mounts a disk dir/NAME for each name.
func NewDisks(ctx context.Context, dir string, names []string) (*Disks, error) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		return nil, errNoDisks
	}
	d := &Disks{}
	for _, name := range names {
		mount, err := newDisk(ctx, filepath.Join(dir, name))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w", errNoDisks, err), d.Close())
		}
		d.Dirs = append(d.Dirs, mount)
	}
	return d, nil
}

func newDisk(ctx context.Context, mount string) (string, error) {
	if err := os.MkdirAll(mount, 0o755); err != nil {
		return "", err
	}
	_, _ = compose.Run(ctx, "umount", mount) // of a run that was killed; mostly there is nothing to unmount
	image, err := os.Create(mount + ".ext4")
	if err != nil {
		return "", err
	}
	err = errors.Join(image.Truncate(diskBytes), image.Close())
	if err != nil {
		return "", err
	}
	if _, err := compose.Run(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", image.Name()); err != nil {
		return "", err
	}
	if _, err := compose.Run(ctx, "mount", "-o", "loop", image.Name(), mount); err != nil {
		return "", err
	}
	return mount, os.Remove(filepath.Join(mount, "lost+found")) // a program may want its directory empty
}

// Fill takes all the room that is left on a node's disk.
func (d *Disks) Fill(node int) error {
	f, err := os.Create(filepath.Join(d.Dirs[node], ballast))
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for len(block) > 0 {
		_, err := f.Write(block)
		switch {
		case errors.Is(err, syscall.ENOSPC):
			block = block[:len(block)/2]
		case err != nil:
			return err
		}
	}
	return nil
}

// Free gives it back.
func (d *Disks) Free(node int) error {
	err := os.Remove(filepath.Join(d.Dirs[node], ballast))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Close unmounts the disks and removes them with what they hold.
func (d *Disks) Close() error {
	var problems []error
	for _, dir := range d.Dirs {
		if _, err := compose.Run(context.Background(), "umount", dir); err != nil {
			problems = append(problems, err)
			continue // do not remove what is still mounted
		}
		problems = append(problems, os.Remove(dir), os.Remove(dir+".ext4"))
	}
	return errors.Join(problems...)
}
