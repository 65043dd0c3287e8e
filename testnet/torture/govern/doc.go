// Package govern is operators who govern scopes while users work in them: scopes that
// stay, whose policies are amended again and again, and others that come and go.
//
//	scope    during the whole run
//	light    class light, three or five anchors
//	turning  normal and light in turn
//	own      a line of revisions of its own, or the shared one, in turn; a quota of keys
//	strong   acknowledgements and approvals, thresholds and anchors in turn
//
// In all of them a rule, which no amendment takes away, forbids values that begin with
// Bad.
//
// # Guarantees
//
// What is wanted is drawn from the seed. What comes of it is counted: Done (told to be in
// force), Refused (nothing happened), Late (it stands, and was not in force in time),
// Unknown. Report.Asked has every change with its operator's name, which no two share.
// At most TemporaryMax scopes that come and go are there at once. Settle waits until
// everything that was decided is in force.
//
// # What it does not do
//
// It judges nothing: package audit does.
package govern
