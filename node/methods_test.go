package node_test

import (
	"testing"

	"github.com/anchormesh/anchormesh/node/approvals"
	"github.com/anchormesh/anchormesh/node/classes"
	"github.com/anchormesh/anchormesh/node/dispatch"
	"github.com/anchormesh/anchormesh/node/exchange"
	"github.com/anchormesh/anchormesh/node/governor"
	"github.com/anchormesh/anchormesh/node/leases"
	"github.com/anchormesh/anchormesh/node/merger"
	"github.com/anchormesh/anchormesh/node/pairing"
	"github.com/anchormesh/anchormesh/node/proofs"
	"github.com/anchormesh/anchormesh/node/stamps"
	"github.com/anchormesh/anchormesh/node/steward"
	"github.com/anchormesh/anchormesh/node/trust"
	"github.com/anchormesh/anchormesh/node/txns"
)

// Two packages that take the same number take each other's calls: the later one is
// asked what the other was meant for.
func TestMeshCallsHaveOneOwner(t *testing.T) {
	owners := map[int]string{}
	for owner, method := range map[string]int{
		"dispatch": dispatch.Method, "dispatch's commands": dispatch.CommandMethod, "exchange": exchange.Method, "leases": leases.Method,
		"steward": steward.Method, "stamps": stamps.Method, "proofs": proofs.Method, "txns": txns.Method, "merger": merger.Method,
		"governor": governor.Method, "trust": trust.Method, "classes": classes.Method, "pairing": pairing.Method, "approvals": approvals.Method,
	} {
		if other, taken := owners[method]; taken {
			t.Errorf("mesh call %d is %s's and %s's", method, owner, other)
		}
		owners[method] = owner
	}
}
