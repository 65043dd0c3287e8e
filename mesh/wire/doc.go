// Package wire is how bytes reach other nodes.
package wire
