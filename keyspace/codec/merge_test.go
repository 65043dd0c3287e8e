package codec

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestAppendRangeIsProtos(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 2000 {
		want := mustMarshal(randRange(rng))
		var r RangeRequest
		if err := ParseRange(want, &r); err != nil {
			t.Fatal(err)
		}
		if got := AppendRange(nil, &r); !bytes.Equal(got, want) {
			t.Fatalf("%+v is %x, want %x", r, got, want)
		}
	}
}

func FuzzLeaseMark(f *testing.F) {
	f.Add(AppendLeaseMark(nil, LeaseMark{ID: -4, Since: 3, At: 300, Start: []byte("a"), End: []byte("b")}))
	f.Add([]byte{0x08})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again LeaseMark
		if err := ParseLeaseMark(b, &m); err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if len(m.Start) == 0 {
			m.Start = nil
		}
		if len(m.End) == 0 {
			m.End = nil
		}
		if err := ParseLeaseMark(AppendLeaseMark(nil, m), &again); err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v came back as %+v, %v", m, again, err)
		}
	})
}

// FuzzSplitRangeResponse: what is taken for key-values is part of the answer, and
// cutting the answer in two pieces between fields makes no difference.
func FuzzSplitRangeResponse(f *testing.F) {
	kv := AppendKeyValue(nil, &KeyValue{Key: []byte("k"), Mod: 3})
	f.Add(AppendRangeTail(AppendRaw(AppendRaw(AppendHeader(nil, 1, Header{Revision: 3}), 2, kv), 2, nil), true, 300))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, count, ok := splitRangeResponse(Chunks{b})
		if !ok {
			return
		}
		n, size := int64(0), 0
		for _, r := range p.runs {
			n, size = n+r.n, size+len(r.raw)
			if first := r.first(r.n); !bytes.Equal(first.raw, r.raw) || !bytes.Contains(b, r.raw) {
				t.Fatalf("a run of %d fields is %x, its fields %x", r.n, r.raw, first.raw)
			}
		}
		for cut := range b {
			q, c, ok := splitRangeResponse(Chunks{b[:cut], b[cut:]})
			if !ok {
				continue
			}
			m := int64(0)
			for _, r := range q.runs {
				m += r.n
			}
			if m != n || c != count || q.more != p.more {
				t.Fatalf("cut at %d: %d fields, count %d, want %d, %d", cut, m, c, n, count)
			}
		}
	})
}

// FuzzLeaseExpiry: any bytes are refused as malformed, or mean what encodes to the same.
func FuzzLeaseExpiry(f *testing.F) {
	f.Add(AppendLeaseExpiry(nil, LeaseExpiry{ID: 7, Epoch: 3, Term: 9}))
	f.Add([]byte{8, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e, again LeaseExpiry
		switch err := ParseLeaseExpiry(b, &e); {
		case err != nil && !errors.Is(err, ErrMalformed):
			t.Fatal(err)
		case err == nil && (ParseLeaseExpiry(AppendLeaseExpiry(nil, e), &again) != nil || again != e):
			t.Fatalf("%+v came back as %+v", e, again)
		}
	})
}
