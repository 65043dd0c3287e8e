package merger

import (
	"encoding/binary"
	"errors"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/node/machine"
)

// Method is the mesh call of this package.
const Method = 12

// Kinds of questions.
const (
	askReady   = 1 // are your replicas of both equal and caught up?
	askFreeze  = 2 // to the right's leader: freeze; the answer is the entry's index
	askConfirm = 3 // has your replica of the right applied the freeze at index?
	askJudge   = 4 // to a segment's leader: what became of the attempt at key? the answer is a verdict
	askOwner   = 5 // to a segment's leader: do you hold key? the answer is your generation
)

// Codes of failed answers.
const (
	codeRefused = 1 // and will be refused again
	codeRetry   = 2 // somebody else may answer, or this node later
)

var errMalformed = errors.New("merger: malformed question")

// question is what one node asks another.
type question struct {
	kind    byte
	number  uint64 // index of the freeze; segment that is asked to judge
	key     []byte // where the right begins
	attempt merge.Attempt
	pair    merge.Pair
}

func (q *question) encode() []byte {
	b := binary.AppendUvarint([]byte{q.kind}, q.number)
	b = append(binary.AppendUvarint(b, uint64(len(q.key))), q.key...)
	return append(b, machine.Freeze(q.attempt, &q.pair)[1:]...)
}

func parseQuestion(b []byte) (q question, err error) {
	if len(b) == 0 {
		return q, errMalformed
	}
	q.kind = b[0]
	number, n := binary.Uvarint(b[1:])
	if n <= 0 {
		return q, errMalformed
	}
	rest := b[1+n:]
	size, n := binary.Uvarint(rest)
	if n <= 0 || size > uint64(len(rest)-n) {
		return q, errMalformed
	}
	q.number, q.key = number, rest[n:n+int(size)]
	q.attempt, q.pair, err = machine.ParseAttempt(rest[n+int(size):])
	return q, err
}

func (q *question) segment() anchormesh.SegmentID { return anchormesh.SegmentID(q.number) }
