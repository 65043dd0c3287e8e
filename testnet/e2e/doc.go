// Package e2e drives real processes with etcd's own etcdctl and clientv3: what a
// user types must do what it does with etcd, and what was acknowledged must
// survive kill -9. The target is chosen by package target; run against etcd, the
// tests try themselves:
//
//	TESTNET_TARGET=etcd go test ./testnet/e2e
//
// The package holds tests only.
package e2e
