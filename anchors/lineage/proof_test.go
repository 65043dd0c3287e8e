package lineage

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/anchormesh/anchormesh"
)

// keyOf is a node's key, the same in every run.
func keyOf(node anchormesh.NodeID) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(node))
	return ed25519.NewKeyFromSeed(seed[:])
}

func genuine(node anchormesh.NodeID, statement, signature []byte) bool {
	return ed25519.Verify(keyOf(node).Public().(ed25519.PublicKey), statement, signature)
}

// replica is a voter: it signs what it applied, and nothing else.
type replica struct {
	node    anchormesh.NodeID
	applied map[anchormesh.Hash]bool
}

func (r *replica) apply(c *Chain) { r.applied[c.Head()] = true }

func (r *replica) sign(p *Proof) {
	if h := p.Entry.Hash(); r.applied[h] {
		p.Add(r.node, ed25519.Sign(keyOf(r.node), Statement(h)))
	}
}

// TestCounterexample11: a leader that is cut off appends a split that is never
// committed and publishes entry and descriptor. Its successor commits another
// split at the same height. Both chains lead to genesis; only the committed one
// can be proved.
func TestCounterexample11(t *testing.T) {
	group := []*replica{}
	for _, id := range three.Incoming {
		group = append(group, &replica{id, map[anchormesh.Hash]bool{}})
	}
	first := begin()
	cutOff, lost := split(first, Place{9, 1}, "m", 2)
	committed, child := split(first, Place{9, 2}, "q", 3)
	for _, r := range group[1:] {
		r.apply(committed)
	}
	if cutOff.Last().Height != committed.Last().Height {
		t.Fatal("the schedule wants equal heights")
	}
	for _, c := range []*Chain{cutOff, lost, committed, child} {
		if err := Verify(c.Segment(), c.Entries()); err != nil {
			t.Errorf("the chain by itself: %v", err)
		}
		if gaps, _ := Survey([]*Chain{c, first}); len(gaps) != 0 {
			t.Errorf("the chain does not lead to genesis: %v", gaps)
		}
	}
	if _, forks := Survey([]*Chain{cutOff, lost, committed, child}); len(forks) != 1 {
		t.Errorf("%d forks are seen, want one", len(forks))
	}
	for _, c := range []struct {
		name   string
		chain  *Chain
		proven bool
	}{{"the parent of the lost split", cutOff, false}, {"the child of the lost split", lost, false},
		{"the parent", committed, true}, {"the child", child, true}} {
		p := &Proof{Entry: c.chain.Last()}
		for _, r := range group {
			r.sign(p)
		}
		// The old leader may even sign what it never applied: it is one of three.
		p.Add("n1", ed25519.Sign(keyOf("n1"), Statement(p.Entry.Hash())))
		err := p.Verify(three, genuine)
		if c.proven && err != nil || !c.proven && !errors.Is(err, ErrUnproven) {
			t.Errorf("%s: %v, want proven %v", c.name, err, c.proven)
		}
	}
}

func TestProofsCountMajorities(t *testing.T) {
	joint := Voters{Incoming: []anchormesh.NodeID{"n1", "n2", "n4"}, Outgoing: three.Incoming}
	entry := must(begin().Change(Place{9, 1}, joint, Evidence{Reason: Dead})).Last()
	other := Statement(anchormesh.Hash{1})
	for name, c := range map[string]struct {
		voters Voters
		signed []anchormesh.NodeID
		bad    []anchormesh.NodeID // sign something else
		proven bool
	}{
		"nobody":                 {three, nil, nil, false},
		"one of three":           {three, []anchormesh.NodeID{"n2"}, nil, false},
		"two of three":           {three, []anchormesh.NodeID{"n2", "n3"}, nil, true},
		"strangers":              {three, []anchormesh.NodeID{"n1", "n8", "n9"}, nil, false},
		"one bad":                {three, []anchormesh.NodeID{"n1"}, []anchormesh.NodeID{"n2"}, false},
		"half of two":            {Voters{Incoming: []anchormesh.NodeID{"n1", "n2"}}, []anchormesh.NodeID{"n1"}, nil, false},
		"joint, both":            {joint, []anchormesh.NodeID{"n1", "n2"}, nil, true},
		"joint, only the old":    {joint, []anchormesh.NodeID{"n2", "n3"}, nil, false},
		"joint, only the new":    {joint, []anchormesh.NodeID{"n1", "n4"}, nil, false},
		"joint, one each by two": {joint, []anchormesh.NodeID{"n1", "n3", "n4"}, nil, true},
		"no voters":              {Voters{}, []anchormesh.NodeID{"n1", "n2"}, nil, false},
	} {
		p := &Proof{Entry: entry}
		for _, id := range c.signed {
			p.Add(id, []byte("early"))
			p.Add(id, ed25519.Sign(keyOf(id), Statement(entry.Hash())))
		}
		for _, id := range c.bad {
			p.Add(id, ed25519.Sign(keyOf(id), other))
		}
		got := must(DecodeProof(p.Encode()))
		if err := got.Verify(c.voters, genuine); (err == nil) != c.proven || err != nil && !errors.Is(err, ErrUnproven) {
			t.Errorf("%s: %v, want proven %v", name, err, c.proven)
		}
	}
}

