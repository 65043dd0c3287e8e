// Package neighbours keeps what the nodes of the mesh say of themselves in gossip,
// and says how this one stands: the shell of package summary.
//
// What it returns is a hint, and late: whoever acts on it lets the node that is to
// take something judge for itself (anchors/recruit), and the segment's log decide.
package neighbours
