// Command anchormesh runs nodes of a mesh and asks about them.
//
//	dev       a whole mesh in one process, to try
//	serve     one node
//	nodes, segments, status
//	          what a running node knows of its mesh, its segments, itself
//	scope, trust
//	          the rules of parts of the keyspace, who decides them, and how to change them
//	inspect   what is in log and store files
//	key new   the secret that nodes of a mesh share
//	version   what this program is
//
// Exit statuses: 0 done; 1 failed, the last line on stderr says why; 2 the
// command line or the configuration is wrong, nothing was started.
//
// Answers go to stdout, everything else to stderr. This package turns flags into
// configuration and answers into tables; what a node is stands in package node,
// and assemble.go holds the only lines that touch it.
package main
