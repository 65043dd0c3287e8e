package leases

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// FuzzParseAnswer: an answer has one number for each lease and two more, or is refused.
func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte{9, 2, 30}, 1)
	f.Add([]byte{9, 0x80}, 0)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		n &= 0xff
		h, ttls, err := parseAnswer(b, codec.Header{MemberID: 5}, n)
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Fatal(err)
			}
			return
		}
		again := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(h.Revision)), h.RaftTerm)
		for _, ttl := range ttls {
			again = binary.AppendUvarint(again, uint64(ttl))
		}
		if len(ttls) != n || h.MemberID != 5 || len(again) > len(b) {
			t.Fatalf("%x was read as %+v, %v", b, h, ttls)
		}
	})
}
