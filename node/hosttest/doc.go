// Package hosttest runs hosts, engines and stores of several nodes over a mesh in
// memory, for tests of what stands on package host. There is no API on top and
// nobody recruits: a test does that, or lets the package it tests do it.
//
// A Disk keeps what a node has written: everything but the stores in a file system
// that forgets what was not synced, the stores, which bbolt writes, in a real
// directory. A Recording copies it before every change, so that a test can start a
// node from what a power cut at any of these moments would leave.
//
// Everything runs in a testing/synctest bubble: heartbeats and elections take no
// real time.
package hosttest
