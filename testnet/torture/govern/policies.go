package govern

import (
	"fmt"
	"math/rand/v2"
)

// Bad is how values begin that the rule of every scope forbids.
const Bad = "bad"

// Scope is one that stays during the run.
type Scope struct {
	Name, Prefix string
	// Approvals: writes need them, whatever the version.
	Approvals bool
	Light     bool  // whatever the version
	KeysMax   int64 // no version allows more; 0: some do
}

// keysMax is the largest quota of keys.
const keysMax = 8000

// standing are the scopes that stay.
func standing() []Scope {
	return []Scope{
		{Name: "light", Light: true},
		{Name: "own", KeysMax: keysMax},
		{Name: "strong", Approvals: true},
		{Name: "turning"},
	}
}

func one(rng *rand.Rand, of ...string) string { return of[rng.IntN(len(of))] }

// document draws a policy for a scope. Many of what it draws differ in one thing only.
func document(rng *rand.Rand, name string, nodes int) string {
	anchors := 3
	if nodes >= 5 && rng.IntN(3) == 0 {
		anchors = 5
	}
	text := ""
	switch name {
	case "light":
		text = "class: light\n"
	case "turning":
		text = "class: " + one(rng, "light", "normal") + "\n"
	case "own":
		text = fmt.Sprintf("line: %s\nquota: {keys: %d}\n", one(rng, "own", "own", "shared"), 4000+rng.IntN(keysMax-4000+1))
	case "strong":
		text = fmt.Sprintf("class: strong\nacks: {count: %d}\napprovals: {threshold: %s}\namend: {threshold: %s}\n",
			anchors/2+1+rng.IntN(2), one(rng, "1/2", "3/5"), one(rng, "1/2", "3/5"))
	default:
		text = "class: " + one(rng, "light", "normal", fmt.Sprintf("strong\nacks: {count: %d}", anchors/2+1)) + "\n"
	}
	return text + fmt.Sprintf("anchors: {count: %d}\nwrites:\n  value_bytes_max: %d\n  rules:\n    - {name: good, expr: 'deleted || !string(new).startsWith(%q)'}\n",
		anchors, 100_000+rng.IntN(1000), Bad)
}
