package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh"
)

// field is what comparisons need to know of one field of a policy.
type field struct {
	name string
	text func(*Policy) string // its value in words
	// laxer reports whether the policy of a scope promises less there than that of
	// the scope around it; nil: the field has no order, and cannot be bound.
	laxer func(around, inside *Policy) bool
}

// fields lists all in the order of the type. The two ways to say how many acks
// there are, all and count, are one field.
var fields = slices.Concat(contractFields, writeFields, useFields)

var contractFields = []field{
	{"class", func(p *Policy) string { return p.Class.String() }, least(func(p *Policy) int { return strength(p.Class) })},
	{"anchors.count", func(p *Policy) string { return strconv.Itoa(p.Anchors.Count) }, least(func(p *Policy) int { return p.Anchors.Count })},
	{"anchors.zones", count("as many as there are", func(p *Policy) int { return p.Anchors.Zones }), least(func(p *Policy) int { return p.Anchors.Zones })},
	{"anchors.min_trust", count("any", func(p *Policy) int { return p.Anchors.MinTrust }), least(func(p *Policy) int { return p.Anchors.MinTrust })},
	{"acks", acksText, least((*Policy).AcksWanted)},
	{"approvals.threshold", approvalsText, func(around, inside *Policy) bool {
		return inside.Approvals.Threshold.compare(around.Approvals.Threshold) < 0
	}},
	{"amend.threshold", amendText, laxerAmend},
	{"amend.manual", truth(func(p *Policy) bool { return p.Amend.Manual }), kept(func(p *Policy) bool { return p.Amend.Manual })},
	{"amend.expiry_seconds", func(p *Policy) string { return age(p.AmendExpiry()) }, most(func(p *Policy) time.Duration { return p.AmendExpiry() })},
}

var writeFields = []field{
	{"writes.create_only", truth(func(p *Policy) bool { return p.Writes.CreateOnly }), kept(func(p *Policy) bool { return p.Writes.CreateOnly })},
	{"writes.append_only", truth(func(p *Policy) bool { return p.Writes.AppendOnly }), kept(func(p *Policy) bool { return p.Writes.AppendOnly })},
	{"writes.ttl_required", truth(func(p *Policy) bool { return p.Writes.TTLRequired }), kept(func(p *Policy) bool { return p.Writes.TTLRequired })},
	{"writes.key_bytes_max", count(unbounded, func(p *Policy) int { return p.Writes.KeyBytesMax }), bound(func(p *Policy) int { return p.Writes.KeyBytesMax })},
	{"writes.value_bytes_max", count(unbounded, func(p *Policy) int { return p.Writes.ValueBytesMax }), bound(func(p *Policy) int { return p.Writes.ValueBytesMax })},
	{"writes.writers", func(p *Policy) string { return list(names(p.Writes.Writers), "everybody") }, laxerWriters},
	{"writes.signed", truth(func(p *Policy) bool { return p.Writes.Signed }), kept(func(p *Policy) bool { return p.Writes.Signed })},
	{"writes.rules", rulesText, func(around, inside *Policy) bool {
		return slices.ContainsFunc(around.Writes.Rules, func(r Rule) bool { return !slices.Contains(inside.Writes.Rules, r) })
	}},
}

var useFields = []field{
	{"quota.bytes", count(unbounded, func(p *Policy) int64 { return p.Quota.Bytes }), bound(func(p *Policy) int64 { return p.Quota.Bytes })},
	{"quota.keys", count(unbounded, func(p *Policy) int64 { return p.Quota.Keys }), bound(func(p *Policy) int64 { return p.Quota.Keys })},
	{"quota.requests_per_second", count(unbounded, func(p *Policy) int { return p.Quota.RequestsPerSecond }), bound(func(p *Policy) int { return p.Quota.RequestsPerSecond })},
	{"priority", func(p *Policy) string { return strconv.Itoa(p.Urgency()) }, most((*Policy).Urgency)},
	{"structure.no_split", truth(func(p *Policy) bool { return p.Structure.NoSplit }), kept(func(p *Policy) bool { return p.Structure.NoSplit })},
	{"structure.no_merge", truth(func(p *Policy) bool { return p.Structure.NoMerge }), kept(func(p *Policy) bool { return p.Structure.NoMerge })},
	{"structure.split_writes_per_second", count(nodes, func(p *Policy) int { return p.Structure.SplitWrites }), nil},
	{"structure.split_reads_per_second", count(nodes, func(p *Policy) int { return p.Structure.SplitReads }), nil},
	{"structure.split_bytes", count(nodes, func(p *Policy) int64 { return p.Structure.SplitBytes }), nil},
	{"structure.split_keys", count(nodes, func(p *Policy) int64 { return p.Structure.SplitKeys }), nil},
	{"structure.dormant_seconds", period(nodes, func(p *Policy) int { return p.Structure.DormantSeconds }), nil},
	{"retention.seconds", period(uncompacted, func(p *Policy) int { return p.Retention.Seconds }), floor(func(p *Policy) int { return p.Retention.Seconds })},
	{"retention.writes", count(uncompacted, func(p *Policy) int64 { return p.Retention.Writes }), floor(func(p *Policy) int64 { return p.Retention.Writes })},
	{"retention.own_compaction", truth(func(p *Policy) bool { return p.Retention.OwnCompaction }), kept(func(p *Policy) bool { return p.Retention.OwnCompaction })},
	{"reads.leader_only", truth(func(p *Policy) bool { return p.Reads.LeaderOnly }), kept(func(p *Policy) bool { return p.Reads.LeaderOnly })},
	{"reads.lease", truth(func(p *Policy) bool { return p.Reads.Lease }), func(around, inside *Policy) bool { return inside.Reads.Lease && !around.Reads.Lease }},
	{"line", func(p *Policy) string { return string(cmp.Or(p.Line, Shared)) }, nil},
	{"binding", func(p *Policy) string { return list(names(p.Binding), "nothing") }, nil},
}

