package binaries

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

// EtcdPaths are the programs of one etcd version.
type EtcdPaths struct {
	Etcd, Etcdctl, Etcdutl string
	Version                string // as pinned, without the leading v; "" if replaced by TESTNET_ETCD_DIR
}

// Etcd returns the pinned etcd programs, building them if no process has yet.
// The first build takes about a minute of CPU; ctx bounds it.
func Etcd(ctx context.Context) (EtcdPaths, error) {
	if dir := os.Getenv("TESTNET_ETCD_DIR"); dir != "" {
		return etcdIn(dir, ""), nil
	}
	root, err := sourceRoot()
	if err != nil {
		return EtcdPaths{}, err
	}
	module := filepath.Join(root, "testnet", "etcd")
	version, key, err := etcdKey(module)
	if err != nil {
		return EtcdPaths{}, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return EtcdPaths{}, err
	}
	parent := filepath.Join(cache, "anchormesh")
	dir := filepath.Join(parent, "etcd-"+version+"-"+key)
	paths := etcdIn(dir, version)
	if exists(dir) {
		return paths, nil
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return EtcdPaths{}, err
	}
	unlock, err := lockFile(ctx, dir+".lock")
	if err != nil {
		return EtcdPaths{}, err
	}
	defer unlock()
	if exists(dir) { // built by whom we waited for
		return paths, nil
	}
	return paths, buildEtcd(ctx, module, parent, dir)
}

func etcdIn(dir, version string) EtcdPaths {
	return EtcdPaths{
		Etcd:    filepath.Join(dir, "etcd"),
		Etcdctl: filepath.Join(dir, "etcdctl"),
		Etcdutl: filepath.Join(dir, "etcdutl"),
		Version: version,
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

var serverLine = regexp.MustCompile(`go\.etcd\.io/etcd/server/v3 v(\S+)`)

// etcdKey returns the pinned version and a digest of all that decides the
// programs' bytes.
func etcdKey(module string) (version, key string, err error) {
	mod, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", "", err
	}
	sum, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", "", err
	}
	m := serverLine.FindSubmatch(mod)
	if m == nil {
		return "", "", fmt.Errorf("binaries: %s/go.mod does not require go.etcd.io/etcd/server/v3", module)
	}
	platform := []byte(runtime.GOOS + "/" + runtime.GOARCH + " " + runtime.Version())
	digest := sha256.Sum256(bytes.Join([][]byte{mod, sum, platform}, []byte{0}))
	return string(m[1]), hex.EncodeToString(digest[:6]), nil
}

// buildEtcd builds into a fresh directory beside dir and renames it into place.
func buildEtcd(ctx context.Context, module, parent, dir string) error {
	fresh, err := os.MkdirTemp(parent, "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := goBuild(ctx, module, "-o", fresh+string(filepath.Separator), "tool"); err != nil {
		return err
	}
	// The package that holds etcd's main function is called server.
	if err := os.Rename(filepath.Join(fresh, "server"), filepath.Join(fresh, "etcd")); err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	return os.Rename(fresh, dir)
}

// lockPoll is how often a waiting process tries the lock again. flock has no
// deadline of its own, and a blocked system call could not follow ctx.
const lockPoll = 100 * time.Millisecond

// lockFile takes an exclusive lock that the system releases when we die.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return func() { f.Close() }, nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("binaries: another process holds %s: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}
