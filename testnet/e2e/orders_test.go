package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What operators order wrongly is refused with a reason, by a node that leads as by one
// that does not, and --dry-run says the same. Right after a split its right part can be
// named, though it has no leader yet.
func TestWrongOrders(t *testing.T) {
	t.Parallel()
	l := labMesh(t, 3)
	asked := l.nodes[1].client
	say := func(status int, reason string, args ...string) {
		t.Helper()
		out, errs, code := l.cli(append(args, "--endpoint", asked)...)
		if code != status || !strings.Contains(out+errs, reason) {
			t.Errorf("anchormesh %q: status %d, %s%swant %d and %q", args, code, out, errs, status, reason)
		}
	}
	l.split("m")
	say(0, "was cut", "split", "t") // of a part that has just begun
	l.mustScope(l.nodes[1], "create", "x/", "-f", l.document("p.yaml", "preset: standard\n"))
	var first, second, last, own placed
	l.eventually(10*time.Second, "all segments", func() error {
		all, err := l.placement(l.nodes[1])
		if err != nil || len(all) != 5 {
			return fmt.Errorf("%v %w", all, err)
		}
		first, second, own, last = all[0], all[1], all[3], all[4]
		return nil
	})
	none, n1, n3 := "deadbeefdeadbeef", "n1", "n3"

	say(1, "no such segment", "split", "q", none)
	say(1, "does not lie inside", "split", "m")
	say(1, "does not lie inside", "split", "a", second.ID)
	say(1, "does not lie inside", "split", "a", second.ID, "--dry-run")
	say(2, "16 hex digits", "split", "q", "nonsense")
	say(2, "takes a boundary", "split", "")
	say(1, "no such segment", "merge", none, second.ID)
	say(1, "no segment that this node knows", "merge", first.ID, none)
	say(1, "not its own neighbour", "merge", first.ID, first.ID)
	say(1, "is not the right neighbour", "merge", second.ID, first.ID)
	say(1, "is not the right neighbour", "merge", first.ID, last.ID)
	say(1, "of two scopes", "merge", own.ID, last.ID)
	say(1, "of two scopes", "merge", own.ID, last.ID, "--dry-run")
	say(2, "16 hex digits", "merge", "nonsense", last.ID)
	say(1, "no such segment", "move", none, n1, n3)
	say(1, "is an anchor of segment", "move", first.ID, n1, n3)
	say(1, `no node "n9"`, "move", first.ID, n1, "n9")
	say(1, "no such segment", "transfer", none, n1)
	say(1, `no node "n9"`, "transfer", first.ID, "n9")
	say(1, "3 anchors are asked for", "drain", n3)
	say(1, "3 anchors are asked for", "drain", n3, "--dry-run")
	say(1, `no node "n9"`, "drain", "n9")
	say(1, "no such segment", "lineage", none)

	l.nodes[2].kill()
	l.eventually(20*time.Second, "word of the death", func() error {
		out, errs, code := l.cli("split", "a", "--dry-run", "--endpoint", asked)
		if code != 1 || !strings.Contains(errs, "not now: voter") {
			return fmt.Errorf("status %d: %s%s", code, out, errs)
		}
		return nil
	})
	say(1, "not now: voter", "split", "a")
	say(1, "cannot be reached", "merge", first.ID, second.ID)
	say(1, "cannot be reached", "transfer", first.ID, n3)
	say(1, "is an anchor of segment", "move", first.ID, n3, n1)
	l.nodes[0].kill()
	say(1, "no known leader", "split", "b")
}
