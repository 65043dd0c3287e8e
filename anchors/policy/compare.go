package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Problem says what is wrong with a field, and why.
type Problem struct {
	Field  string // its name in YAML
	Reason string
}

// Error implements error.
func (p *Problem) Error() string { return p.Field + ": " + p.Reason }

// Change is a field in which two policies differ, in words.
type Change struct{ Field, Old, New string }

// Diff lists the fields in which two policies differ, in the order of the type.
func Diff(old, new *Policy) []Change {
	var out []Change
	old, new = old.Normal(), new.Normal()
	for _, f := range fields {
		if a, b := f.text(old), f.text(new); a != b {
			out = append(out, Change{f.name, a, b})
		}
	}
	return out
}

// Describe lists all fields with their values in words.
func (p *Policy) Describe() []Change {
	var out []Change
	for _, f := range fields {
		out = append(out, Change{Field: f.name, New: f.text(p)})
	}
	return out
}

// Weakens says which fields of a scope's policy are laxer than the policy of the
// scope around it allows: each a Problem, joined. Fields that the outer scope does
// not bind are free.
//
// What counts as stricter:
//
//	class                  light < normal < strong
//	anchors.*              more
//	acks                   more anchors, with all those that the policies ask for
//	approvals, amend       the greater fraction; unset approvals are none, and an
//	                       unset amend.threshold is more than half, above 1/2
//	amend.expiry_seconds   shorter
//	writes.*, reads.leader_only, amend.manual, structure.no_*, retention.own_compaction
//	                       yes
//	writes.*_max, quota.*  smaller; unset is no bound
//	writes.writers         fewer of the same; nobody named is everybody
//	writes.rules           all the outer ones, word for word, and perhaps more
//	priority               smaller
//	retention.*            longer: what is promised is history; unset is all of it
//	reads.lease            no
//
// The other fields have no order and cannot be bound. A scope must bind what the
// one around it does: so nothing gets laxer on the way in.
func Weakens(around, inside *Policy) error {
	var problems []error
	var unnamed []string
	mine := bindings(inside.Binding)
	for _, f := range fields {
		if !bindings(around.Binding)[f.name] || f.laxer == nil {
			continue
		}
		if f.laxer(around, inside) {
			problems = append(problems, &Problem{f.name, fmt.Sprintf("%s is laxer than %s, which the scope around it binds", f.text(inside), f.text(around))})
		}
		if !mine[f.name] {
			unnamed = append(unnamed, f.name)
		}
	}
	if len(unnamed) > 0 {
		problems = append(problems, &Problem{"binding", "must name " + strings.Join(unnamed, ", ") + ", as the scope around it does"})
	}
	return errors.Join(problems...)
}

// bindings names the fields that a list binds: a section stands for all its fields
// that have an order.
func bindings(list []string) map[string]bool {
	out := make(map[string]bool)
	for _, f := range fields {
		if f.laxer == nil {
			continue
		}
		section, _, _ := strings.Cut(f.name, ".")
		if slices.Contains(list, f.name) || slices.Contains(list, section) {
			out[f.name] = true
		}
	}
	return out
}

// Bindable lists what a policy can bind: fields, and sections for all their fields.
func Bindable() []string {
	var out []string
	for _, f := range fields {
		section, _, inside := strings.Cut(f.name, ".")
		if f.laxer == nil {
			continue
		}
		if inside && !slices.Contains(out, section) {
			out = append(out, section)
		}
		out = append(out, f.name)
	}
	return out
}
