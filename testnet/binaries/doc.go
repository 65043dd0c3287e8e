// Package binaries provides the programs that testnet runs: the pinned etcd,
// etcdctl and etcdutl, and the anchormesh of this working tree.
//
// etcd is built from the nested module testnet/etcd by the Go command and kept
// in the user's cache directory under a name derived from everything that
// decides the result (go.mod, go.sum, Go version, platform). Any number of
// processes may ask at the same time: one builds, the others wait on a file
// lock, and a result appears by rename, whole or not at all.
//
// anchormesh is built anew by every process that asks, into a directory of its
// own; Go's build cache makes that cheap, and a stale program would make every
// comparison a lie.
//
// Both can be replaced: TESTNET_ETCD_DIR names a directory that holds etcd,
// etcdctl and etcdutl, TESTNET_ANCHORMESH names the program.
package binaries
