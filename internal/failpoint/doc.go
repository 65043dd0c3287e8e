// Package failpoint lets a test do harm to a real process at a named step of a
// durable operation.
//
// Hit marks the step. In ordinary builds it is empty and costs nothing. In
// builds with the tag "failpoints" it obeys the environment variable
// ANCHORMESH_FAILPOINTS, read once when the process starts:
//
//	ANCHORMESH_FAILPOINTS='wal/before-sync=crash@3;wal/after-write=sleep(200ms)'
//
// Each term is name=action, with an optional @n: sleep acts from the nth hit on,
// all others at the nth alone. Actions:
//
//	crash        the process kills itself with SIGKILL: nothing is flushed or closed
//	panic        a Go panic naming the point
//	sleep(d)     the caller sleeps, as on a slow disk
//	hold         the caller waits until the process gets SIGUSR1; all else goes on
//	cut          the process is cut off from the other nodes until it gets SIGUSR1
//	stop         the process stops, as by SIGSTOP, until it gets SIGCONT
//
// All but sleep say so on stderr first, in one line "failpoint NAME: ACTION": by that
// a test knows that the step was reached.
//
// A process that is cut off still serves its clients. What it sends to other nodes and
// what these send to it is lost, if it is a datagram, or waits, if it is on a connection
// (Conn), as TCP lets it: nobody is told, and what waited arrives when the cut ends, if
// both sides have had the patience. Transports ask Cut; what they carry over Conn they
// need not ask for.
//
// A simulation, which runs many nodes in one goroutine, takes the steps in by Handle.
//
// A malformed variable stops the process at start: a fault run that injects no
// fault proves nothing.
package failpoint
