package machine

import (
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/fields"
)

// Trusted returns the command that moves the anchors' weights: the reports, and the
// weights of the voters, in the order of the poll, that follow from them:
//
//	op | length, trust.Poll.AppendEntry | count, weights
func Trusted(p *trust.Poll, reports []trust.Report, weights []trust.Weight) []byte {
	b := fields.AppendBytes([]byte{byte(OpTrust)}, p.AppendEntry(nil, reports))
	b = fields.AppendNumbers(b, uint64(len(weights)))
	for _, w := range weights {
		b = fields.AppendNumbers(b, uint64(w.Weight))
	}
	return b
}

// parseTrusted reads what Trusted wrote, behind the op.
func parseTrusted(b []byte) (p *trust.Poll, reports []trust.Report, weights []uint32, err error) {
	r := reader{fields.Reader{Rest: b}}
	if p, reports, err = trust.ParseEntry(r.Bytes()); err != nil {
		return nil, nil, nil, err
	}
	for range r.AtMost(trust.VotersMax) {
		weights = append(weights, uint32(r.AtMost(trust.Cap)))
	}
	return p, reports, weights, r.end()
}

// Weighs returns the ledger behind an entry with these reports at a place of the log, if
// the state allows it. Signatures are the caller's to check.
func (s *State) Weighs(p *trust.Poll, reports []trust.Report, index, term uint64) (*trust.Ledger, error) {
	d := s.Descriptor
	switch {
	case s.Frozen():
		return nil, ErrFrozen
	case p.Mesh != d.Mesh || p.Segment != d.Segment || p.Generation != d.Generation || p.Term != term:
		return nil, fmt.Errorf("%w: the reports are about another place", ErrRefused)
	case !slices.Equal(p.Voters, s.VoterNodes()):
		return nil, fmt.Errorf("%w: the reports are about other voters", ErrRefused)
	}
	next, err := s.Trust.Next(p, reports, index, term)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return next, nil
}

func (m *Machine) applyTrust(e *consensus.Entry, body []byte) error {
	p, reports, weights, err := parseTrusted(body)
	if err != nil {
		return err
	}
	now := *m.state.Load()
	next, err := now.Weighs(p, reports, e.Index, e.Term)
	if err != nil {
		return err
	}
	if err := p.Verify(reports, m.approvals.verify); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	for i, w := range next.Of(p.Voters) {
		if len(weights) != len(p.Voters) || weights[i] != w.Weight {
			return fmt.Errorf("%w: the weights do not follow from the reports", ErrRefused)
		}
	}
	now.Trust = next
	b := m.segment.Begin(e.Index, e.Term)
	now.store(b)
	b.End()
	m.put(&now) // the configuration is as it was: see Durable
	m.changed(Change{State: &now, Place: placeOf(e)})
	return nil
}
