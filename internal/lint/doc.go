// Package lint holds the rules of this code base as tests, so that a bare Go
// toolchain checks them. It has no code of its own.
//
//	layers    layers.txt says which package may import which, and who owns each
//	          module of others; the bare import graph is compared with it
//	purity    packages marked pure, and files named core.go, have no goroutine,
//	          channel, lock, clock, I/O, logger or random source
//	sizes     functions, files, structs and packages stay small; allow.txt holds
//	          the exceptions and may only shrink
//	decoders  what takes bytes of disks or of other nodes apart is reached by a fuzz
//	          target of its package, but for a short list with reasons
//	words     every package has one package comment, code is as gofmt writes it,
//	          nobody prints, no test sleeps in real time
//
// What it does not do: it does not find bugs. go vet and the other tests do.
package lint
