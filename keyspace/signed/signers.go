package signed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
)

const (
	// WindowBits is how far a signer's requests may overtake each other.
	WindowBits = 1024
	// SignersMax is how many signers a segment remembers.
	SignersMax = 4096

	windowWords = WindowBits / 64
	rowFormat   = 1
)

// Signers is which counters were used. The zero Signers remembers nothing.
type Signers struct {
	by    map[Key]*used
	floor uint64 // of those who are not remembered
}

// used is the highest counter; bit i of the window says that the one i+1 below was used.
type used struct {
	high   uint64
	window [windowWords]uint64
}

// Row is a row of the table that keeps Signers: an empty key is the floor's. A nil value
// says that the row goes.
type Row struct{ Key, Value []byte }

// Use notes that a counter is used, and returns the rows that change. The error is
// ErrReplay.
func (s *Signers) Use(key Key, counter uint64) ([]Row, error) {
	u := s.by[key]
	if u == nil {
		return s.enter(key, counter)
	}
	if counter > u.high {
		u.shift(counter - u.high)
		u.high = counter
	} else if back := u.high - counter; back == 0 || back > WindowBits || u.test(back-1) {
		return nil, ErrReplay
	} else {
		u.set(back - 1)
	}
	return []Row{{Key: bytes.Clone(key[:]), Value: u.encode()}}, nil
}

func (s *Signers) enter(key Key, counter uint64) (rows []Row, err error) {
	if counter <= s.floor {
		return nil, ErrReplay
	}
	if s.by == nil {
		s.by = make(map[Key]*used)
	}
	if len(s.by) >= SignersMax {
		if counter <= s.by[s.lowest()].high {
			return nil, ErrReplay // it would be the next to go
		}
		rows = append(rows, s.drop(), s.floorRow())
	}
	u := &used{high: counter}
	s.by[key] = u
	return append(rows, Row{Key: bytes.Clone(key[:]), Value: u.encode()}), nil
}

// drop forgets the signer with the lowest highest counter.
func (s *Signers) drop() Row {
	lowest := s.lowest()
	s.floor = max(s.floor, s.by[lowest].high)
	delete(s.by, lowest)
	return Row{Key: bytes.Clone(lowest[:])}
}

// lowest is the signer with the lowest highest counter; of several the one with the
// smallest key.
func (s *Signers) lowest() (key Key) {
	first := true
	for k, u := range s.by {
		if at := s.by[key]; first || u.high < at.high || u.high == at.high && bytes.Compare(k[:], key[:]) < 0 {
			key, first = k, false
		}
	}
	return key
}

// Rows lists all rows, by key.
func (s *Signers) Rows() (rows []Row) {
	if s.floor > 0 {
		rows = append(rows, s.floorRow())
	}
	for k, u := range s.by {
		rows = append(rows, Row{Key: bytes.Clone(k[:]), Value: u.encode()})
	}
	slices.SortFunc(rows, func(a, b Row) int { return bytes.Compare(a.Key, b.Key) })
	return rows
}

// Join takes in what another segment remembers, and returns all rows and those that go. A counter counts as
// used if one of both has seen it, or if one of both is too far on to tell.
func (s *Signers) Join(o *Signers) []Row {
	s.floor = max(s.floor, o.floor)
	for k, theirs := range o.by {
		ours := s.by[k]
		if ours == nil {
			if s.by == nil {
				s.by = make(map[Key]*used)
			}
			copied := *theirs
			s.by[k] = &copied
			continue
		}
		low := *theirs
		if low.high > ours.high {
			low, *ours = *ours, low
		}
		back := ours.high - low.high
		low.shift(back)
		for i := range ours.window {
			ours.window[i] |= low.window[i]
		}
	}
	var gone []Row
	for len(s.by) > SignersMax {
		gone = append(gone, s.drop())
	}
	return append(gone, s.Rows()...)
}

var errRow = errors.New("signed: a stored row of a signer cannot be read")

// Load takes a stored row.
func (s *Signers) Load(key, value []byte) error {
	if len(value) < 9 || value[0] != rowFormat {
		return errRow
	}
	high, rest := binary.BigEndian.Uint64(value[1:]), value[9:]
	if len(key) == 0 && len(rest) == 0 {
		s.floor = high
		return nil
	}
	if len(key) != len(Key{}) || len(rest) != 8*windowWords {
		return errRow
	}
	u := &used{high: high}
	for i := range u.window {
		u.window[i] = binary.BigEndian.Uint64(rest[8*i:])
	}
	if s.by == nil {
		s.by = make(map[Key]*used)
	}
	s.by[Key(key)] = u
	return nil
}

func (s *Signers) floorRow() Row {
	return Row{Key: []byte{}, Value: binary.BigEndian.AppendUint64([]byte{rowFormat}, s.floor)}
}

func (u *used) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{rowFormat}, u.high)
	for _, w := range u.window {
		b = binary.BigEndian.AppendUint64(b, w)
	}
	return b
}

func (u *used) test(bit uint64) bool { return u.window[bit/64]&(1<<(bit%64)) != 0 }
func (u *used) set(bit uint64)       { u.window[bit/64] |= 1 << (bit % 64) }

// shift makes the highest counter n higher: the old one is marked n below the new one.
func (u *used) shift(n uint64) {
	if n == 0 {
		return
	}
	old := u.window
	u.window = [windowWords]uint64{}
	for i := uint64(0); n <= WindowBits && i < WindowBits-n; i++ {
		if old[i/64]&(1<<(i%64)) != 0 {
			u.set(i + n)
		}
	}
	if n <= WindowBits {
		u.set(n - 1)
	}
}
