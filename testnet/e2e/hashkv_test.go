package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/target"
)

// history is the same on every server of etcd's API that nobody wrote to before;
// it returns the revisions it compacted at and the newest. The first compaction is
// at a deletion, whose tombstone some versions of etcd remove and some keep.
func history(ctx context.Context, t *testing.T, c *clientv3.Client) (first, second, newest int64) {
	t.Helper()
	write := func(round int) (deleted, last int64) {
		for i := range 40 {
			key := fmt.Sprintf("k%d", i%7)
			put, err := c.Put(ctx, key, fmt.Sprintf("%d/%d", round, i))
			must(t, err)
			last = put.Header.Revision
			if i%5 == 4 {
				gone, err := c.Delete(ctx, key)
				must(t, err)
				deleted, last = gone.Header.Revision, gone.Header.Revision
			}
			if i%11 == 3 {
				txn, err := c.Txn(ctx).Then(clientv3.OpPut("a", key), clientv3.OpDelete("k0"), clientv3.OpPut("b", key)).Commit()
				must(t, err)
				last = txn.Header.Revision
			}
		}
		return deleted, last
	}
	compact := func(rev int64) {
		_, err := c.Compact(ctx, rev, clientv3.WithCompactPhysical())
		must(t, err)
	}
	first, _ = write(1)
	_, second = write(2)
	compact(first)
	compact(second)
	_, newest = write(3)
	return first, second, newest
}

// hashes asks for the hash at each revision.
func hashes(ctx context.Context, c *clientv3.Client, revs []int64) (lines []string) {
	maintenance := pb.NewMaintenanceClient(c.ActiveConnection())
	for _, rev := range revs {
		h, err := maintenance.HashKV(ctx, &pb.HashKVRequest{Revision: rev})
		if err != nil {
			lines = append(lines, fmt.Sprintf("at %d: %s %s", rev, status.Code(err), status.Convert(err).Message()))
			continue
		}
		lines = append(lines, fmt.Sprintf("at %d: hash %08x of %d, compacted %d, newest %d", rev, h.Hash, h.HashRevision, h.CompactRevision, h.Header.Revision))
	}
	return lines
}

// HashKV at, below and above compacted revisions: every node of a mesh gives one
// answer, whatever it went through, and it is that of an etcd which has been
// restarted since. An etcd that has not answers revisions it was compacted at from
// memory, with the hash taken while it compacted.
func TestHashKVAroundCompactions(t *testing.T) {
	t.Parallel()
	l := labMesh(t, 3, "--replace-dead-after", "2s")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	first, second, newest := history(ctx, t, l.dial(l.nodes[0]))
	revs := []int64{-1, 0, 1, first - 1, first, first + 1, second - 1, second, second + 1, newest, newest + 1}
	want := hashes(ctx, l.dial(l.leader()), revs)

	etcd := target.StartKind(t, cluster.Etcd, 1)
	client := dialNode(t, etcd, etcd.Nodes[0])
	if a, b, c := history(ctx, t, client); a != first || b != second || c != newest {
		t.Fatalf("etcd is at other revisions: %d %d %d, the mesh at %d %d %d", a, b, c, first, second, newest)
	}
	cached := hashes(ctx, client, revs)
	for i, rev := range revs {
		if remembers := rev == first || rev == second; (cached[i] != want[i]) != remembers {
			t.Errorf("etcd answers %q, the mesh %q", cached[i], want[i])
		}
	}
	must(t, etcd.Nodes[0].Stop(ctx))
	must(t, etcd.Nodes[0].Start())
	must(t, etcd.Ready(ctx))
	if got := hashes(ctx, dialNode(t, etcd, etcd.Nodes[0]), revs); !slices.Equal(got, want) {
		t.Errorf("etcd after a restart answers\n%q\nthe mesh\n%q", got, want)
	}

	same := func(when string) {
		t.Helper()
		for _, n := range l.nodes {
			if !n.running() {
				continue
			}
			c := l.dial(n)
			l.eventually(20*time.Second, n.name+" to catch up", func() error {
				got, err := c.Get(ctx, "k0", clientv3.WithSerializable())
				if err == nil && got.Header.Revision < newest {
					err = errors.New("it is behind")
				}
				return err
			})
			if got := hashes(ctx, c, revs); !slices.Equal(got, want) {
				t.Errorf("%s, %s answers\n%q\nthe leader answered\n%q", when, n.name, got, want)
			}
		}
	}
	same("after the compactions")
	l.nodes[1].kill()
	l.nodes[1].start()
	l.awaitVoters(3)
	same("after a crash")
	l.nodes[2].kill()
	newcomer := l.add("--replace-dead-after", "2s").start()
	newcomer.awaitVoter()
	same("after a snapshot")
}

// awaitVoter waits until the node is a voter by its own word.
func (n *labNode) awaitVoter() {
	n.lab.t.Helper()
	id := n.id()
	n.lab.eventually(90*time.Second, n.name+" to become a voter", func() error {
		s, err := n.segment()
		if err == nil && (!s.Local || !slices.Contains(s.voters(), id)) {
			err = fmt.Errorf("anchors %+v", s.Anchors)
		}
		return err
	})
}
