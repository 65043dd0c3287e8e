package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// BytesMax bounds the encoding of a policy: it stands in log entries, and in the
// state of every segment of its scope.
const BytesMax = 16 << 10

// ErrMalformed is returned for bytes that are not the canonical encoding of a policy.
var ErrMalformed = errors.New("policy: malformed bytes")

// Defaults that stand for an unset field.
const (
	DefaultPriority      = 5
	DefaultExpirySeconds = 600
)

// Normal returns the policy in the form in which every meaning has one spelling:
// defaults unset, fractions in lowest terms, lists of names sorted and without
// repetitions. It shares nothing with p.
func (p *Policy) Normal() *Policy {
	out := *p
	if out.Priority == DefaultPriority {
		out.Priority = 0
	}
	if out.Amend.ExpirySeconds == DefaultExpirySeconds {
		out.Amend.ExpirySeconds = 0
	}
	if out.Line == Shared {
		out.Line = ""
	}
	out.Approvals.Threshold = p.Approvals.Threshold.reduced()
	out.Amend.Threshold = p.Amend.Threshold.reduced()
	out.Writes.Writers, out.Binding = names(p.Writes.Writers), names(p.Binding)
	out.Writes.Rules = nil
	if len(p.Writes.Rules) > 0 {
		out.Writes.Rules = slices.Clone(p.Writes.Rules)
	}
	return &out
}

// names sorts a list and drops repetitions; nil if it is empty.
func names(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	out := slices.Clone(list)
	slices.Sort(out)
	return slices.Compact(out)
}

// Encode returns the canonical encoding: the JSON of the normal form, without
// white space. The policy must be valid.
func (p *Policy) Encode() []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // rules are full of < and &&
	if err := enc.Encode(p.Normal()); err != nil {
		panic("policy: cannot be encoded: " + err.Error())
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// Decode reads what Encode wrote and refuses everything else. It does not judge
// whether the policy is valid: that was decided where it was adopted.
func Decode(b []byte) (*Policy, error) {
	if len(b) > BytesMax {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(b), BytesMax)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var p Policy
	if err := dec.Decode(&p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: more than one value", ErrMalformed)
	}
	// What reads the same but is spelled otherwise, other order and repeated fields
	// included, is not canonical.
	if !bytes.Equal(p.Encode(), b) {
		return nil, fmt.Errorf("%w: not in canonical form", ErrMalformed)
	}
	return &p, nil
}

// Hash is that of the canonical encoding.
func (p *Policy) Hash() anchormesh.Hash { return sha256.Sum256(p.Encode()) }

// Equal reports whether two policies mean the same.
func (p *Policy) Equal(o *Policy) bool { return bytes.Equal(p.Encode(), o.Encode()) }
