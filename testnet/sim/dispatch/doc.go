// Package dispatch is node/dispatch with its waits turned into events: where a
// client's request goes and, above all, what may be tried again. No outcome that is
// unknown is ever tried again.
package dispatch
