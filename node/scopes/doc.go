// Package scopes opens the store files of a node, one per scope, and commits
// them in the background.
//
// An answer never waits for a commit: what is applied and not committed is
// replayed from the log after a crash. Commits come at an interval, or earlier
// when much has gathered. A failed commit stops the process: what the disk
// holds is unknown then, and the other anchors have the data.
package scopes
