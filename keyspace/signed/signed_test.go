package signed_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anchormesh/anchormesh/keyspace/signed"
)

func keyOf(n byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32)) }

func publicOf(n byte) signed.Key { return signed.Key(keyOf(n).Public().(ed25519.PublicKey)) }

func message() *signed.Message {
	return &signed.Message{Mesh: 7, Scope: "/secrets/", Method: 1, Request: []byte("request")}
}

func TestProof(t *testing.T) {
	proof := signed.Sign(keyOf(1), 9, message())
	p, err := signed.Verify(proof, message())
	if err != nil || p.Counter != 9 || p.Key != publicOf(1) {
		t.Fatalf("%+v, %v", p, err)
	}
	for i := range proof {
		bad := bytes.Clone(proof)
		bad[i] ^= 1
		if _, err := signed.Verify(bad, message()); !errors.Is(err, signed.ErrProof) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	for name, change := range map[string]func(*signed.Message){
		"mesh": func(m *signed.Message) { m.Mesh++ }, "scope": func(m *signed.Message) { m.Scope = "/secrets" },
		"method": func(m *signed.Message) { m.Method++ }, "request": func(m *signed.Message) { m.Request = nil },
	} {
		m := message()
		change(m)
		if _, err := signed.Verify(proof, m); !errors.Is(err, signed.ErrProof) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if _, err := signed.Verify(signed.Sign(keyOf(1), 0, message()), message()); err == nil {
		t.Error("counter 0 serves")
	}
}

// The peer ID is libp2p's.
func TestPeer(t *testing.T) {
	for n := byte(0); n < 50; n++ {
		pub, err := crypto.UnmarshalEd25519PublicKey(keyOf(n).Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		want, err := peer.IDFromPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		if got := publicOf(n).Peer(); got != want.String() {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// Against a set of everything used: no counter serves twice, and none is refused that is
// new and near.
func TestCountersServeOnce(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var s signed.Signers
		used, high := map[uint64]bool{}, uint64(0)
		for range 4000 {
			c := uint64(1)
			switch base := int64(high); rng.IntN(12) {
			case 0:
				c = high + 1 + rng.Uint64N(200)
			case 1:
				c = uint64(max(1, base-signed.WindowBits-2+rng.Int64N(6)))
			case 2:
				if rng.IntN(100) == 0 {
					c = high + 3000
				}
			default:
				c = uint64(max(1, base-rng.Int64N(1100)))
			}
			_, err := s.Use(publicOf(1), c)
			if want := used[c] || c+signed.WindowBits < high; want != (err != nil) {
				t.Fatalf("seed %d: counter %d, highest %d, used before %v: %v", seed, c, high, used[c], err)
			}
			if err == nil {
				used[c], high = true, max(high, c)
			}
			if rng.IntN(50) == 0 {
				s = reloaded(t, &s)
			}
		}
	}
}

func reloaded(t *testing.T, s *signed.Signers) (out signed.Signers) {
	t.Helper()
	for _, r := range s.Rows() {
		if err := out.Load(r.Key, r.Value); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// What two halves of a segment have seen is used in the whole, and what neither has is
// not.
func TestJoin(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var halves [2]signed.Signers
		used, high := map[uint64]bool{}, uint64(0)
		for range 500 {
			c := 1 + rng.Uint64N(3000)
			if _, err := halves[rng.IntN(2)].Use(publicOf(1), c); err == nil {
				used[c], high = true, max(high, c)
			}
		}
		halves[0].Join(&halves[1])
		for c := 1 + seed; c < 3000; c += 7 {
			probe := reloaded(t, &halves[0])
			_, err := probe.Use(publicOf(1), c)
			if want := used[c] || c+signed.WindowBits < high; want != (err != nil) {
				t.Fatalf("seed %d: counter %d, highest %d, used %v: %v", seed, c, high, used[c], err)
			}
		}
	}
}

// One signer more than are remembered takes the place of the lowest, which then is refused
// as too old, as is everybody at or below it.
func TestSignersAreBounded(t *testing.T) {
	var s signed.Signers
	key := func(n int) (k signed.Key) {
		binary.BigEndian.PutUint64(k[:], uint64(n))
		return k
	}
	rows := map[string]bool{}
	use := func(n int, c uint64) error {
		changed, err := s.Use(key(n), c)
		for _, r := range changed {
			if rows[string(r.Key)] = true; r.Value == nil {
				delete(rows, string(r.Key))
			}
		}
		return err
	}
	for n := range signed.SignersMax {
		if err := use(n, uint64(1000+n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := use(-1, 1000); !errors.Is(err, signed.ErrReplay) {
		t.Errorf("below the lowest: %v", err)
	}
	if err := use(-1, 5_000_000); err != nil {
		t.Error(err)
	}
	if err := use(0, 1000); !errors.Is(err, signed.ErrReplay) {
		t.Errorf("who was dropped, with a counter it has used: %v", err)
	}
	if err := use(-2, 1000); !errors.Is(err, signed.ErrReplay) {
		t.Errorf("new, at the floor: %v", err)
	}
	if got := len(s.Rows()); got != signed.SignersMax+1 || got != len(rows) {
		t.Errorf("%d rows, %d stored", got, len(rows))
	}
	again := reloaded(t, &s)
	if _, err := again.Use(key(0), 1000); !errors.Is(err, signed.ErrReplay) {
		t.Errorf("after a restart: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(signed.Sign(keyOf(1), 9, message()))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := signed.Verify(b, message())
		if err == nil && !bytes.Equal(signed.Sign(keyOf(1), p.Counter, message()), b) && p.Key == publicOf(1) {
			t.Fatalf("%x is no signature of ours", b)
		}
		var s signed.Signers
		_ = s.Load(b, b)
	})
}
