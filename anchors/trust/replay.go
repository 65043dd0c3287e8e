package trust

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// checkpoint names a ledger: weights, and what stands for all that made them.
func checkpoint(before anchormesh.Hash, weights []Weight) anchormesh.Hash {
	w := writer{b: append([]byte("anchormesh trust ledger v1\n"), before[:]...)}
	w.uint(uint64(len(weights)))
	for _, x := range weights {
		w.bytes([]byte(x.Node))
		w.uint(uint64(x.Weight))
	}
	return sha256.Sum256(w.b)
}

// behind stands for all that made the weights behind a step: the ledger that it followed
// on, and the step.
func behind(ledger anchormesh.Hash, s *Step) anchormesh.Hash {
	w := writer{b: append([]byte("anchormesh trust step v1\n"), ledger[:]...)}
	for _, o := range s.Opinions {
		w.names = append(w.names, o.Node)
		w.bytes([]byte(o.Node))
	}
	w.step(s)
	return sha256.Sum256(w.b)
}

// Digest names the ledger and all that made it, from its first entry on. The signed
// reports of the next entry name it.
func (l *Ledger) Digest() anchormesh.Hash {
	if l == nil {
		return checkpoint(anchormesh.Hash{}, nil)
	}
	return l.digest
}

// Oldest returns the version from which on the history is kept, and the digest of the
// ledger then.
func (l *Ledger) Oldest() (version uint64, digest anchormesh.Hash) {
	p := l.past()
	return l.Version() - uint64(len(p.history)), checkpoint(p.before, p.base)
}

// Replay recomputes every weight from the oldest that is kept, and every digest on the
// way, the last but one of which the reporters to the newest entry signed. It says at
// which version the ledger does not follow: it wraps ErrReplay.
func (l *Ledger) Replay() error {
	if l == nil {
		return nil
	}
	wrong := func(version uint64, what string) error {
		return fmt.Errorf("%w: version %d: %s", ErrReplay, version, what)
	}
	p := l.past()
	weights := p.base
	version, digest := l.Oldest()
	for i := range p.history {
		if i == len(p.history)-1 && p.poll.Ledger != digest {
			return wrong(version, fmt.Sprintf("its digest is %.12s, and the reporters to the next entry signed %.12s", digest, p.poll.Ledger))
		}
		s := &p.history[i]
		weights = advance(weights, s.Opinions)
		version, digest = s.Version, checkpoint(behind(digest, s), weights)
	}
	newest := &p.history[len(p.history)-1]
	switch {
	case p.poll.check(p.last) != nil || p.poll.Version+1 != l.version || p.poll.evidence(p.last) != newest.Evidence:
		return wrong(l.version, "its reports are not those that the entry names")
	case !slices.Equal(p.poll.opinions(p.last), newest.Opinions):
		return wrong(l.version, "its medians do not follow from the reports")
	case !slices.Equal(weights, l.weights) || digest != l.digest:
		return wrong(l.version, "its weights do not follow from the entries before")
	}
	return nil
}

// Verify replays the ledger and checks the signatures under its newest entry, whose
// reporters vouch for all before it; it returns who they are.
func (l *Ledger) Verify(verify func(node anchormesh.NodeID, statement, signature []byte) bool) (by []anchormesh.NodeID, err error) {
	if err := l.Replay(); l == nil || err != nil {
		return nil, err
	}
	p := l.past()
	for i := range p.last {
		by = append(by, p.last[i].By)
	}
	return by, p.poll.Verify(p.last, verify)
}
