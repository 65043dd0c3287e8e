package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/node/machine"
)

// ErrGovernance: the mesh was not governed as its policies say.
var ErrGovernance = errors.New("the mesh was not governed by its policies")

// Verdict is what one auditor says.
type Verdict struct {
	Name    string
	Judged  int
	Unknown int // could not be judged: what it depends on is not kept any more
	Err     error
}

func (v *Verdict) broken(format string, args ...any) {
	if v.Err == nil { // the first one tells enough
		v.Err = fmt.Errorf("%w: %s", ErrGovernance, fmt.Sprintf(format, args...))
	}
}

// Put is a version of a key that somebody was shown.
type Put struct {
	Key, Value string
	Revision   int64
}

// Case is what is judged.
type Case struct {
	Books *Books
	// Puts were shown in scopes that wanted approvals all the time.
	Puts []Put
	// Asked is what operators asked for, and were told.
	Asked []Asked
	// Verify checks a signature of a node.
	Verify machine.Verify
}

// Judge runs every auditor.
func Judge(c *Case) []Verdict {
	p := newPast(c.Books)
	l := newLedgers(c.Books, p, c.Verify)
	return []Verdict{
		forks(c.Books),
		approvals(c, p, l),
		decisions(c, p, l),
		structure(c, p, l),
		versions(c.Books, p),
		l.judge(),
		changes(c),
	}
}

func forks(b *Books) Verdict {
	v := Verdict{Name: "logs: no two nodes committed different entries at one place"}
	for _, log := range b.Logs {
		v.Judged += len(log.Entries)
	}
	if len(b.Forks) > 0 {
		v.broken("%s", strings.Join(b.Forks, "; "))
	}
	return v
}

// segments returns those that have a log, in order.
func (b *Books) segments() (out []anchormesh.SegmentID) {
	for id := range b.Logs {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}
