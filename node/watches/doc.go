// Package watches serves etcd's watch streams, from the hubs of the segments on this
// node and on others.
//
// In a scope that was never split, a client stream is one stream of the hub of the
// only segment, passed through; a node without a replica has the whole stream relayed
// by one that has (package etcdapi). From the first split of the scope on, a weave
// (package keyspace/watch/weave) merges what the segments bring:
//
//	client <-- stream <-- weave <-- hub of a segment here
//	                            <-- another node <-- hub of a segment there
//	           frontier: questions to the home, barriers of segments
//
// A stream that is open at the split is handed over, watch by watch: a mark, or the end
// at a position of those that reach beyond the split, says from where each goes on in
// the weave. The client sees nothing of it.
//
// # Guarantees
//
// Those of packages watch and weave. Here:
//
//   - A mark is put only when the barrier was answered for the generation of the
//     segment that is in force here, all its leader had applied is applied and
//     published here, and the thread lies in the range of that generation.
//   - What another node brings comes whole and in order, or its threads break.
//   - A thread that ended or broke goes on elsewhere, or after a pause where it was.
//
// # Costs
//
// One goroutine sends, one receives, as without splits: hubs raise a flag, and the
// sender polls those that did. A stream to another node costs two goroutines, here and
// there, for each weave that needs one. Questions and barriers are shared by all weaves
// of the node over the same lines.
//
// # Limits
//
// A client that does not read stops the reading of hubs, whose outboxes are bounded;
// so is what waits from another node. Create waits while very many Created responses
// are unread.
//
// # Several lines
//
// The watches of one stream share a weave, over all lines that its segments are on: their
// events come by revision, and each line is raised to a revision before a barrier at it
// is asked for in its segments. What a home says holds for its own line only: a thread
// whose last mark was made on another is asked. A line whose home does not answer holds
// up what needs an answer on the same stream (a new watch, progress, events that span
// segments); events of one segment never wait.
package watches
