package stamps

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/mesh"
)

// LinesOf names the lines of some segments, each once, in order of their prefixes.
func LinesOf(parts []*anchormesh.Descriptor) [][]byte {
	var out [][]byte
	for _, d := range parts {
		out = append(out, d.Line)
	}
	slices.SortFunc(out, slices.Compare)
	return slices.CompactFunc(out, slices.Equal)
}

// NowOver is Now over several lines: the largest number of any, to which all the others
// were raised. Every later number of each is above it. What one line does not answer
// fails for all.
func (l *Lines) NowOver(ctx context.Context, lines [][]byte) (anchormesh.Revision, error) {
	t, _, err := l.toldOver(ctx, lines, question{})
	return t, err
}

// ToldOver is Told over several lines. T is that of NowOver.
func (l *Lines) ToldOver(ctx context.Context, lines [][]byte, since anchormesh.Revision) (Told, error) {
	t, spread, err := l.toldOver(ctx, lines, question{since: since, spread: true})
	return Told{T: t, Spread: spread}, err
}

// toldOver asks each line where it is, and then, raised, what is asked. A line tells
// where stamps went only when it was raised: below, it may give some meanwhile.
func (l *Lines) toldOver(ctx context.Context, lines [][]byte, q question) (t anchormesh.Revision, all line.Spread, err error) {
	if len(lines) == 1 {
		told, err := l.question(ctx, lines[0], q)
		return told.T, told.Spread, err
	}
	told, err := l.each(ctx, lines, func(int) question { return question{} })
	if err != nil {
		return 0, all, err
	}
	for _, a := range told {
		t = max(t, a.T)
	}
	var behind [][]byte
	for i, a := range told {
		if a.T < t || q.spread {
			behind = append(behind, lines[i])
		}
	}
	told, err = l.each(ctx, behind, func(int) question {
		again := q
		again.raise = t
		return again
	})
	for _, a := range told {
		all.All = all.All || a.Spread.All
		all.Ranges = append(all.Ranges, a.Spread.Ranges...)
	}
	return t, all, err
}

// each asks all lines at once.
func (l *Lines) each(ctx context.Context, lines [][]byte, q func(i int) question) ([]Told, error) {
	out := make([]Told, len(lines))
	group, inner := errgroup.WithContext(ctx)
	for i := range lines {
		group.Go(func() (err error) {
			out[i], err = l.question(inner, lines[i], q(i))
			return err
		})
	}
	return out, group.Wait()
}

// Raise lifts a line to a number that another one gave out, if it is not there.
func (l *Lines) Raise(ctx context.Context, line []byte, to anchormesh.Revision) error {
	_, err := l.question(ctx, line, question{raise: to})
	return err
}

// claimGap is how far above all lines a number is looked for first that none of them has
// given out. Every try doubles it: a busy line gives out some while it is asked.
const claimGap = 256

// claimTries bounds the search.
const claimTries = 16

// NumberOver is Number over several lines: the number is above all that any of them gave
// out before the call, and nobody's else on each of them.
func (l *Lines) NumberOver(ctx context.Context, lines [][]byte) (anchormesh.Revision, error) {
	if len(lines) == 1 {
		return l.Number(ctx, lines[0])
	}
	told, err := l.each(ctx, lines, func(int) question { return question{} })
	gap := anchormesh.Revision(claimGap)
	for try := 0; err == nil && try < claimTries; try++ {
		number, all := anchormesh.Revision(0), true
		for _, a := range told {
			number = max(number, a.T+gap)
		}
		gap *= 2
		if told, err = l.each(ctx, lines, func(int) question { return question{claim: number} }); err != nil {
			return 0, err
		}
		for _, a := range told {
			all = all && a.Claimed
		}
		if all {
			return number, nil
		}
	}
	if err == nil {
		err = line.ErrOverloaded
	}
	return 0, err
}

// Cede says that keys go from one line to another in a hand-over of segment by, and
// returns a number of the outer one above all that were given out before the call and
// above the given one. Who asks that line from now on where stamps went since before the
// hand-over is told of these keys.
func (l *Lines) Cede(ctx context.Context, outer []byte, by anchormesh.SegmentID, keys anchormesh.KeyRange, above anchormesh.Revision) (anchormesh.Revision, error) {
	told, err := l.question(ctx, outer, question{raise: above, cede: &keys, by: by})
	if err == nil && told.Number == 0 {
		err = ErrNoHome
	}
	return told.Number, err
}

// AskAdopt takes a wish to the leader of a segment, which its Adopter carries out.
func (l *Lines) AskAdopt(ctx context.Context, d *anchormesh.Descriptor, adoption []byte) ([]byte, error) {
	if st, ok := l.engine.Status(d.Segment); ok && st.Leads() {
		type answer struct {
			b   []byte
			err error
		}
		done := make(chan answer, 1)
		l.adopt(d.Segment, d.Generation, adoption, func(b []byte, err error) { done <- answer{b, err} })
		select {
		case a := <-done:
			return a.b, a.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return l.call(ctx, d, append(fields.AppendNumbers([]byte{askAdopt}, uint64(d.Segment), uint64(d.Generation)), adoption...))
}

func (l *Lines) serveAdopt(body []byte, to mesh.Responder) {
	segment, n := binary.Uvarint(body)
	generation, k := binary.Uvarint(body[max(n, 0):])
	if n <= 0 || k <= 0 || l.adopt == nil {
		to.Fail(refused, errMalformed.Error())
		return
	}
	id := anchormesh.SegmentID(segment)
	l.adopt(id, anchormesh.Generation(generation), body[n+k:], func(answer []byte, err error) {
		switch {
		case err == nil:
			to.Reply(answer)
		case errors.Is(err, line.ErrNotLeader):
			l.notHere(id, to, err)
		default:
			to.Fail(refused, err.Error())
		}
	})
}
