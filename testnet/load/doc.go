// Package load drives anything that speaks etcd's API and measures it.
//
// A run has a workload, a number of closed-loop clients (each sends its next
// request when the last is answered) and a number of connections, each a
// clientv3.Client of one endpoint, endpoints taken in turn. Client i's k-th
// request goes over connection (i+k) mod connections, which is how a clientv3
// that knows several endpoints spreads its requests, and makes results
// independent of who happens to lead.
//
// A run first prepares (fills keys, grants leases), then warms up, then measures
// for a fixed window. What counts is what completes inside the window. Latency
// is seen by the caller, histogram buckets are at most 0.8 % wide. CPU seconds
// of this process inside the window are part of the result: on a small machine
// the load takes them from the servers.
//
// A closed loop is not corrected for coordinated omission: the figure that is
// compared is throughput at a number of clients together with the latency they
// saw. With a Rate, put, get, range, txn and mixed have a timetable instead, and
// latency counts from the moment a request was due.
//
// # Workloads
//
//	put               put of a random key
//	get               linearizable get of a random key
//	serializable-get  the same, from the asked node's own state
//	range             linearizable range of RangeKeys neighbouring keys, with values
//	txn               Kubernetes' update: if mod revision is as known, put, else get
//	mixed             ReadPercent linearizable gets, the rest puts
//	watch             Clients watchers of one prefix, one writer at WatchRate; an
//	                  operation is one event at one watcher, its latency the time
//	                  from before the put was sent
//	lease             keep-alive of one lease per client on its own stream
package load
