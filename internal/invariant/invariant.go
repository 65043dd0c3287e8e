package invariant

import "fmt"

// Violation is the value of the panic of a broken invariant.
type Violation string

// Error makes a Violation readable in a crash report.
func (v Violation) Error() string { return "broken invariant: " + string(v) }

// Always panics with the formatted state if cond is false. The arguments are
// evaluated and boxed on every call; where that counts, write the condition out
// and call Broken.
func Always(cond bool, format string, args ...any) {
	if !cond {
		fail(format, args)
	}
}

// Broken panics with the formatted state.
func Broken(format string, args ...any) { fail(format, args) }

// Costly runs check in builds with the tag "invariants" and panics with the
// error it returns. In other builds the call costs nothing, and neither does
// the closure as long as it does not escape.
func Costly(check func() error) {
	if !Enabled {
		return
	}
	if err := check(); err != nil {
		fail("%v", []any{err})
	}
}

// fail is kept out of line so that Always can be inlined.
//
//go:noinline
func fail(format string, args []any) {
	panic(Violation(fmt.Sprintf(format, args...)))
}
