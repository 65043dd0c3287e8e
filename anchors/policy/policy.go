package policy

import (
	"github.com/anchormesh/anchormesh"
)

// Policy is a scope's rules. Its zero value is not valid: start from a preset.
// It holds no pointer into another; treat one that is shared as read-only.
//
// The JSON form, fields in this order and empty ones left out, is the canonical
// encoding (see Encode).
type Policy struct {
	// Class says what an acknowledged write survives.
	Class     Class     `json:"class" yaml:"class"`
	Anchors   Anchors   `json:"anchors" yaml:"anchors"`
	Acks      Acks      `json:"acks,omitzero" yaml:"acks"`
	Approvals Approvals `json:"approvals,omitzero" yaml:"approvals"`
	Amend     Amend     `json:"amend,omitzero" yaml:"amend"`
	Writes    Writes    `json:"writes,omitzero" yaml:"writes"`
	Quota     Quota     `json:"quota,omitzero" yaml:"quota"`
	// Priority orders scopes that wait for the same node's time: 1 (least) to 9; 0 is 5.
	Priority  int       `json:"priority,omitempty" yaml:"priority"`
	Structure Structure `json:"structure,omitzero" yaml:"structure"`
	Retention Retention `json:"retention,omitzero" yaml:"retention"`
	Reads     Reads     `json:"reads,omitzero" yaml:"reads"`
	// Line says whose line of revisions the scope's writes are on.
	Line Line `json:"line,omitempty" yaml:"line"`
	// Binding names the fields that scopes inside this one may only tighten, by
	// their names in YAML ("class", "anchors.count", "writes.rules").
	Binding []string `json:"binding,omitempty" yaml:"binding"`
}

// Class is anchormesh.Class with its words.
type Class = anchormesh.Class

// Anchors says who governs the scope.
type Anchors struct {
	Count    int `json:"count" yaml:"count"`                   // 1, 3, 5 or 7
	Zones    int `json:"zones,omitempty" yaml:"zones"`         // at least so many different zones; 0: as many as there are
	MinTrust int `json:"min_trust,omitempty" yaml:"min_trust"` // weight that a candidate must have; 0: any
}

// Acks says how many anchors must have a write on disk before it is answered.
type Acks struct {
	All   bool `json:"all,omitempty" yaml:"all"`
	Count int  `json:"count,omitempty" yaml:"count"` // 0: a majority
}

// Approvals says that each write is judged by the anchors before it is proposed.
type Approvals struct {
	Threshold Fraction `json:"threshold,omitzero" yaml:"threshold"` // of the effective trust; zero: writes need none
}

// Amend says who changes the policy.
type Amend struct {
	Threshold Fraction `json:"threshold,omitzero" yaml:"threshold"` // of the effective trust; zero: more than half
	// Manual: anchors do not vote by themselves; an operator votes at each.
	Manual bool `json:"manual,omitempty" yaml:"manual"`
	// ExpirySeconds is how long a proposal stays open; 0: 600.
	ExpirySeconds int `json:"expiry_seconds,omitempty" yaml:"expiry_seconds"`
}

// Writes says what may be written.
type Writes struct {
	CreateOnly    bool     `json:"create_only,omitempty" yaml:"create_only"`   // keys are never changed nor deleted by a put
	AppendOnly    bool     `json:"append_only,omitempty" yaml:"append_only"`   // a new value begins with the old one; nothing is deleted
	TTLRequired   bool     `json:"ttl_required,omitempty" yaml:"ttl_required"` // every key hangs on a lease
	KeyBytesMax   int      `json:"key_bytes_max,omitempty" yaml:"key_bytes_max"`
	ValueBytesMax int      `json:"value_bytes_max,omitempty" yaml:"value_bytes_max"`
	Writers       []string `json:"writers,omitempty" yaml:"writers"` // users or peer IDs; empty: everybody
	Signed        bool     `json:"signed,omitempty" yaml:"signed"`   // only peers that signed what they write
	Rules         []Rule   `json:"rules,omitempty" yaml:"rules"`
}

// Rule is a CEL expression that must be true of every key a write touches. Rules
// are told apart by their names, which refusals give.
type Rule struct {
	Name string `json:"name" yaml:"name"`
	Expr string `json:"expr" yaml:"expr"`
}

// Quota bounds what the scope may use. Zero fields do not bound.
type Quota struct {
	Bytes             int64 `json:"bytes,omitempty" yaml:"bytes"`
	Keys              int64 `json:"keys,omitempty" yaml:"keys"`
	RequestsPerSecond int   `json:"requests_per_second,omitempty" yaml:"requests_per_second"` // per scope, over all nodes
}

// Structure bounds how the scope is cut. Zero fields take the node's defaults.
type Structure struct {
	NoSplit        bool  `json:"no_split,omitempty" yaml:"no_split"`
	NoMerge        bool  `json:"no_merge,omitempty" yaml:"no_merge"`
	SplitWrites    int   `json:"split_writes_per_second,omitempty" yaml:"split_writes_per_second"`
	SplitReads     int   `json:"split_reads_per_second,omitempty" yaml:"split_reads_per_second"`
	SplitBytes     int64 `json:"split_bytes,omitempty" yaml:"split_bytes"`
	SplitKeys      int64 `json:"split_keys,omitempty" yaml:"split_keys"`
	DormantSeconds int   `json:"dormant_seconds,omitempty" yaml:"dormant_seconds"`
}

// Retention says how much history is kept. Zero: until somebody compacts.
type Retention struct {
	Seconds int   `json:"seconds,omitempty" yaml:"seconds"`
	Writes  int64 `json:"writes,omitempty" yaml:"writes"`
	// OwnCompaction: a Compact of a range around the scope leaves it out.
	OwnCompaction bool `json:"own_compaction,omitempty" yaml:"own_compaction"`
}

// Reads says who may answer them.
type Reads struct {
	// LeaderOnly: followers answer no serializable reads.
	LeaderOnly bool `json:"leader_only,omitempty" yaml:"leader_only"`
	// Lease: the leader answers linearizable reads without a round while a majority
	// has heard it within an election timeout. Faster, and only as good as the clocks' rates:
	// Validate refuses it.
	Lease bool `json:"lease,omitempty" yaml:"lease"`
}

// Line says whose line of revisions a scope is on.
type Line string

const (
	// Shared: that of the scope around it. One order, and one snapshot, with the rest.
	Shared Line = "shared"
	// Own: its own. Nothing elsewhere can hold it up, and only reads over both compare them.
	Own Line = "own"
)
