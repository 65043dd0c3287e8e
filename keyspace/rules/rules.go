package rules

import (
	"bytes"
	"fmt"
	"slices"
)

// Limits of what a policy may ask for.
const (
	// CostMax is how many steps of CEL one rule may take for one key. A step is a
	// function or a variable; bytes that are looked at count a tenth: two of a megabyte
	// can be compared.
	CostMax = 250_000
	// ExprBytesMax is the longest expression.
	ExprBytesMax = 4096
	// ExprsMax is how many expressions a scope may have.
	ExprsMax = 32
	// WritersMax is how many writers a scope may name.
	WritersMax = 1024
)

// Rules is what a scope's policy says of writes. Zero fields say nothing.
type Rules struct {
	Scope         string // its prefix, for what refusals say
	CreateOnly    bool
	AppendOnly    bool
	TTLRequired   bool
	KeyBytesMax   int
	ValueBytesMax int
	Writers       []string // users or peer IDs
	Signed        bool
	Exprs         []Expr
}

// Expr is a CEL expression with its name.
type Expr struct{ Name, Text string }

// Empty reports whether nothing is refused.
func (r *Rules) Empty() bool {
	return !r.CreateOnly && !r.AppendOnly && !r.TTLRequired && r.KeyBytesMax == 0 && r.ValueBytesMax == 0 &&
		len(r.Writers) == 0 && !r.Signed && len(r.Exprs) == 0
}

// Write is one key that a request touches.
type Write struct {
	Key     []byte
	Old     Version // what it replaces
	New     []byte  // nil for a deletion
	Deleted bool
	Lease   int64 // behind a put
	By      Writer
}

// Version is a key as it is. The zero Version is a key that does not exist.
type Version struct {
	Value    []byte
	Revision int64
}

// Writer is who writes.
type Writer struct {
	User, Peer string
	Signed     bool // the peer's signature of the request was verified
}

// Refusal is the error of a write that a rule forbids.
type Refusal struct {
	Scope, Rule, Key string
	Reason           string
	// Denied says that it is about who writes, and not about what is written.
	Denied bool
}

// Error is the text that the client gets.
func (r *Refusal) Error() string {
	return fmt.Sprintf("etcdserver: rule %s of scope %q refuses to write key %q: %s", r.Rule, r.Scope, r.Key, r.Reason)
}

// Judge is a scope's rules, compiled.
type Judge struct {
	rules   Rules
	exprs   []program
	writers map[string]bool
	reads   bool
	closed  string // why nothing is admitted
}

// Compile compiles the rules. The error is a *CompileError, or says which limit is
// exceeded.
func Compile(r Rules) (*Judge, error) {
	switch {
	case len(r.Exprs) > ExprsMax:
		return nil, fmt.Errorf("rules: %d expressions, at most %d are possible", len(r.Exprs), ExprsMax)
	case len(r.Writers) > WritersMax:
		return nil, fmt.Errorf("rules: %d writers, at most %d are possible", len(r.Writers), WritersMax)
	case r.KeyBytesMax < 0 || r.ValueBytesMax < 0:
		return nil, fmt.Errorf("rules: limits of %d key bytes and %d value bytes, want none below 0", r.KeyBytesMax, r.ValueBytesMax)
	}
	r.Exprs, r.Writers = slices.Clone(r.Exprs), slices.Clone(r.Writers)
	j := &Judge{rules: r, reads: r.CreateOnly || r.AppendOnly}
	if len(r.Writers) > 0 {
		j.writers = make(map[string]bool, len(r.Writers))
		for _, w := range r.Writers {
			j.writers[w] = true
		}
	}
	for _, e := range r.Exprs {
		p, err := compile(e)
		if err != nil {
			return nil, err
		}
		j.exprs = append(j.exprs, p)
		j.reads = j.reads || p.reads
	}
	return j, nil
}

// Rules returns what was compiled.
func (j *Judge) Rules() Rules { return j.rules }

