// Package steward is node/steward with its waits turned into events. What to do is
// package recruit's decision; members and liveness are the mesh's late and at times
// wrong gossip.
package steward
