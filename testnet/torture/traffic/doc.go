// Package traffic is what users do, written down: registers, lists that grow by
// compare-and-append, counters and transfers by transactions, ranges, leases with
// keep-alives, watches that resume, and a steady trickle of probes through each node
// that shows when writes stand still. Everything goes through etcd's own client.
//
// The result is a check.History with one line: all of it happens below one prefix.
// An operation whose outcome its client could not tell is in it without an answer,
// except reads, which are left out; so is what was certainly refused. A request is
// given up after Config.Timeout.
//
// Keys come in groups (the text up to the last '/'), ranges cover one group, and no
// operation names keys of two: each group's history can be judged on its own. Groups
// of registers, lists and counters are replaced every Config.Epoch, so that no
// history of a key grows long. No two writes put the same value into the same key.
//
// Rate and number of requests in flight are bounded by Config; time is by the context.
package traffic