// Words for an unset field.
const (
	unbounded   = "unbounded"
	nodes       = "as the nodes are configured"
	uncompacted = "until somebody compacts"
)

// least: the scope inside may ask for more, not for less.
func least[T cmp.Ordered](value func(*Policy) T) func(around, inside *Policy) bool {
	return func(around, inside *Policy) bool { return value(inside) < value(around) }
}

// most: for less, not for more.
func most[T cmp.Ordered](value func(*Policy) T) func(around, inside *Policy) bool {
	return func(around, inside *Policy) bool { return value(inside) > value(around) }
}

// bound is most, with 0 for no bound at all.
func bound[T int | int64](value func(*Policy) T) func(around, inside *Policy) bool {
	return func(around, inside *Policy) bool {
		a, i := value(around), value(inside)
		return a != 0 && (i == 0 || i > a)
	}
}

// floor is least, with 0 for everything.
func floor[T int | int64](value func(*Policy) T) func(around, inside *Policy) bool {
	return func(around, inside *Policy) bool {
		a, i := value(around), value(inside)
		return i != 0 && (a == 0 || i < a)
	}
}

// kept: what is true stays true.
func kept(value func(*Policy) bool) func(around, inside *Policy) bool {
	return func(around, inside *Policy) bool { return value(around) && !value(inside) }
}

// laxerAmend: unset is more than half, which is stricter than a half.
func laxerAmend(around, inside *Policy) bool {
	a, i, half := around.Amend.Threshold, inside.Amend.Threshold, Fraction{1, 2}
	switch {
	case i.IsZero():
		return a.compare(half) > 0
	case a.IsZero():
		return i.compare(half) <= 0
	}
	return i.compare(a) < 0
}

func laxerWriters(around, inside *Policy) bool {
	a, i := around.Writes.Writers, inside.Writes.Writers
	return len(a) > 0 && (len(i) == 0 || slices.ContainsFunc(i, func(w string) bool { return !slices.Contains(a, w) }))
}

// strength orders the classes.
func strength(c anchormesh.Class) int {
	switch c {
	case anchormesh.Light:
		return 0
	case anchormesh.Strong:
		return 2
	}
	return 1
}

func truth(value func(*Policy) bool) func(*Policy) string {
	return func(p *Policy) string {
		if value(p) {
			return "yes"
		}
		return "no"
	}
}

func count[T int | int64](zero string, value func(*Policy) T) func(*Policy) string {
	return func(p *Policy) string {
		if n := value(p); n != 0 {
			return strconv.FormatInt(int64(n), 10)
		}
		return zero
	}
}

func period(zero string, value func(*Policy) int) func(*Policy) string {
	return func(p *Policy) string {
		if n := value(p); n != 0 {
			return age(time.Duration(n) * time.Second)
		}
		return zero
	}
}

// age is a duration without the units that are zero: "10m", "1h30m".
func age(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func list(of []string, none string) string {
	if len(of) == 0 {
		return none
	}
	return strings.Join(of, ", ")
}

func acksText(p *Policy) string {
	switch {
	case p.Acks.All:
		return "all"
	case p.Acks.Count > 0:
		return fmt.Sprintf("%d of %d", p.Acks.Count, p.Anchors.Count)
	}
	return "a majority"
}

func approvalsText(p *Policy) string { return cmp.Or(p.Approvals.Threshold.String(), "none") }

func amendText(p *Policy) string { return cmp.Or(p.Amend.Threshold.String(), "more than half") }

func rulesText(p *Policy) string {
	var out []string
	for _, r := range p.Writes.Rules {
		out = append(out, fmt.Sprintf("%s (%s)", r.Name, r.Expr))
	}
	return list(out, "none")
}

// AcksWanted is how many anchors must have a write before it is answered, when
// all that the policy asks for are there.
func (p *Policy) AcksWanted() int {
	majority := p.Anchors.Count/2 + 1
	switch {
	case p.Acks.All:
		return p.Anchors.Count
	case p.Acks.Count > 0:
		return p.Acks.Count
	}
	return majority
}

// Urgency is the priority, with its default.
func (p *Policy) Urgency() int { return cmp.Or(p.Priority, DefaultPriority) }

// AmendExpiry is how long a proposal stays open.
func (p *Policy) AmendExpiry() time.Duration {
	return time.Duration(cmp.Or(p.Amend.ExpirySeconds, DefaultExpirySeconds)) * time.Second
}
