package consensus

import (
	"errors"
	"testing"

	"github.com/anchormesh/anchormesh/consensus/replica"
)

// FuzzSurvivor: what a stopped group's log holds is read or refused, and an entry of
// another term than the one it was proposed in is refused when it is applied.
func FuzzSurvivor(f *testing.F) {
	f.Add(uint64(3), []byte{1, 3, 1, 9, 1, 1, 'x'})
	f.Add(uint64(3), []byte{})
	f.Fuzz(func(t *testing.T, term uint64, data []byte) {
		entry := Entry{Index: 7, Term: term}
		if err := read(&entry, data); err != nil && !errors.Is(err, replica.ErrEnvelope) {
			t.Fatal(err)
		}
		env, err := replica.ParseEnvelope(data)
		if err == nil && (entry.Refused != (env.Term != term) || len(entry.Payloads) != len(env.Payloads)) {
			t.Fatalf("%+v was read as %+v", env, entry)
		}
	})
}