// TestAProofProvesADescriptor: the descriptor must be exactly what the entry left.
func TestAProofProvesADescriptor(t *testing.T) {
	left, right := split(begin(), Place{9, 1}, "m", 2)
	for _, c := range []*Chain{left, right} {
		d := &anchormesh.Descriptor{Mesh: 7, Segment: c.Segment(), Generation: c.Now().Generation, Range: c.Now().Range, Lineage: c.Head()}
		for i, id := range []anchormesh.NodeID{"n3", "n1", "n2"} {
			d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: id, Replica: anchormesh.ReplicaID(i + 1), Role: anchormesh.Voter})
		}
		if !c.Last().Describes(d) {
			t.Errorf("the split does not describe %v", d)
		}
		for name, edit := range map[string]func(*anchormesh.Descriptor){
			"mesh":       func(d *anchormesh.Descriptor) { d.Mesh++ },
			"generation": func(d *anchormesh.Descriptor) { d.Generation++ },
			"range":      func(d *anchormesh.Descriptor) { d.Range = anchormesh.KeyRange{} },
			"voters":     func(d *anchormesh.Descriptor) { d.Anchors[0].Node = "n9" },
			"head":       func(d *anchormesh.Descriptor) { d.Lineage[0]++ },
			"segment":    func(d *anchormesh.Descriptor) { d.Segment = 9 },
		} {
			other := d.Clone()
			edit(other)
			if c.Last().Describes(other) {
				t.Errorf("a descriptor with another %s passes", name)
			}
		}
	}
}

// TestEncodingIsPinned: hashes are kept for ever, so this must never change.
func TestEncodingIsPinned(t *testing.T) {
	left, _ := split(begin(), Place{9, 1}, "m", 2)
	if got := left.Entries()[0].Hash().String(); got != pinnedGenesis {
		t.Errorf("genesis hashes to %s", got)
	}
	if got := hex.EncodeToString(left.Last().Append(nil)); got != pinnedSplit {
		t.Errorf("the split is encoded as %s", got)
	}
	if n := len(left.Last().Append(nil)); n > 200 {
		t.Errorf("a split of a group with short names has %d bytes", n)
	}
}

const (
	pinnedGenesis = "ccf36c187f9a875a80dc24b5bd4016738992c0ce1e2bdbcf01938ba78581e1c1"
	pinnedSplit   = "0102" + "0000000000000007" + "0000000000000001" + "01" + "010000" + "0200016d" + "000000000000000202016d00" + "0901" +
		"03026e31026e32026e3300" + "02a40da207022a8080808080200001" + pinnedGenesis
)

func corpus(f *testing.F) {
	left, right := split(begin(), Place{9, 1}, "m", 2)
	merged := must(left.Merge(Place{10, 1}, right, Evidence{Operator: "ada"}))
	p := &Proof{Entry: merged.Last()}
	p.Add("n1", []byte("signature"))
	for _, b := range [][]byte{{}, left.Last().Append(nil), merged.Last().Append(nil), right.Encode(), merged.Encode(), p.Encode()} {
		f.Add(b)
	}
}

func known(err error) bool {
	return errors.Is(err, ErrMalformed) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrBroken)
}

// FuzzDecode: what decodes has one encoding; what does not names its reason.
func FuzzDecode(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := DecodeEntry(b); err == nil && string(e.Append(nil)) != string(b) {
			t.Fatalf("two encodings of an entry: %x", b)
		} else if err != nil && !known(err) {
			t.Fatalf("entry: untyped error %v", err)
		}
		if c, err := DecodeChain(b); err == nil && (string(c.Encode()) != string(b) || Verify(c.Segment(), c.Entries()) != nil) {
			t.Fatalf("two encodings of a chain, or a broken one: %x", b)
		} else if err != nil && !known(err) {
			t.Fatalf("chain: untyped error %v", err)
		}
		if p, err := DecodeProof(b); err == nil && string(p.Encode()) != string(b) {
			t.Fatalf("two encodings of a proof: %x", b)
		} else if err != nil && !known(err) {
			t.Fatalf("proof: untyped error %v", err)
		}
	})
}
