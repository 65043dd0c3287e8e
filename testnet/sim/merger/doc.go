// Package merger is node/merger with its waits turned into events: it drives the real
// cores of package anchors/merge. Questions between nodes travel as values.
package merger
