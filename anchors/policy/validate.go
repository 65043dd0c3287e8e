package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/anchormesh/anchormesh"
)

// Bounds of what a policy holds, so that it stays small and cheap to judge by.
const (
	WritersMax     = 64
	NameBytesMax   = 128 // of a writer
	RulesMax       = 32
	RuleNameMax    = 64
	RuleBytesMax   = 2048    // of an expression
	PrefixBytesMax = 1024    // of a scope
	numberMax      = 1 << 53 // what JSON carries without loss
	secondsMax     = 10 * 365 * 24 * 3600
	expiryMin      = 10
	expiryMax      = 30 * 24 * 3600
	trustMax       = 100 // the greatest weight there is: see package trust
)

// Compile says why a rule cannot be compiled; nil if it can.
type Compile func(Rule) error

// Validate says what is wrong with the policy for the scope of that prefix, each
// field as a Problem, joined. Without compile it trusts that rules compile.
func (p *Policy) Validate(scope []byte, compile Compile) error {
	c := &checker{p: p}
	c.class(scope)
	c.anchors()
	c.acks()
	c.thresholds()
	c.numbers()
	c.writes()
	c.rules(compile)
	c.rest(scope)
	if len(c.problems) == 0 && len(p.Encode()) > BytesMax {
		c.problem("writes", "the policy is %d bytes long, at most %d", len(p.Encode()), BytesMax)
	}
	return errors.Join(c.problems...)
}

type checker struct {
	p        *Policy
	problems []error
}

func (c *checker) problem(field, reason string, args ...any) {
	c.problems = append(c.problems, &Problem{field, fmt.Sprintf(reason, args...)})
}

// class checks what the class excludes.
func (c *checker) class(scope []byte) {
	p := c.p
	if p.Class > anchormesh.Strong {
		c.problem("class", "want light, normal or strong")
		return
	}
	if len(scope) > PrefixBytesMax {
		c.problem("prefix", "%d bytes, at most %d", len(scope), PrefixBytesMax)
	}
	if p.Class == anchormesh.Light && len(scope) == 0 {
		c.problem("class", "the root scope cannot be light: leases, and what is known of light scopes, are kept there")
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"acks", p.Acks != Acks{}},
		{"approvals.threshold", !p.Approvals.Threshold.IsZero()},
		{"writes.signed", p.Writes.Signed},
	} {
		switch {
		case !f.set || p.Class == anchormesh.Strong:
		case p.Class == anchormesh.Light:
			c.problem(f.name, "a light scope acknowledges writes before the disks have them, and cannot have it; class strong can")
		case f.name != "writes.signed":
			c.problem(f.name, "a normal scope is etcd's contract; class strong has more")
		}
	}
	if p.Class == anchormesh.Strong && p.Acks == (Acks{}) && p.Approvals.Threshold.IsZero() {
		c.problem("class", "strong without acks and without approvals promises no more than normal: give one of them")
	}
}

func (c *checker) anchors() {
	a := c.p.Anchors
	if !slices.Contains([]int{1, 3, 5, 7}, a.Count) {
		c.problem("anchors.count", "%d, want 1, 3, 5 or 7", a.Count)
	}
	if a.Zones < 0 || a.Zones > max(a.Count, 1) {
		c.problem("anchors.zones", "%d anchors cannot be in %d zones", a.Count, a.Zones)
	}
	c.between("anchors.min_trust", int64(a.MinTrust), 0, trustMax)
}

func (c *checker) acks() {
	acks, anchors := c.p.Acks, c.p.Anchors.Count
	switch majority := anchors/2 + 1; {
	case acks.All && acks.Count != 0:
		c.problem("acks", "all and count exclude each other")
	case acks.Count < 0:
		c.problem("acks.count", "%d is negative", acks.Count)
	case acks.Count > anchors:
		c.problem("acks.count", "%d acks of %d anchors can never arrive", acks.Count, anchors)
	case acks.Count > 0 && acks.Count < majority:
		c.problem("acks.count", "every write waits for a majority, %d of %d anchors, already: want that or more", majority, anchors)
	}
}

// thresholds checks that what Raft tolerates to be missing cannot block a vote, and
// what it tolerates cannot decide one. Weights differ, but are capped so that this
// holds of them as it does of equal ones.
func (c *checker) thresholds() {
	for _, f := range []struct {
		name string
		at   Fraction
	}{{"approvals.threshold", c.p.Approvals.Threshold}, {"amend.threshold", c.p.Amend.Threshold}} {
		n := uint32(max(1, c.p.Anchors.Count))
		tolerated := (n - 1) / 2
		switch {
		case !f.at.valid():
			c.problem(f.name, "%d/%d, want a fraction above 0, at most 1, of at most %d parts", f.at.Num, f.at.Den, fractionMax)
		case f.at.IsZero():
		case f.at.compare(Fraction{n - tolerated, n}) > 0:
			c.problem(f.name, "%s cannot be reached when %d of %d anchors are missing, which the scope must survive: at most %s",
				f.at, tolerated, n, Fraction{n - tolerated, n}.reduced())
		case tolerated > 0 && f.at.compare(Fraction{tolerated, n}) <= 0:
			c.problem(f.name, "%s would let %d of %d anchors decide alone: more than %s", f.at, tolerated, n, Fraction{tolerated, n}.reduced())
		}
	}
	if e := c.p.Amend.ExpirySeconds; e != 0 {
		c.between("amend.expiry_seconds", int64(e), expiryMin, expiryMax)
	}
}

