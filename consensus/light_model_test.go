package consensus_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/anchormesh/anchormesh/internal/explore"
)

// The model: three voters of a light segment. Logs are lists of terms, and the disk has a
// prefix of each. Messages are taken at once or never; what a leader was told it keeps, also
// what the one who told it has forgotten since. Power cuts take what is not synced.

const (
	modelVoters  = 3
	modelTerms   = 3
	modelEntries = 1
	modelCuts    = 2
)

// lightPlant is a defect that the model must find.
type lightPlant struct {
	unnoticed   bool // a replica that forgot something goes on as before
	votesInRAM  bool // terms and votes are not synced
	markInRAM   bool // the mark is written, not synced, before it is used
	markTooSoon bool // it is taken back before everything is on disk
}

// voter is one replica.
type voter struct {
	term, vote   uint8 // vote 0: none
	dTerm, dVote uint8 // on disk
	log          [modelEntries]uint8
	length       uint8
	synced       uint8
	mark, dMark  bool // acknowledges from memory
	forgetful    bool
	role         uint8 // follower, candidate, leader
	votes        uint8 // mask
	match        [modelVoters]uint8
}

const (
	followerRole uint8 = iota
	candidateRole
	leaderRole
)

// lightWorld is a state; a value.
type lightWorld struct {
	v      [modelVoters]voter
	leads  [modelTerms + 1]uint8 // who was elected, from 1
	acked  [modelEntries]uint8   // term of the entry that a client was told of
	in     [modelEntries]uint8   // the term in which it was told
	cuts   uint8
	broken bool // two leaders of one term
}

// key is everything, in one form.
func (w lightWorld) key() []byte {
	bit := func(on bool) uint8 {
		if on {
			return 1
		}
		return 0
	}
	b := make([]byte, 0, 64)
	for _, v := range w.v {
		b = append(b, v.term, v.vote, v.dTerm, v.dVote, v.length, v.synced, bit(v.mark)|bit(v.dMark)<<1|bit(v.forgetful)<<2, v.role, v.votes)
		b = append(append(b, v.log[:]...), v.match[:]...)
	}
	b = append(append(append(b, w.leads[:]...), w.acked[:]...), w.in[:]...)
	return append(b, w.cuts, bit(w.broken))
}

func (w *lightWorld) check() error {
	if w.broken {
		return errors.New("two leaders of one term")
	}
	for i, v := range w.v {
		if v.role != leaderRole {
			continue
		}
		for k, term := range w.acked {
			if term != 0 && w.in[k] < v.term && (int(v.length) <= k || v.log[k] != term) {
				return fmt.Errorf("the leader %d of term %d lacks entry %d of term %d, acknowledged in term %d", i, v.term, k, term, w.in[k])
			}
		}
	}
	return nil
}

// newer reports whether a's log may win the vote of b's.
func newer(a, b *voter) bool {
	last := func(v *voter) uint8 {
		if v.length == 0 {
			return 0
		}
		return v.log[v.length-1]
	}
	if last(a) != last(b) {
		return last(a) > last(b)
	}
	return a.length >= b.length
}

// promise makes term and vote durable, or not.
func (v *voter) promise(p lightPlant) {
	if !p.votesInRAM {
		v.dTerm, v.dVote = v.term, v.vote
	}
}

func (v *voter) follow(term uint8, p lightPlant) {
	if term > v.term {
		v.term, v.vote = term, 0
		v.promise(p)
	}
	v.role, v.votes, v.match = followerRole, 0, [modelVoters]uint8{}
}

// next returns every step.
func (p lightPlant) next(w lightWorld) (out []explore.Step[lightWorld]) {
	add := func(fault bool, next lightWorld, format string, args ...any) {
		out = append(out, explore.Step[lightWorld]{Label: fmt.Sprintf(format, args...), Fault: fault, State: next})
	}
	for i := range w.v {
		if w.v[i].forgetful {
			continue
		}
		p.alone(w, i, add)
		for j := range w.v {
			if i != j && !w.v[j].forgetful {
				p.between(w, i, j, add)
			}
		}
	}
	return out
}

type adder = func(fault bool, next lightWorld, format string, args ...any)

