package approval

import (
	"errors"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/trust"
)

var (
	// ErrNotLeader says that no batch is shown: this replica does not lead, or has not
	// applied an entry of its term. The request took effect nowhere.
	ErrNotLeader = errors.New("this replica leads no approvals")
	// ErrOverloaded says that too much waits. The request took effect nowhere.
	ErrOverloaded = errors.New("too many writes wait for approvals")
	// ErrUnanswered says that too few voters answered in time. The request took effect
	// nowhere.
	ErrUnanswered = errors.New("too few of the scope's anchors answered whether they approve the write")
)

// Config bounds a leader.
type Config struct {
	// BatchRequests and BatchBytes bound what one entry takes; a larger request goes alone.
	BatchRequests, BatchBytes int
	// WaitingBytes bounds what waits to be shown.
	WaitingBytes int
	// Patience is how long votes are waited for.
	Patience time.Duration
}

// DefaultConfig returns what one entry of the log may hold, and twice an election
// timeout.
func DefaultConfig() Config {
	return Config{BatchRequests: 512, BatchBytes: 512 << 10, WaitingBytes: 64 << 20, Patience: 2 * time.Second}
}

// Seat is where a leader stands: batches are shown for it, and thrown away with it.
type Seat struct {
	Mesh          anchormesh.MeshID
	Segment       anchormesh.SegmentID
	Generation    anchormesh.Generation
	Configuration uint64
	Term          uint64 // 0: it does not lead
	Policy, Trust uint64
	Threshold     trust.Threshold
	Voters        *trust.Electorate
}

// same reports whether votes given for one serve the other.
func (s *Seat) same(o *Seat) bool {
	return s.Segment == o.Segment && s.Generation == o.Generation && s.Configuration == o.Configuration &&
		s.Term == o.Term && s.Policy == o.Policy && s.Trust == o.Trust
}

// Request is one write, with what its owner knows it by.
type Request[T any] struct {
	Command []byte
	Tag     T
}

// Shown is a batch to be shown to the voters.
type Shown struct {
	Question Question // Index is for the shell to fill in
	// Behind is the sequence of the batch that must be applied before this one is judged;
	// 0: none.
	Behind   uint64
	Requests [][]byte
}

// Ready is a batch to be proposed: some of it is admitted.
type Ready[T any] struct {
	Question Question
	Requests []Request[T]
	Sums     []anchormesh.Hash
	Verdicts []Verdict
	Votes    []Vote
}

// Refused is a request that no entry is made of.
type Refused[T any] struct {
	Tag     T
	Verdict Verdict
}

// Effects is what a leader wants done, in this order.
type Effects[T any] struct {
	Ready   []Ready[T]
	Refused []Refused[T]
	Back    []T // took effect nowhere, for BackErr
	BackErr error
	Show    *Shown
	// Next is when Tick is due at the latest; zero: never.
	Next time.Time
}

// Leader is the core for one segment on its leader's node.
type Leader[T any] struct {
	cfg      Config
	seat     Seat
	waiting  []Request[T]
	bytes    int // of waiting
	shown    *shown[T]
	counts   uint64   // the term that sequences belong to
	sequence uint64   // last given
	flying   []uint64 // proposed and not ended, ascending
	applied  uint64   // last that ended well
	out      Effects[T]
}

// shown is the batch that waits for votes.
type shown[T any] struct {
	question Question
	requests []Request[T]
	sums     []anchormesh.Hash
	votes    []Vote
	behind   uint64
	silent   uint32 // weight of those that will not vote
	heard    []anchormesh.NodeID
	until    time.Time
}

// NewLeader returns a core that leads nothing yet.
func NewLeader[T any](cfg Config) *Leader[T] { return &Leader[T]{cfg: cfg} }

// Seat returns where it stands.
func (l *Leader[T]) Seat() Seat { return l.seat }

// Term is the term that sequences belong to: that of the seat, or of the last one.
func (l *Leader[T]) Term() uint64 { return l.counts }

// Lead takes a seat. What is shown in another one is shown anew. Sequences go on as long as
// the term does, whoever was deposed between: voters answer none below one they have answered.
func (l *Leader[T]) Lead(seat Seat) {
	if l.seat.Term == seat.Term && l.seat.same(&seat) {
		return
	}
	if l.counts != seat.Term {
		l.counts, l.sequence, l.applied, l.flying = seat.Term, 0, 0, nil
	}
	l.seat = seat
	l.withdraw()
}

// withdraw puts what is shown back in front of what waits.
func (l *Leader[T]) withdraw() {
	if l.shown == nil {
		return
	}
	l.waiting = slices.Concat(l.shown.requests, l.waiting)
	for i := range l.shown.requests {
		l.bytes += len(l.shown.requests[i].Command)
	}
	l.shown = nil
}

// Deposed gives everything back.
func (l *Leader[T]) Deposed() {
	l.seat = Seat{}
	l.withdraw()
	l.back(l.waiting, ErrNotLeader)
	l.waiting, l.bytes = nil, 0
}

func (l *Leader[T]) back(list []Request[T], err error) {
	for i := range list {
		l.out.Back, l.out.BackErr = append(l.out.Back, list[i].Tag), err
	}
}

// Submit takes a request. An error says that it took effect nowhere; it does not come
// back then.
func (l *Leader[T]) Submit(r Request[T]) error {
	switch {
	case l.seat.Term == 0:
		return ErrNotLeader
	case l.bytes+len(r.Command) > l.cfg.WaitingBytes && len(l.waiting) > 0:
		return ErrOverloaded
	}
	l.waiting = append(l.waiting, r)
	l.bytes += len(r.Command)
	return nil
}

