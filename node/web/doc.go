// Package web is the HTTP face of a node for operators:
//
//	/healthz       200 while the process answers
//	/readyz        200 if every check passes now, else 503 and a line per check
//	/metrics       what the given handler writes
//	/debug/pprof/  Go's profiles, if switched on
//
// The checks are the owner's; the first is a linearizable read through the same
// path as a client's, so a node whose group has no majority is not ready.
//
// Guarantees: a check is given up after CheckTimeout and reported as failed. At
// most ChecksMax requests check at once, more are answered 503: a monitor that
// goes mad must not become load on the read path. Slow clients are cut off.
//
// What it does not do: no TLS and no authentication; listen on an address that
// only operators reach.
package web