// alone are the steps of one replica.
func (p lightPlant) alone(w lightWorld, i int, add adder) {
	v := w.v[i]
	if v.term < modelTerms && v.role != leaderRole {
		n := w
		c := &n.v[i]
		c.term, c.vote, c.role, c.votes = v.term+1, uint8(i+1), candidateRole, 1<<i
		c.promise(p)
		add(false, n, "%d stands for term %d", i, c.term)
	}
	if v.role == leaderRole && v.length < modelEntries {
		n := w
		n.v[i].log[v.length], n.v[i].length = v.term, v.length+1
		add(false, n, "%d appends in term %d", i, v.term)
	}
	if v.synced < v.length {
		n := w
		n.v[i].synced, n.v[i].dMark = v.length, v.mark
		add(false, n, "%d syncs", i)
	}
	if !v.mark {
		n := w
		n.v[i].mark = true
		if !p.markInRAM {
			n.v[i].synced, n.v[i].dMark = v.length, true
		}
		add(false, n, "%d notes that it acknowledges from memory", i)
	} else if v.synced == v.length || p.markTooSoon {
		n := w
		n.v[i].mark, n.v[i].dMark = false, false
		add(false, n, "%d notes that it is on disk", i)
	}
	if w.cuts < modelCuts {
		n := w
		n.cuts++
		c := &n.v[i]
		*c = voter{term: v.dTerm, vote: v.dVote, dTerm: v.dTerm, dVote: v.dVote, length: v.synced, synced: v.synced, mark: v.dMark, dMark: v.dMark}
		copy(c.log[:], v.log[:v.synced])
		c.forgetful = v.dMark && !p.unnoticed
		add(true, n, "power cut of %d", i)
	}
	p.commit(w, i, add)
}

// commit tells clients of what a majority has acknowledged in the leader's own term.
func (p lightPlant) commit(w lightWorld, i int, add adder) {
	v := w.v[i]
	if v.role != leaderRole {
		return
	}
	for k := range int(v.length) {
		have := 0
		for j := range w.v {
			if j == i && (v.mark || int(v.synced) > k) || j != i && int(v.match[j]) > k {
				have++
			}
		}
		if v.log[k] == v.term && w.acked[k] == 0 && have > modelVoters/2 {
			n := w
			for below := range k + 1 { // what lies before it is committed with it
				if n.acked[below] == 0 {
					n.acked[below], n.in[below] = v.log[below], v.term
				}
			}
			add(false, n, "%d tells that entry %d is safe", i, k)
		}
	}
}

// between are the steps of two.
func (p lightPlant) between(w lightWorld, i, j int, add adder) {
	a, b := w.v[i], w.v[j]
	if a.role == candidateRole && a.votes&(1<<j) == 0 && (b.term < a.term || b.term == a.term && (b.vote == 0 || b.vote == uint8(i+1))) {
		n := w
		g := &n.v[j]
		if b.term < a.term {
			g.follow(a.term, p)
		}
		if newer(&a, &b) {
			g.vote = uint8(i + 1)
			g.promise(p)
			c := &n.v[i]
			c.votes |= 1 << j
			c.role = leaderRole // two of three
			c.match = [modelVoters]uint8{}
			n.broken = n.leads[a.term] != 0 && n.leads[a.term] != uint8(i+1)
			n.leads[a.term] = uint8(i + 1)
		}
		add(false, n, "%d votes for %d in term %d", j, i, a.term)
	}
	if a.role == leaderRole && b.term <= a.term && b.role != leaderRole {
		n := w
		f := &n.v[j]
		f.follow(a.term, p)
		same := uint8(0)
		for same < a.length && same < b.length && a.log[same] == b.log[same] {
			same++
		}
		if same < a.length {
			f.log, f.length, f.synced = a.log, a.length, min(b.synced, same)
			if same < b.length {
				f.log = a.log
			}
			add(false, n, "%d takes the log of %d", j, i)
		}
		// What it has of the leader's log it acknowledges, if it may.
		have := b.synced
		if b.mark {
			have = b.length
		}
		if have = min(have, same); have > a.match[j] && b.term == a.term {
			n := w
			n.v[i].match[j] = have
			add(false, n, "%d acknowledges %d entries to %d", j, have, i)
		}
	}
}

func exploreLight(p lightPlant) explore.Report {
	start := lightWorld{}
	for i := range start.v { // a leader of term 1, and nothing written yet
		start.v[i].term, start.v[i].vote, start.v[i].dTerm, start.v[i].dVote = 1, 1, 1, 1
	}
	start.v[0].role, start.v[0].votes, start.leads[1] = leaderRole, 0b111, 1
	return explore.Run(explore.Model[lightWorld]{
		Start: start, Key: lightWorld.key, Next: p.next,
		Check: func(w lightWorld) error { return w.check() }, Most: 3_000_000,
	})
}

// TestLightModel: whatever order writes, syncs, power cuts and elections come in, there is one leader
// per term, and no leader lacks what was acknowledged before its term. Each planted defect is
// found.
func TestLightModel(t *testing.T) {
	for name, p := range map[string]lightPlant{
		"a replica that forgot votes":   {unnoticed: true},
		"votes in memory":               {votesInRAM: true},
		"the mark in memory":            {markInRAM: true},
		"the mark taken back too early": {markTooSoon: true},
	} {
		if r := exploreLight(p); r.Err == nil || errors.Is(r.Err, explore.ErrTooLarge) {
			t.Errorf("%s: not found: %v", name, r)
		} else {
			t.Logf("%s: %v", name, r)
		}
	}
	if testing.Short() {
		t.Skip("the whole model takes longer")
	}
	r := exploreLight(lightPlant{})
	if r.Err != nil {
		t.Fatal(r)
	}
	t.Log(r)
}
