package mvcc

import (
	"bytes"
	"math/rand"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

func FuzzEncodingIsProtobufs(f *testing.F) {
	f.Add([]byte("key"), []byte("value"), int64(1), int64(2), int64(3), int64(4))
	f.Add([]byte{}, []byte{}, int64(-1), int64(0), int64(1<<62), int64(-1<<63))
	f.Add(bytes.Repeat([]byte("k"), 200), bytes.Repeat([]byte("v"), 70000), int64(300), int64(1<<40), int64(0), int64(7))
	f.Fuzz(func(t *testing.T, key, value []byte, create, mod, version, lease int64) {
		want, err := proto.Marshal(&mvccpb.KeyValue{Key: key, Value: value, CreateRevision: create, ModRevision: mod, Version: version, Lease: lease})
		if err != nil {
			t.Fatal(err)
		}
		prefix := []byte("before")
		enc, off := appendKV(bytes.Clone(prefix), key, value, create, mod, version, lease)
		got := enc[len(prefix):]
		if !bytes.Equal(got, want) || len(got) > sizeKV(key, value) {
			t.Fatalf("encoded %x, want %x", got, want)
		}
		kv, ok := parseKV(got)
		if !ok || !bytes.Equal(kv.Key, key) || !bytes.Equal(kv.Value(), value) || kv.Create != create || kv.Mod != mod ||
			kv.Version != version || kv.Lease != lease || kv.ValueLen > 0 && kv.valueOff != off {
			t.Fatalf("parsed %+v", kv)
		}
		if k, _, ok := parseKey(got); len(key) > 0 && (!ok || !bytes.Equal(k, key)) {
			t.Fatalf("parsed key %q", k)
		}
	})
}

func FuzzParseAnything(f *testing.F) {
	f.Add([]byte{0x0a, 0x01, 'k', 0x10, 0x02})
	f.Fuzz(func(t *testing.T, raw []byte) {
		kv, ok := parseKV(raw)
		parseKey(raw)
		if !ok {
			return
		}
		var want mvccpb.KeyValue
		if err := proto.Unmarshal(raw, &want); err != nil {
			t.Fatalf("accepted %x: %v", raw, err)
		}
		if !bytes.Equal(kv.Key, want.Key) || !bytes.Equal(kv.Value(), want.Value) || kv.Lease != want.Lease || kv.Mod != want.ModRevision {
			t.Fatalf("%+v, want %+v", kv, &want)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add((&record{absent: true}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRecord(b); err == nil {
			if again, err := decodeRecord(r.encode()); err != nil || !bytes.Equal(again.encode(), r.encode()) {
				t.Fatalf("%x does not survive: %v", b, err)
			}
		}
	})
}

// What slab gave out never changes.
func TestSlabPiecesStay(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	var s slab
	var pieces, copies [][]byte
	for i := range 5000 {
		b := bytes.Repeat([]byte{byte(i)}, rng.Intn(900))
		if rng.Intn(50) == 0 {
			b = bytes.Repeat([]byte{byte(i)}, 100000)
		}
		room := s.room(len(b) + rng.Intn(100))
		pieces, copies = append(pieces, s.take(append(room, b...))), append(copies, b)
	}
	for i := range pieces {
		if !bytes.Equal(pieces[i], copies[i]) || cap(pieces[i]) != len(pieces[i]) {
			t.Fatalf("piece %d of %d bytes changed", i, len(copies[i]))
		}
	}
}
