package frame

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

const testSeed = 0x1234abcd

// put writes a frame into a file image.
func put(file []byte, offset int64, seq uint64, payload []byte) (next int64) {
	b := make([]byte, HeaderBytes, Padded(len(payload)))
	b = append(b, payload...)
	Seal(b, testSeed, offset, seq, 7)
	copy(file[offset:], b)
	return offset + int64(Padded(len(payload)))
}

func judge(file []byte, offset int64, seq uint64) Verdict {
	return Judge(file[offset:], testSeed, offset, seq)
}

// randomPayload has zero runs long enough to blank whole sectors.
func randomPayload(rng *rand.Rand) []byte {
	p := make([]byte, rng.IntN(4000))
	for i := 0; i < len(p); {
		n := min(len(p)-i, 1+rng.IntN(1500))
		if rng.IntN(3) > 0 {
			for j := range n {
				p[i+j] = byte(rng.Uint32())
			}
		}
		i += n
	}
	return p
}

func TestGoldenFormat(t *testing.T) {
	file := make([]byte, 96)
	put(file, 32, 5, []byte("anchor"))
	want := "7d0b99df" + "06000000" + "0500000000000000" + "0700000000000000" + "296384bd" + "00000000" +
		hex.EncodeToString([]byte("anchor"))
	if got := hex.EncodeToString(file[32:70]); got != want {
		t.Fatalf("stored bytes changed:\n got %s\nwant %s", got, want)
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	file := make([]byte, 1024)
	put(file, 64, 5, []byte("payload"))
	h, ok := ParseHeader(file[64:], testSeed, 64)
	if !ok || h.Length != 7 || h.Seq != 5 || h.Mark != 7 || !h.Matches([]byte("payload")) || h.Matches([]byte("Payload")) {
		t.Fatalf("read back %+v, %v", h, ok)
	}
	if _, ok := ParseHeader(file[64:], testSeed+1, 64); ok {
		t.Fatal("a frame of another file was accepted")
	}
	if _, ok := ParseHeader(file[64:], testSeed, 96); ok {
		t.Fatal("a frame from another place was accepted")
	}
}

// TestEveryTearIsTorn loses every kind of subset of a frame's sectors.
func TestEveryTearIsTorn(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		before := make([]byte, 8192)
		at := put(before, 0, 1, []byte("before")) + Align*int64(rng.IntN(40))
		after := bytes.Clone(before)
		end := put(after, at, 2, randomPayload(rng))
		torn := bytes.Clone(before)
		for s := at / SectorBytes; s*SectorBytes < end; s++ {
			if rng.IntN(2) == 0 {
				copy(torn[s*SectorBytes:(s+1)*SectorBytes], after[s*SectorBytes:])
			}
		}
		want := Torn
		if bytes.Equal(torn, after) {
			want = Whole
		} else if bytes.Equal(torn, before) {
			want = End
		}
		if got := judge(torn, at, 2); got != want {
			t.Fatalf("seed %d: a torn frame was judged %v, want %v", seed, got, want)
		}
	}
}

// TestEveryFlipIsDamage changes one bit of a frame that was written.
func TestEveryFlipIsDamage(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		file := make([]byte, 8192)
		payload := randomPayload(rng)
		at := Align * int64(rng.IntN(40))
		put(file, at, 2, payload)
		bit := rng.IntN((HeaderBytes + len(payload)) * 8)
		file[int(at)+bit/8] ^= 1 << (bit % 8)
		if got := judge(file, at, 2); got != Damaged {
			t.Fatalf("seed %d: bit %d flipped, judged %v", seed, bit, got)
		}
	}
}

func TestLaterProvesCompleteness(t *testing.T) {
	file := make([]byte, 8192)
	second := put(file, 512, 1, bytes.Repeat([]byte("a"), 2000))
	put(file, second, 2, []byte("b"))
	clear(file[1024:1536])
	if got := judge(file, 512, 1); got != Torn {
		t.Fatalf("a lost sector was judged %v", got)
	}
	if at, ok := Later(file[512:], testSeed, 512, 1); !ok || at != second {
		t.Fatalf("later frame at %d, %v; want %d", at, ok, second)
	}
	if at, ok := Later(file[512:], testSeed, 512, 2); ok {
		t.Fatalf("found a frame above 2 at %d", at)
	}
}

func TestCopiesInPayloadsProveNothing(t *testing.T) {
	old := make([]byte, 4096)
	put(old, 512, 99, []byte("copied"))
	file := make([]byte, 8192)
	put(file, 0, 1, old)
	if at, ok := Later(file, testSeed, 0, 1); ok {
		t.Fatalf("a copy at %d was taken for a frame", at)
	}
}

func TestOutOfOrderIsDamage(t *testing.T) {
	file := make([]byte, 1024)
	put(file, 0, 3, []byte("x"))
	if got := judge(file, 0, 2); got != Damaged {
		t.Fatalf("frame 3 in place of 2 was judged %v", got)
	}
}

func FuzzJudge(f *testing.F) {
	file := make([]byte, 1024)
	put(file, 0, 1, []byte("seed"))
	f.Add(file, uint16(0))
	f.Add([]byte{1}, uint16(3))
	f.Fuzz(func(t *testing.T, tail []byte, slot uint16) {
		offset := int64(slot) * Align
		v := Judge(tail, testSeed, offset, 1)
		if (v == End) != Blank(tail) {
			t.Fatalf("%v for bytes that are blank: %v", v, Blank(tail))
		}
		Later(tail, testSeed, offset, 0)
		if v != Whole {
			return
		}
		h, ok := ParseHeader(tail, testSeed, offset)
		if !ok || h.Seq != 1 || !h.Matches(tail[HeaderBytes:HeaderBytes+h.Length]) {
			t.Fatalf("judged whole, but the header is %+v, %v", h, ok)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	buf := make([]byte, HeaderBytes+64<<10)
	for i := range buf {
		buf[i] = byte(i)
	}
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		Seal(buf, testSeed, 512, 1, 1)
	}
}
