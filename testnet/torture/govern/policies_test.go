package govern

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh/testnet/torture/audit"
)

// Whatever is drawn is a policy, keeps the rule, and is what the scope promises to stay.
func TestDrawnPoliciesAreValid(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		for _, s := range append(standing(), Scope{}) {
			for _, nodes := range []int{3, 5} {
				text := document(rng, s.Name, nodes)
				if _, err := audit.PolicyHash(text, "x/"); err != nil {
					t.Fatalf("seed %d: %v in\n%s", seed, err, text)
				}
				if !strings.Contains(text, `startsWith("bad")`) || s.Approvals != strings.Contains(text, "approvals") ||
					s.Light && !strings.Contains(text, "class: light") || nodes < 5 && strings.Contains(text, "{count: 5}") {
					t.Errorf("seed %d: scope %q may not have\n%s", seed, s.Name, text)
				}
			}
		}
	}
}
