package differential

import (
	"context"
	"slices"
)

// Shrink looks for a short part of a failing sequence that still fails, by
// leaving out ever smaller chunks (Zeller's ddmin without its complements). The
// difference it ends with may be another than the first. It tries at most tries
// sequences and stops early when ctx ends.
func Shrink(ctx context.Context, reference, target *Server, found *Mismatch, tries int) *Mismatch {
	for size := (len(found.Ops) + 1) / 2; size >= 1; size /= 2 {
		for at := 0; at < len(found.Ops); {
			if tries == 0 || ctx.Err() != nil {
				return found
			}
			tries--
			shorter := slices.Delete(slices.Clone(found.Ops), at, min(at+size, len(found.Ops)))
			diff, err := Compare(ctx, reference, target, shorter)
			if err == nil && diff != nil {
				found = diff
				continue
			}
			at += size
		}
	}
	return found
}