func (c *checker) numbers() {
	p := c.p
	for _, f := range []struct {
		name  string
		value int64
		most  int64
	}{
		{"writes.key_bytes_max", int64(p.Writes.KeyBytesMax), numberMax},
		{"writes.value_bytes_max", int64(p.Writes.ValueBytesMax), numberMax},
		{"quota.bytes", p.Quota.Bytes, numberMax},
		{"quota.keys", p.Quota.Keys, numberMax},
		{"quota.requests_per_second", int64(p.Quota.RequestsPerSecond), 1e9},
		{"priority", int64(p.Priority), 9},
		{"structure.split_writes_per_second", int64(p.Structure.SplitWrites), 1e9},
		{"structure.split_reads_per_second", int64(p.Structure.SplitReads), 1e9},
		{"structure.split_bytes", p.Structure.SplitBytes, numberMax},
		{"structure.split_keys", p.Structure.SplitKeys, numberMax},
		{"structure.dormant_seconds", int64(p.Structure.DormantSeconds), secondsMax},
		{"retention.seconds", int64(p.Retention.Seconds), secondsMax},
		{"retention.writes", p.Retention.Writes, numberMax},
	} {
		c.between(f.name, f.value, 0, f.most)
	}
}

func (c *checker) between(field string, value, least, most int64) {
	switch {
	case value < 0:
		c.problem(field, "%d is negative", value)
	case value < least || value > most:
		c.problem(field, "%d, want %d to %d", value, least, most)
	}
}

func (c *checker) writes() {
	w := c.p.Writes
	if w.AppendOnly && w.TTLRequired {
		c.problem("writes.append_only", "nothing would ever be deleted, but writes.ttl_required has every key deleted when its lease ends")
	}
	if len(w.Writers) > WritersMax {
		c.problem("writes.writers", "%d, at most %d", len(w.Writers), WritersMax)
	}
	for _, name := range w.Writers {
		if name == "" || len(name) > NameBytesMax || !utf8.ValidString(name) {
			c.problem("writes.writers", "%q is no name of 1 to %d bytes", name, NameBytesMax)
			return
		}
	}
}

func (c *checker) rules(compile Compile) {
	rules := c.p.Writes.Rules
	if len(rules) > RulesMax {
		c.problem("writes.rules", "%d, at most %d", len(rules), RulesMax)
		return
	}
	for i, r := range rules {
		at := fmt.Sprintf("writes.rules[%d]", i)
		switch {
		case !ruleName(r.Name):
			c.problem(at+".name", "%q, want 1 to %d of a-z, 0-9, - and _", r.Name, RuleNameMax)
			continue
		case slices.ContainsFunc(rules[:i], func(o Rule) bool { return o.Name == r.Name }):
			c.problem(at+".name", "%q stands twice", r.Name)
		}
		switch {
		case strings.TrimSpace(r.Expr) == "" || !utf8.ValidString(r.Expr):
			c.problem(at+".expr", "rule %q has no expression", r.Name)
		case len(r.Expr) > RuleBytesMax:
			c.problem(at+".expr", "rule %q is %d bytes long, at most %d", r.Name, len(r.Expr), RuleBytesMax)
		case compile != nil:
			if err := compile(r); err != nil {
				c.problem(at+".expr", "rule %q does not compile: %s", r.Name, strings.ReplaceAll(err.Error(), "\n", " "))
			}
		}
	}
}

func ruleName(s string) bool {
	if s == "" || len(s) > RuleNameMax {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

func (c *checker) rest(scope []byte) {
	p := c.p
	if p.Line != "" && p.Line != Shared && p.Line != Own {
		c.problem("line", "%q, want shared or own", p.Line)
	}
	if len(scope) == 0 && p.Line == Own {
		c.problem("line", "the root scope's line is its own already: leave it out")
	}
	if p.Reads.Lease {
		c.problem("reads.lease", "not offered: a leader that was paused, or whose group sleeps, cannot tell how old its majority's word is, and would answer with the past")
	}
	known := Bindable()
	for _, name := range p.Binding {
		if !slices.Contains(known, name) {
			c.problem("binding", "%q is no field that can be bound: want some of %s", name, strings.Join(known, ", "))
			return
		}
	}
}
