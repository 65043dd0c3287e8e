package keyspace

import (
	"errors"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// FuzzApply applies entries of arbitrary requests: none may panic, whatever was
// let through above, and a replica that answers must stay equal to one that does
// not.
func FuzzApply(f *testing.F) {
	m := newModel(testIDs)
	m.rev = 20
	g := &traffic{rng: rand.New(rand.NewPCG(3, 3)), m: m}
	for range 200 {
		var entry []byte
		for range 6 {
			op, req := g.write()
			cmd := command(op, req)
			if g.one(3) {
				cmd = append(AppendStamp(nil, g.rng.Int64N(40)-2), cmd...)
			}
			entry = protowire.AppendBytes(entry, cmd)
		}
		f.Add(entry)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		var cmds [][]byte
		for len(entry) > 0 {
			cmd, n := protowire.ConsumeBytes(entry)
			if n < 0 {
				break
			}
			entry = entry[n:]
			if len(cmd) > 0 && knownOp(cmd) {
				cmds = append(cmds, cmd)
			}
		}
		a, b := newReplica(t), newReplica(t)
		for i := range uint64(2) {
			wanted, bare := a.space.Apply(i+1, 1, cmds, true), b.space.Apply(i+1, 1, cmds, false)
			for c := range cmds {
				if !errors.Is(bare[c].Err, wanted[c].Err) {
					t.Fatalf("command %d: %v without want, %v with", c, bare[c].Err, wanted[c].Err)
				}
			}
		}
		if x, y := digest(t, a.space), digest(t, b.space); x.hash != y.hash || len(x.leases) != len(y.leases) {
			t.Fatalf("replicas differ: %+v, %+v", x, y)
		}
		if _, err := a.space.HashKV(0); err != nil {
			t.Fatal(err)
		}
	})
}

// knownOp reports whether a program of this version may have written the command.
func knownOp(cmd []byte) bool {
	if _, inner, ok := CutStamp(cmd); ok {
		cmd = inner
	}
	return len(cmd) > 0 && Op(cmd[0]) >= OpPut && Op(cmd[0]) <= OpStamped
}
