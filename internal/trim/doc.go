// Package trim gives memory back to the system while a process is at rest.
//
// Go keeps what a burst of work has left: after thousands of splits a node is
// half as large again as what it holds, for good. Once a minute Run looks at what
// the runtime counts. If little was allocated meanwhile, and much of what the
// process has is not in use, it collects and gives back (debug.FreeOSMemory). A
// collection costs what a collection costs; at rest there is one every two minutes
// anyway, and the next of these is not before the garbage has grown again. What remains
// are holes between objects that live: they do not count the next time, which is five
// minutes later at the earliest.
//
// It does nothing under load, where the memory would be asked for again at once.
package trim