// Reads reports whether Write.Old counts. If not, it may be left out.
func (j *Judge) Reads() bool { return j.reads }

// Deletes reports whether a deletion can be refused for the key's sake. If not, it is
// enough to ask Admit.
func (j *Judge) Deletes() bool { return j.rules.AppendOnly || len(j.exprs) > 0 || j.closed != "" }

// Asks reports whether Write.By counts.
func (j *Judge) Asks() bool {
	return j.closed != "" || j.rules.Signed || len(j.writers) > 0 || slices.ContainsFunc(j.exprs, func(p program) bool { return p.asks })
}

// Signed reports whether only signed writes are admitted.
func (j *Judge) Signed() bool { return j.rules.Signed }

// Admit judges who writes, whatever is written. key is one of the keys, for the text.
// The error is a *Refusal.
func (j *Judge) Admit(by *Writer, key []byte) error {
	switch {
	case j.closed != "":
		return j.refused("policy", key, "its rules cannot be compiled: "+j.closed)
	case j.rules.Signed && !by.Signed:
		return j.Denied("signed", key, "the request carries no signature of its writer")
	case j.writers == nil:
	case by.User != "" && j.writers[by.User] || by.Peer != "" && j.writers[by.Peer]:
	case by.User == "" && by.Peer == "":
		return j.Denied("writers", key, "the writer is not known")
	default:
		return j.Denied("writers", key, fmt.Sprintf("user %q, peer %q is none of its writers", by.User, by.Peer))
	}
	return nil
}

// Judge judges one write; Admit is not asked. The error is a *Refusal.
func (j *Judge) Judge(w *Write) error {
	if r, reason := j.broken(w); r != "" {
		return j.refused(r, w.Key, reason)
	}
	if len(j.exprs) == 0 {
		return nil
	}
	names := activation{w: w}
	for i := range j.exprs {
		if reason := j.exprs[i].judge(&names); reason != "" {
			return j.refused(j.exprs[i].name, w.Key, reason)
		}
	}
	return nil
}

// broken names the first fixed rule that the write breaks.
func (j *Judge) broken(w *Write) (rule, reason string) {
	r := &j.rules
	exists := w.Old.Revision != 0
	if w.Deleted {
		if r.AppendOnly && exists {
			return "append_only", "nothing is deleted"
		}
		return "", ""
	}
	switch {
	case r.CreateOnly && exists:
		return "create_only", "it exists"
	case r.AppendOnly && exists && !bytes.HasPrefix(w.New, w.Old.Value):
		return "append_only", "the new value does not begin with the old one"
	case r.TTLRequired && w.Lease == 0:
		return "ttl_required", "it would hang on no lease"
	case r.KeyBytesMax > 0 && len(w.Key) > r.KeyBytesMax:
		return "key_bytes_max", fmt.Sprintf("it has %d bytes, at most %d are allowed", len(w.Key), r.KeyBytesMax)
	case r.ValueBytesMax > 0 && len(w.New) > r.ValueBytesMax:
		return "value_bytes_max", fmt.Sprintf("the value has %d bytes, at most %d are allowed", len(w.New), r.ValueBytesMax)
	}
	return "", ""
}

// shownKeyMax is how much of a key a refusal shows.
const shownKeyMax = 256

func (j *Judge) refused(rule string, key []byte, reason string) error {
	if len(key) > shownKeyMax {
		key = key[:shownKeyMax]
	}
	return &Refusal{Scope: j.rules.Scope, Rule: rule, Key: string(key), Reason: reason}
}

// Denied is the refusal of a writer.
func (j *Judge) Denied(rule string, key []byte, reason string) error {
	err := j.refused(rule, key, reason).(*Refusal)
	err.Denied = true
	return err
}

// Closed is the judge of rules that cannot be compiled, for the reason given: it
// refuses every write.
func Closed(r Rules, why error) *Judge {
	return &Judge{rules: r, closed: why.Error()}
}
