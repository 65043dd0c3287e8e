package txns

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
)

// FuzzMessages: any bytes are read or refused, and what was read is written to the same
// meaning.
func FuzzMessages(f *testing.F) {
	keys := anchormesh.KeyRange{Start: []byte("a"), End: []byte("b")}
	w := wanted{
		txn: commit.TxnID{7}, locks: []commit.Lock{{Range: keys, Exclusive: true}},
		reads: []commit.Read{{Range: keys, Revision: -3, Values: true}},
	}
	g := got{
		grant:  commit.Grant{Place: commit.Place{Term: 3, Generation: 2, Scope: "s"}, Number: 9},
		values: []commit.Got{{KVs: []codec.KeyValue{{Key: []byte("a"), Mod: 3, Value: []byte("v")}}}, {Err: keyspace.ErrCompacted}},
	}
	f.Add(w.encode())
	f.Add(g.encode())
	f.Add(append(head(askDecide, &anchormesh.Descriptor{Segment: 5, Generation: 2}), 1, 2, 3))
	f.Fuzz(func(t *testing.T, data []byte) {
		if w, err := decodeWanted(data); err == nil {
			again, err := decodeWanted(w.encode())
			if err != nil || !reflect.DeepEqual(w, again) {
				t.Errorf("%+v came back as %+v, %v", w, again, err)
			}
		}
		if g, err := decodeGot(data); err == nil {
			again, err := decodeGot(g.encode())
			if err != nil || !reflect.DeepEqual(g, again) {
				t.Errorf("%+v came back as %+v, %v", g, again, err)
			}
		}
		if q, err := parseRequest(data); err == nil && !bytes.HasSuffix(data, q.body) {
			t.Errorf("%+v of %x", q, data)
		}
	})
}
