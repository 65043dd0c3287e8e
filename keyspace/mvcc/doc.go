// Package mvcc is the multi-version state of a scope's segments on one node.
package mvcc
