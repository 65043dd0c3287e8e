package approvals

import (
	"fmt"
	"testing"

	"github.com/anchormesh/anchormesh"
)

// What was found good is not checked again, what was found bad is, and nothing passes
// for something else.
func TestVerifierRemembersGoodSignatures(t *testing.T) {
	checks := 0
	v := NewVerifier(func(node anchormesh.NodeID, statement, signature []byte) bool {
		checks++
		return string(signature) == string(node)+string(statement)
	})
	for _, c := range []struct {
		node, statement, signature string
		good                       bool
		checks                     int
	}{
		{"a", "x", "ax", true, 1},
		{"a", "x", "ax", true, 1},
		{"a", "x", "bad", false, 2},
		{"a", "x", "bad", false, 3},
		{"", "ax", "ax", true, 4}, // the same bytes, otherwise divided
		{"a", "xa", "x", false, 5},
	} {
		if got := v.Verify(anchormesh.NodeID(c.node), []byte(c.statement), []byte(c.signature)); got != c.good || checks != c.checks {
			t.Errorf("%+v: %v after %d checks", c, got, checks)
		}
	}
	v.Made("me", []byte("s"), []byte("mine"))
	if !v.Verify("me", []byte("s"), []byte("mine")) || checks != 5 {
		t.Error("its own signature was checked")
	}
	for i := range 3 * rememberMax {
		v.Made("me", []byte("s"), []byte(fmt.Sprint(i)))
	}
	if n := len(v.new) + len(v.old); n > rememberMax {
		t.Errorf("%d signatures are remembered", n)
	}
}
