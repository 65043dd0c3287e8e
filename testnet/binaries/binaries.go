package binaries

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

var (
	// ErrNoSource is returned when the source tree is not found above the
	// working directory; the programs are built from it.
	ErrNoSource = errors.New("binaries: no AnchorMesh source tree above the working directory")
	// ErrBuild is returned when the Go command could not build a program.
	ErrBuild = errors.New("binaries: build failed")
	// ErrNoCommand is returned while the tree holds no cmd/anchormesh.
	ErrNoCommand = errors.New("binaries: the source tree has no cmd/anchormesh")
)

// sourceRoot returns the directory of AnchorMesh's go.mod: the nearest
// directory above the working directory that holds testnet/etcd/go.mod. The
// working directory is used rather than the compiled-in file name, because the
// latter is lost with -trimpath.
func sourceRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "testnet", "etcd", "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", ErrNoSource
		}
		dir = up
	}
}

// HasAnchorMesh reports whether this tree can build anchormesh.
func HasAnchorMesh() bool {
	if os.Getenv("TESTNET_ANCHORMESH") != "" {
		return true
	}
	root, err := sourceRoot()
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(root, "cmd", "anchormesh"))
	return err == nil
}

// AnchorMesh builds cmd/anchormesh of this tree, once per process, and returns
// the program's path. The directory is left to the system's temporary-file
// cleaning: other processes started from it may outlive us.
func AnchorMesh(ctx context.Context) (string, error) {
	if path := os.Getenv("TESTNET_ANCHORMESH"); path != "" {
		return path, nil
	}
	return build(ctx, "")
}

// Failpoints is AnchorMesh with the tag "failpoints": its nodes obey
// ANCHORMESH_FAILPOINTS. What the environment names in place of a build is not it.
func Failpoints(ctx context.Context) (string, error) { return build(ctx, "failpoints") }

// build builds cmd/anchormesh under build tags.
func build(ctx context.Context, tags string) (string, error) {
	anchormesh.Lock()
	defer anchormesh.Unlock()
	if path := anchormesh.paths[tags]; path != "" {
		return path, nil
	}
	root, err := sourceRoot()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(root, "cmd", "anchormesh")); err != nil {
		return "", ErrNoCommand
	}
	dir, err := os.MkdirTemp("", "anchormesh-bin-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "anchormesh")
	if err := goBuild(ctx, root, "-tags", tags, "-o", path, "./cmd/anchormesh"); err != nil {
		return "", err
	}
	anchormesh.paths[tags] = path
	return path, nil
}

// anchormesh remembers what this process built.
var anchormesh = struct {
	sync.Mutex
	paths map[string]string // by build tags
}{paths: map[string]string{}}

// goBuild runs "go build" in dir. CGO is off as in etcd's own releases, so that
// both programs are built alike and run anywhere.
func goBuild(ctx context.Context, dir string, args ...string) error {
	base := []string{"build", "-trimpath", "-ldflags", "-s -w"}
	cmd := exec.CommandContext(ctx, "go", append(base, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: go build in %s (modules not in the cache need a network or a module proxy): %w\n%s", ErrBuild, dir, err, out)
	}
	return nil
}
