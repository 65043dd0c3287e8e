package frame

// Verdict says what was found where a frame was expected.
type Verdict int

const (
	// Whole is a valid frame with the expected number.
	Whole Verdict = iota + 1
	// End means that there are only zeros up to the end of the file.
	End
	// Torn is a frame whose writing was cut short, so it was never confirmed.
	Torn
	// Damaged means that bytes were changed after they had been written.
	Damaged
)

// String names the verdict in tables and errors.
func (v Verdict) String() string {
	switch v {
	case Whole:
		return "whole"
	case End:
		return "end"
	case Torn:
		return "torn"
	case Damaged:
		return "damaged"
	}
	return "unknown"
}

// Judge says what stands at offset, where the frame numbered seq is expected.
// tail is everything from there to the end of the file. Torn is a judgement by
// the frame's own bytes; the caller must also see that there is no proof of the
// contrary, which is a frame with a higher number (Later) in this file or in one
// after it.
func Judge(tail []byte, seed uint32, offset int64, seq uint64) Verdict {
	if len(tail) < HeaderBytes {
		if Blank(tail) {
			return End
		}
		return Damaged
	}
	h, ok := ParseHeader(tail, seed, offset)
	switch {
	case ok:
		return judgePayload(h, tail[HeaderBytes:], offset+HeaderBytes, seq)
	case !Blank(tail[:HeaderBytes]):
		// A header lies in one sector, which is there as a whole or not at all.
		return Damaged
	case Blank(tail):
		return End
	}
	rest := min(len(tail), SectorBytes-int(offset%SectorBytes))
	if !Blank(tail[:rest]) {
		return Damaged
	}
	return Torn
}

func judgePayload(h Header, b []byte, offset int64, seq uint64) Verdict {
	if h.Seq != seq || h.Length > len(b) {
		return Damaged
	}
	payload := b[:h.Length]
	switch {
	case h.Matches(payload):
		return Whole
	case countBlanks(payload, offset) > h.blanks:
		return Torn
	}
	return Damaged
}

// Later looks in b, which was read from offset, for a valid header with a number
// above seq, and returns where it stands.
func Later(b []byte, seed uint32, offset int64, seq uint64) (at int64, found bool) {
	skip := int((Align - offset%Align) % Align)
	for i := skip; i+HeaderBytes <= len(b); i += Align {
		if Blank(b[i : i+8]) {
			continue
		}
		if h, ok := ParseHeader(b[i:], seed, offset+int64(i)); ok && h.Seq > seq {
			return offset + int64(i), true
		}
	}
	return 0, false
}
