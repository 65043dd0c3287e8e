// Package failpoint lets a test stop a real process at a named step of a
// durable operation.
//
// Hit marks the step. In ordinary builds it is empty and costs nothing. In
// builds with the tag "failpoints" it obeys the environment variable
// ANCHORMESH_FAILPOINTS, read once when the process starts:
//
//	ANCHORMESH_FAILPOINTS='wal/before-sync=crash@3;wal/after-write=sleep(200ms)'
//
// Each term is name=action, with an optional @n: from the nth hit on (crash and
// panic happen once by nature). Actions:
//
//	crash        the process kills itself with SIGKILL: nothing is flushed or closed
//	panic        a Go panic naming the point
//	sleep(d)     the caller sleeps, as on a slow disk
//
// A malformed variable stops the process at start: a fault run that injects no
// fault proves nothing.
package failpoint
