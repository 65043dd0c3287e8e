// Package cluster runs a cluster of local processes, etcd or anchormesh, and
// does to it what an operator or a bad day would: kill -9, stop and continue,
// graceful end, restart. It knows the programs only from outside: command
// lines, clientv3, /proc.
//
// # Guarantees
//
// A Cluster that Start returned is ready: every node has answered a
// linearizable read and lists all members. Ready says the same later. Both poll
// until the context ends; nothing waits for a fixed time.
//
// Ports lie below the range from which the system takes source ports of
// outgoing connections, else a client that retries a dead node could occupy its
// port (or, on loopback, connect to itself) and the restart would fail. They are
// reserved among processes by file locks until Close.
//
// Every process ends with the program that started it, also if that one is
// killed (Linux). Standard output and error of all incarnations of a node go to
// one file, Node.LogPath.
//
// Methods of a Node may be called from any goroutine. CPU time counts all
// incarnations of a node.
//
// # What it does not do
//
// It does not know who leads or which keys are where; it does not fault the
// network or the disk.
package cluster
