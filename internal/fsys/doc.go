// Package fsys is the only way to the disk (bbolt is the stated exception).
//
// FS has two implementations that pass one conformance suite: OS, the
// operating system, and Mem, which remembers what was synced and can produce
// the disk a power cut would leave (Mem.CrashClone). Wrap puts a hook in front
// of every operation of any FS; Faults (errors, short writes, delays) and Trace
// (a golden record of creates, writes, syncs and renames) are hooks.
//
// Durability, as POSIX promises it and Mem enforces it:
//
//	bytes and size of a file   durable after File.Sync returned nil
//	bytes within a synced size durable after File.Datasync returned nil
//	a name in a directory      durable after SyncDir of that directory
//
// Before that a power cut may keep or lose each 512-byte sector and each
// directory operation on its own. A sector is assumed to be written whole or
// not at all. A failed sync must be treated as loss: the kernel may have thrown
// the dirty pages away and will report success the next time.
//
// All methods are safe for concurrent use as far as the operating system makes
// them so: reads and writes of disjoint ranges of a file may run in parallel.
package fsys
