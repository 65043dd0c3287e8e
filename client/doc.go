// Package client makes etcd's own client, clientv3, for a mesh.
//
// A mesh needs no client of its own: every node serves etcd's API over TCP, and
// any etcd client works. What this package adds is the other way in: over
// libp2p, where a node is named by its peer ID, proves to be that node, and lets
// nobody in without the mesh key. An endpoint is one of
//
//	host:port, http://host:port, https://host:port    TCP, as in clientv3
//	/ip4/192.0.2.1/tcp/2390/p2p/12D3KooW...           libp2p, with where and who
//	12D3KooW...                                       libp2p, a peer ID whose addresses are in Config.Peers
//
// and what comes out is a *clientv3.Client with all its balancing, retries and
// watches. Both kinds may be mixed, unless TLS is asked for: libp2p connections
// have their own.
//
// # Guarantees
//
// A node that answers under a wrong peer ID, or holds another mesh key, is never
// spoken to. All connections of a client to one node share one libp2p
// connection. Close closes everything that New and NewDialer opened.
//
// Signer signs what a client writes, for scopes that take nothing else.
//
// It does not route by key: any node passes requests on.
package client
