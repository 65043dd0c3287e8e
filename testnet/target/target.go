// Package target gives tests the cluster they are to try: a mesh, or, to try the
// tests themselves, a real etcd.
//
// The environment variable TESTNET_TARGET chooses: "mesh" or "etcd". It is
// not a flag because flags must be known to every package of a "go test" run.
// Without it a mesh is taken as soon as this tree can build one.
package target

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/binaries"
	"github.com/anchormesh/anchormesh/testnet/cluster"
)

// Kind returns what is to be tried.
func Kind() (cluster.Kind, error) {
	switch text := os.Getenv("TESTNET_TARGET"); cluster.Kind(text) {
	case cluster.Mesh, cluster.Etcd:
		return cluster.Kind(text), nil
	case "":
		if binaries.HasAnchorMesh() {
			return cluster.Mesh, nil
		}
		return cluster.Etcd, nil
	default:
		return "", fmt.Errorf("target: TESTNET_TARGET is %q, known are %q and %q", text, cluster.Mesh, cluster.Etcd)
	}
}

// startTimeout bounds building and starting a cluster.
const startTimeout = 5 * time.Minute

// Start starts a cluster of the chosen kind; it ends with the test.
func Start(t testing.TB, size int) *cluster.Cluster {
	t.Helper()
	kind, err := Kind()
	if err != nil {
		t.Fatal(err)
	}
	return StartKind(t, kind, size)
}

// StartKind starts a cluster of a given kind; it ends with the test, and if the
// test failed the ends of the nodes' logs are shown.
func StartKind(t testing.TB, kind cluster.Kind, size int, args ...string) *cluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Config{Kind: kind, Size: size, Dir: t.TempDir(), Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if !t.Failed() {
			return
		}
		for _, n := range c.Nodes {
			t.Logf("end of the log of %s %s:\n%s", kind, n.Name, n.LogTail())
		}
	})
	return c
}
