// Package share holds processes to a share of the machine's CPU, so that a
// cluster on one machine has a limit per node as nodes on machines of their own
// would have.
//
// It makes control groups below the root of the cpu controller: version 2
// (cpu.max) or version 1 (cpu.cfs_quota_us), whichever the system mounts. That
// needs root on Linux. Detect says why it is not possible elsewhere; nothing here
// pretends.
//
// # Guarantees
//
// A process is in its group, with all its threads, when Add returns; children it
// starts later are, too. A limit may be set, changed and lifted while processes
// run. Groups that a killed program left behind are removed by the next Detect.
//
// # What it does not show
//
// A quota is not a slower processor: a process runs at full speed until its share
// of a period is used and then stands still to the end of the period. Periods are
// short (20 ms from a share of 5 % on), but latencies under a quota say more
// about the quota than about the program. Compare throughput.
package share
