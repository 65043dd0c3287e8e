// Package compose runs a mesh of five nodes in three zones as containers of this
// machine: it builds the program and an image FROM scratch, makes a mesh key,
// starts docker-compose.yaml and waits until every node serves. Nothing is pulled.
//
// Docker is used through its command line, and the compose program through
// whichever of "docker compose" and "docker-compose" is installed; so it works
// with any engine that they work with. Client ports are published on loopback
// only.
//
// The commands take their context: when it ends they are killed.
//
// # What it does not do
//
// It does no harm to the mesh: that is testnet/torture's.
package compose
