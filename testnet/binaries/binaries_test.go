package binaries_test

import (
	"context"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/anchormesh/anchormesh/testnet/binaries"
)

// Several askers at once get the same whole programs, of the pinned version.
func TestEtcdIsBuiltOnceAndWhole(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			paths, err := binaries.Etcd(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			out, err := exec.Command(paths.Etcd, "--version").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "etcd Version: "+paths.Version) {
				t.Errorf("etcd --version: %v\n%s", err, out)
			}
			out, err = exec.Command(paths.Etcdctl, "version").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "etcdctl version: "+paths.Version) {
				t.Errorf("etcdctl version: %v\n%s", err, out)
			}
		})
	}
	wg.Wait()
}
