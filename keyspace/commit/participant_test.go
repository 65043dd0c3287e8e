package commit

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/anchormesh/anchormesh"
)

func sample() *Prepare {
	return &Prepare{
		Txn: txnID(0), Grant: Grant{Place: here, Number: 1}, Decision: []byte("a"),
		Spans: []anchormesh.KeyRange{rng("a", "k"), rng("p", "z")},
		Locks: []Lock{exclusive("a", "e"), shared("h", "k")},
		Writes: []Write{
			{Sub: 0, Key: []byte("a"), Value: []byte("1"), Lease: 5}, {Sub: 2, Delete: true, Key: []byte("c")}, {Sub: 3, Key: []byte("d")},
		},
	}
}

func prepared(t *testing.T) *Participant {
	t.Helper()
	p := &Participant{}
	if stamp, err := p.Prepare(here, 150, sample()); err != nil || stamp != 150 {
		t.Fatal(stamp, err)
	}
	return p
}

func TestPrepareRefuses(t *testing.T) {
	p := prepared(t)
	late := sample()
	late.Txn = txnID(1)
	cases := []struct {
		want  error
		place Place
		stamp int64
	}{
		{ErrConflict, here, 160},
		{ErrLockLost, Place{Term: 4, Generation: 2, Scope: "/s"}, 160},
		{ErrLockLost, Place{Term: 3, Generation: 3, Scope: "/s"}, 160},
		{ErrLockLost, Place{Term: 3, Generation: 2, Scope: "/t"}, 160},
		{ErrStampOrder, here, 150},
	}
	for _, c := range cases {
		if _, err := p.Prepare(c.place, c.stamp, late); !errors.Is(err, c.want) {
			t.Errorf("at %+v with %d: %v, want %v", c.place, c.stamp, err, c.want)
		}
	}
	if stamp, err := p.Prepare(here, 170, sample()); err != nil || stamp != 150 {
		t.Errorf("the same again: %d, %v", stamp, err)
	}
	if _, _, err := p.Decide(&Decide{Txn: txnID(1), Key: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Prepare(here, 180, late); !errors.Is(err, ErrDecided) {
		t.Errorf("behind its abort: %v", err)
	}
}

// A coordinator that has not heard of a merge prepares two parts in what is one segment
// now. Both are kept, at the later stamp; who has keys or places in common is refused.
func TestTwoPartsInOneSegment(t *testing.T) {
	p := prepared(t)
	part := func(at string, place uint32) *Prepare {
		return &Prepare{Txn: txnID(0), Grant: Grant{Place: here, Number: 2}, Decision: []byte("a"), Spans: sample().Spans,
			Locks: []Lock{exclusive(at, at+"x")}, Writes: []Write{{Sub: place, Key: []byte(at), Value: []byte("2")}}}
	}
	for _, c := range []*Prepare{part("p", 3), {Txn: txnID(0), Grant: Grant{Place: here}, Decision: []byte("a"), Locks: []Lock{exclusive("d", "g")}}} {
		if _, err := p.Prepare(here, 160, c); !errors.Is(err, ErrLockLost) {
			t.Errorf("%+v: %v, want %v", c, err, ErrLockLost)
		}
	}
	for range 2 { // the same again is told the stamp of both
		if stamp, err := p.Prepare(here, 160, part("p", 4)); err != nil || stamp != 160 {
			t.Fatal(stamp, err)
		}
	}
	if lowest, _ := p.Lowest(); lowest != 160 {
		t.Errorf("prepared at %d", lowest)
	}
	_, writes, err := p.Decide(&Decide{Txn: txnID(0), Verdict: Verdict{Commit: true, Revision: 170}, Key: []byte("a")})
	if err != nil || len(writes) != 4 || string(writes[3].Key) != "p" {
		t.Errorf("%+v, %v", writes, err)
	}
}

func TestTheFirstDecisionWins(t *testing.T) {
	p := prepared(t)
	commit := &Decide{Txn: txnID(0), Verdict: Verdict{Commit: true, Revision: 150}, Key: []byte("a")}
	if _, _, err := p.Decide(commit); !errors.Is(err, ErrStampOrder) {
		t.Fatalf("a commit at its prepare's stamp: %v", err)
	}
	commit.Revision = 155
	v, writes, err := p.Decide(commit)
	if err != nil || v != commit.Verdict || len(writes) != 3 || p.Floor() != 155 {
		t.Fatal(v, writes, err, p.Floor())
	}
	if v, writes, err := p.Decide(&Decide{Txn: txnID(0), Key: []byte("a")}); err != nil || v != commit.Verdict || writes != nil {
		t.Fatal(v, writes, err)
	}
	p.Forget(txnID(0))
	if _, _, err := p.Decide(commit); !errors.Is(err, ErrNotPrepared) {
		t.Fatalf("decided again, after all is forgotten: %v", err)
	}
	if _, ok := p.Lowest(); ok {
		t.Error("something is prepared still")
	}
}

// TestCounterexample10ePreparedTransactionsTravel: what is prepared or decided on a
// frozen right is found, by key, in the left that absorbed it.
func TestCounterexample10ePreparedTransactionsTravel(t *testing.T) {
	whole := prepared(t)
	right := whole.Cut([]byte("c"))
	if _, ok := right.Record(txnID(0)); !ok || whole.Records()[0].Writes[0].Lease != 5 {
		t.Fatal("the cut lost a share")
	}
	if _, _, err := right.Decide(&Decide{Txn: txnID(0), Verdict: Verdict{Commit: true, Revision: 160}, Key: []byte("b")}); !errors.Is(err, ErrNotPrepared) {
		t.Fatalf("decided under another key: %v", err)
	}
	whole.Absorb(right)
	v, writes, err := whole.Decide(&Decide{Txn: txnID(0), Verdict: Verdict{Commit: true, Revision: 160}, Key: []byte("a")})
	if err != nil || !v.Commit || len(writes) != 3 {
		t.Fatal(v, writes, err)
	}
	for i, w := range writes {
		if want := sample().Writes[i]; !reflect.DeepEqual(w, want) {
			t.Errorf("write %d is %+v, want %+v", i, w, want)
		}
	}
}

// load opens a participant from its rows.
func load(t *testing.T, rows map[string]map[string][]byte) *Participant {
	t.Helper()
	p := &Participant{}
	for table, kvs := range rows {
		for k, v := range kvs {
			if err := p.Load(table, []byte(k), v); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p
}

func store(rows map[string]map[string][]byte, changes []Change) {
	for _, c := range changes {
		if rows[c.Table] == nil {
			rows[c.Table] = map[string][]byte{}
		}
		if c.Value == nil {
			delete(rows[c.Table], string(c.Key))
		} else {
			rows[c.Table][string(c.Key)] = c.Value
		}
	}
}

// TestRowsAreTheState: whatever is applied, cut and absorbed, the rows written along
// the way are what the participant holds.
func TestRowsAreTheState(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 7))
		p, rows := &Participant{}, map[string]map[string][]byte{}
		for range 60 {
			id := txnID(r.IntN(4))
			switch r.IntN(6) {
			case 0, 1:
				c := sample()
				c.Txn = id
				c.Locks = []Lock{exclusive(string(rune('a'+r.IntN(20))), "")}
				c.Decision, c.Writes = c.Locks[0].Range.Start, []Write{{Key: c.Locks[0].Range.Start}}
				_, _ = p.Prepare(here, p.Floor()+1, c)
			case 2:
				_, _ = p.Commit(id, p.Floor()+1)
			case 3:
				v := Verdict{Commit: r.IntN(2) == 0}
				if v.Commit {
					v.Revision = p.Floor() + 1
				}
				_, _, _ = p.Decide(&Decide{Txn: id, Verdict: v, Key: []byte{'a' + byte(r.IntN(20))}})
			case 4:
				p.Forget(id)
			case 5:
				right := p.Cut([]byte{'a' + byte(r.IntN(20))})
				half := map[string]map[string][]byte{}
				store(half, right.Changes())
				p.Absorb(load(t, half))
			}
			store(rows, p.Changes())
			if got := load(t, rows); !reflect.DeepEqual(got, p) && !(len(got.records)+len(got.decisions)+len(p.records)+len(p.decisions) == 0 && got.floor == p.floor) {
				sameOrDie(t, seed, got, p)
			}
		}
	}
}

// sameOrDie compares what is encoded, to which nil and empty are the same.
func sameOrDie(t *testing.T, seed uint64, got, want *Participant) {
	t.Helper()
	text := func(p *Participant) (out []byte) {
		for _, r := range p.records {
			out = append(out, r.encode()...)
		}
		for _, d := range p.decisions {
			out = append(out, d.encode()...)
		}
		return append(out, floorChange(p.floor).Value...)
	}
	if string(text(got)) != string(text(want)) {
		t.Fatalf("seed %d: the rows hold %+v, the participant %+v", seed, got, want)
	}
}

// FuzzDecode: any bytes are decoded or refused, and what was decoded is encoded to
// the same meaning.
func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode())
	f.Add((&Finish{Txn: txnID(0), Verdict: Verdict{Commit: true, Revision: 9}}).Encode())
	f.Add((&Decide{Txn: txnID(0), Key: []byte("a"), Spans: sample().Spans}).Encode())
	f.Add(EncodeID(txnID(3)))
	f.Add((&Reply{Stamp: 7, Verdict: Verdict{Commit: true, Revision: 9}, Range: sample().Spans[0]}).Encode())
	f.Add((&Record{Txn: txnID(0), Stamp: 7, Locks: sample().Locks, Writes: sample().Writes}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := DecodePrepare(b); err == nil {
			again, err := DecodePrepare(c.Encode())
			same(t, again, c, err)
		}
		if c, err := DecodeCommit(b); err == nil {
			again, err := DecodeCommit(c.Encode())
			same(t, again, c, err)
		}
		if c, err := DecodeDecide(b); err == nil {
			again, err := DecodeDecide(c.Encode())
			same(t, again, c, err)
		}
		if id, err := DecodeID(b); err == nil {
			again, err := DecodeID(EncodeID(id))
			same(t, again, id, err)
		}
		if r, err := DecodeReply(b); err == nil {
			again, err := DecodeReply(r.Encode())
			same(t, again, r, err)
		}
		if r, err := decodeRecord(b); err == nil {
			again, err := decodeRecord(r.encode())
			same(t, again, r, err)
		} else if !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
	})
}

func same(t *testing.T, got, want any, err error) {
	t.Helper()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v came back as %+v, %v", want, got, err)
	}
}

func TestTruncatedCommandsAreRefused(t *testing.T) {
	b := sample().Encode()
	for n := range b {
		if _, err := DecodePrepare(b[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}