// show puts what waits into a batch, unless one is shown already: what comes meanwhile
// shares the next.
func (l *Leader[T]) show(now time.Time) {
	if l.shown != nil || len(l.waiting) == 0 || l.seat.Term == 0 {
		return
	}
	n, bytes := 0, 0
	for n < len(l.waiting) && n < min(l.cfg.BatchRequests, RequestsMax) {
		size := len(l.waiting[n].Command)
		if n > 0 && bytes+size > l.cfg.BatchBytes {
			break
		}
		n, bytes = n+1, bytes+size
	}
	s := &shown[T]{requests: slices.Clone(l.waiting[:n]), until: now.Add(l.cfg.Patience), behind: l.applied}
	if len(l.flying) > 0 {
		s.behind = l.flying[len(l.flying)-1]
	}
	l.waiting = slices.Delete(l.waiting, 0, n)
	l.bytes -= bytes
	l.sequence++
	commands := make([][]byte, n)
	for i := range s.requests {
		commands[i] = s.requests[i].Command
		s.sums = append(s.sums, Sum(commands[i]))
	}
	s.question = Question{
		Mesh: l.seat.Mesh, Segment: l.seat.Segment, Generation: l.seat.Generation, Configuration: l.seat.Configuration,
		Term: l.seat.Term, Sequence: l.sequence, Policy: l.seat.Policy, Trust: l.seat.Trust, Requests: n, Digest: Digest(s.sums),
	}
	l.shown = s
	l.out.Show = &Shown{Question: s.question, Behind: s.behind, Requests: commands}
}

// Judged fills in the index behind which the shown batch is judged.
func (l *Leader[T]) Judged(sequence, index uint64) {
	if l.shown != nil && l.shown.question.Sequence == sequence {
		l.shown.question.Index = index
	}
}

// Voted takes a voter's verified vote on a batch. nil says that it gives none. Only the
// first counts.
func (l *Leader[T]) Voted(sequence uint64, node anchormesh.NodeID, v *Vote) {
	s := l.shown
	if s == nil || s.question.Sequence != sequence || slices.Contains(s.heard, node) || l.seat.Voters.Weight(node) == 0 {
		return
	}
	s.heard = append(s.heard, node)
	if v == nil {
		s.silent += l.seat.Voters.Weight(node)
	} else {
		at, _ := slices.BinarySearchFunc(s.votes, node, func(v Vote, n anchormesh.NodeID) int {
			if v.Node < n {
				return -1
			}
			return 1
		})
		s.votes = slices.Insert(s.votes, at, *v)
	}
	l.decide()
}

// decide ends the shown batch once every request of it is admitted or refused, or
// cannot be any more.
func (l *Leader[T]) decide() {
	s := l.shown
	verdicts, admitted := make([]Verdict, len(s.requests)), 0
	for i := range s.requests {
		c := count(s.votes, i, l.seat.Voters)
		switch {
		case l.seat.Voters.Reached(l.seat.Threshold, c.approve):
			verdicts[i].Admitted = true
			admitted++
		case l.seat.Voters.Lost(l.seat.Threshold, c.refuse):
			verdicts[i] = Verdict{Refusal: c.first, By: c.by}
		case l.seat.Voters.Lost(l.seat.Threshold, c.refuse+s.silent):
			l.abandon()
			return
		default:
			return // somebody is still to vote
		}
	}
	l.shown = nil
	if admitted == 0 {
		for i := range s.requests {
			l.out.Refused = append(l.out.Refused, Refused[T]{s.requests[i].Tag, verdicts[i]})
		}
	} else {
		l.flying = append(l.flying, s.question.Sequence)
		l.out.Ready = append(l.out.Ready, Ready[T]{s.question, s.requests, s.sums, verdicts, s.votes})
	}
}

// abandon gives the shown batch back: too few vote.
func (l *Leader[T]) abandon() {
	l.back(l.shown.requests, ErrUnanswered)
	l.shown = nil
}

// Ended tells that a batch that was proposed was applied (ok), or that it took effect
// nowhere or nobody knows: then nothing may wait for it, and what is shown behind it is
// shown anew.
func (l *Leader[T]) Ended(sequence uint64, ok bool) {
	i, found := slices.BinarySearch(l.flying, sequence)
	if !found {
		return // of another term
	}
	l.flying = slices.Delete(l.flying, i, i+1)
	if ok {
		l.applied = max(l.applied, sequence)
	} else if l.shown != nil && l.shown.behind == sequence {
		l.withdraw()
	}
}

// Tick gives up what waited too long.
func (l *Leader[T]) Tick(now time.Time) {
	if l.shown != nil && !now.Before(l.shown.until) {
		l.abandon()
	}
}

// Take returns what is to be done, once. What waits is shown now, not when it came: so
// what came together shares a batch.
func (l *Leader[T]) Take(now time.Time) Effects[T] {
	l.show(now)
	fx := l.out
	l.out = Effects[T]{}
	if l.shown != nil {
		fx.Next = l.shown.until
	} else {
		fx.Show = nil
	}
	return fx
}

// Waiting counts what waits to be shown, and what is shown.
func (l *Leader[T]) Waiting() (waiting, inShow int) {
	if l.shown != nil {
		inShow = len(l.shown.requests)
	}
	return len(l.waiting), inShow
}
