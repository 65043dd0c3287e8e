// Package wire turns the checkers' requests into etcd's messages and etcd's answers
// into the checkers' results.
package wire
