// Package gossip is doc.
package gossip
