package machine

import (
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/rules"
)

// CompileRule says why a rule of a policy cannot be compiled; nil if it can. It is a
// policy.Compile.
func CompileRule(r policy.Rule) error {
	return rules.Check(rules.Expr{Name: r.Name, Text: r.Expr})
}

// governed is what a policy says to the keyspace; nil is no policy.
func governed(scope []byte, p *policy.Policy) *keyspace.Governed {
	if p == nil {
		return nil
	}
	w := p.Writes
	g := &keyspace.Governed{
		QuotaBytes: p.Quota.Bytes, QuotaKeys: p.Quota.Keys, OwnCompaction: p.Retention.OwnCompaction,
		Rules: rules.Rules{
			Scope: string(scope), CreateOnly: w.CreateOnly, AppendOnly: w.AppendOnly, TTLRequired: w.TTLRequired,
			KeyBytesMax: w.KeyBytesMax, ValueBytesMax: w.ValueBytesMax, Writers: w.Writers, Signed: w.Signed,
		},
	}
	for _, r := range w.Rules {
		g.Rules.Exprs = append(g.Rules.Exprs, rules.Expr{Name: r.Name, Text: r.Expr})
	}
	return g
}
