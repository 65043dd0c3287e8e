package summary

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
)

const meshID = anchormesh.MeshID(7)

var private = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func key() (k [keyBytes]byte) {
	copy(k[:], private.Public().(ed25519.PublicKey))
	return k
}

func sign(b []byte) []byte { return ed25519.Sign(private, b) }

func verify(k [keyBytes]byte, statement, signature []byte) bool {
	return ed25519.Verify(k[:], statement, signature)
}

// busy is a node of a large mesh on a bad day.
var busy = Summary{
	Epoch: 1 << 51, Leaving: true, Pressure: 25_000, Load: 4_000_000, FreeMiB: 64 << 20, Room: 10_000,
	Replicas: 10_000, Leaders: 10_000, Sleeping: 10_000, Leases: 10_000_000,
}

// TestSizeFitsTheArithmetic: 200 bytes is what the rates are made for, and even
// numbers without any sense fit.
func TestSizeFitsTheArithmetic(t *testing.T) {
	typical := len(Summary{Epoch: 1 << 51, Pressure: 700, Load: 9000, FreeMiB: 100_000, Room: 700, Replicas: 300, Leaders: 100, Sleeping: 250, Leases: 500}.Seal(meshID, key(), sign))
	bad := len(busy.Seal(meshID, key(), sign))
	worst := Summary{}
	for _, n := range worst.numbers() {
		*n = 1<<64 - 1
	}
	most := len(worst.Seal(meshID, key(), sign))
	t.Logf("typical %d bytes, a bad day %d, the largest %d", typical, bad, most)
	if typical > 130 || bad > 140 || most > BytesMax {
		t.Errorf("typical %d bytes, a bad day %d, the largest %d", typical, bad, most)
	}
	if s := (Summary{}).Seal(meshID, key(), sign); len(s) != 1+32+8+1+9+64 {
		t.Errorf("the smallest has %d bytes", len(s))
	}
}

func TestRoundTripAndForgery(t *testing.T) {
	for _, s := range []Summary{{}, busy} {
		b := s.Seal(meshID, key(), sign)
		if k, got, err := Open(b, meshID, verify); err != nil || k != key() || got != s {
			t.Fatalf("%+v became %+v, %v", s, got, err)
		}
		if _, _, err := Open(b, meshID+1, verify); !errors.Is(err, ErrForged) {
			t.Errorf("another mesh: %v", err)
		}
		for i := range b {
			b[i] ^= 0x40
			if _, _, err := Open(b, meshID, verify); err == nil {
				t.Errorf("byte %d altered, and it passes", i)
			}
			b[i] ^= 0x40
		}
		if _, _, err := Open(b[:len(b)-1], meshID, verify); err == nil {
			t.Error("cut short, and it passes")
		}
	}
}

// TestRates: all nodes together stay within half of what memberlist carries.
func TestRates(t *testing.T) {
	for _, c := range []struct {
		nodes   int
		repeats int
		want    time.Duration
	}{{1, 4, 5 * time.Second}, {3, 4, 5 * time.Second}, {30, 8, 5 * time.Second}, {100, 12, 22857142857}, {1000, 16, 304761904761}} {
		every := Every(c.nodes)
		if every != c.want {
			t.Errorf("%d nodes: every %v, want %v", c.nodes, every, c.want)
		}
		perSecond := float64(c.nodes*c.repeats*BytesMax) / every.Seconds()
		if perSecond > 21_000/2+1 {
			t.Errorf("%d nodes: each sends %.0f bytes a second", c.nodes, perSecond)
		}
	}
}

func TestWorthTelling(t *testing.T) {
	base := Summary{Pressure: 800, Load: 8000, FreeMiB: 100_000, Room: 1, Replicas: 80, Leaders: 40, Sleeping: 20, Leases: 1000}
	for name, c := range map[string]struct {
		edit  func(*Summary)
		worth bool
	}{
		"nothing":         {func(s *Summary) { s.Epoch++ }, false},
		"noise":           {func(s *Summary) { s.Pressure += 90; s.Load -= 900; s.FreeMiB += 900; s.Leases += 200 }, false},
		"leaving":         {func(s *Summary) { s.Leaving = true }, true},
		"pressure":        {func(s *Summary) { s.Pressure += 200 }, true},
		"replicas halved": {func(s *Summary) { s.Replicas /= 2 }, true},
		"full disk":       {func(s *Summary) { s.FreeMiB = 0 }, true},
		"no room":         {func(s *Summary) { s.Room = 0 }, true},
		"leases":          {func(s *Summary) { s.Leases += 300 }, true},
	} {
		s := base
		c.edit(&s)
		if got := s.Worth(base); got != c.worth {
			t.Errorf("%s: worth telling %v, want %v", name, got, c.worth)
		}
	}
}

// FuzzOpen: whatever passes has one form.
func FuzzOpen(f *testing.F) {
	f.Add(busy.Seal(meshID, key(), sign))
	f.Add(Summary{}.Seal(meshID, key(), sign))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, s, err := Open(b, meshID, func([keyBytes]byte, []byte, []byte) bool { return true })
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrForged) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again := s.Seal(meshID, k, func([]byte) []byte { return b[len(b)-sigBytes:] })
		if string(again) != string(b) {
			t.Fatalf("two forms of one summary: %x", b)
		}
	})
}
