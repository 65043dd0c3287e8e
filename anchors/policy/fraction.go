package policy

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// fractionMax bounds a fraction's denominator.
const fractionMax = 1000

// Fraction is Num/Den of a sum of weights, 0 < Num <= Den <= 1000; both 0: unset.
// It is written "2/3".
type Fraction struct{ Num, Den uint32 }

// IsZero reports whether the fraction is unset.
func (f Fraction) IsZero() bool { return f == Fraction{} }

// String is the written form; empty if unset.
func (f Fraction) String() string {
	if f.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d/%d", f.Num, f.Den)
}

// MarshalText implements encoding.TextMarshaler.
func (f Fraction) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It checks the form; Validate
// checks the value.
func (f *Fraction) UnmarshalText(text []byte) error {
	num, den, ok := strings.Cut(string(text), "/")
	n, err1 := strconv.ParseUint(strings.TrimSpace(num), 10, 32)
	d, err2 := strconv.ParseUint(strings.TrimSpace(den), 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return fmt.Errorf("%q is no fraction such as \"2/3\"", text)
	}
	*f = Fraction{uint32(n), uint32(d)}
	return nil
}

// Reached reports whether part is at least f of whole. An unset fraction is
// reached by more than half.
func (f Fraction) Reached(part, whole uint64) bool {
	if f.IsZero() {
		return new(big.Int).Lsh(new(big.Int).SetUint64(part), 1).Cmp(new(big.Int).SetUint64(whole)) > 0
	}
	left := new(big.Int).Mul(new(big.Int).SetUint64(part), big.NewInt(int64(f.Den)))
	return left.Cmp(new(big.Int).Mul(new(big.Int).SetUint64(whole), big.NewInt(int64(f.Num)))) >= 0
}

// valid reports whether the fraction is unset or in its range.
func (f Fraction) valid() bool {
	return f.IsZero() || 0 < f.Num && f.Num <= f.Den && f.Den <= fractionMax
}

// reduced is the fraction in lowest terms.
func (f Fraction) reduced() Fraction {
	a, b := f.Num, f.Den
	for b != 0 {
		a, b = b, a%b
	}
	if a <= 1 {
		return f
	}
	return Fraction{f.Num / a, f.Den / a}
}

// compare orders two fractions that are in their range; an unset one is 0.
func (f Fraction) compare(o Fraction) int {
	left, right := uint64(f.Num)*uint64(max(1, o.Den)), uint64(o.Num)*uint64(max(1, f.Den))
	switch {
	case left < right:
		return -1
	case left > right:
		return 1
	}
	return 0
}
