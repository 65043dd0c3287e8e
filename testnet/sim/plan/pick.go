package plan

import "math/rand/v2"

func Pick[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }
