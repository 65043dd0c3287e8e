// Package mesh is who is there, and how bytes reach them.
package mesh
