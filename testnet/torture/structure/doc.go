// Package structure changes a mesh's structure while users work with it, as an
// operator would: random splits, merges, moves and transfers of leadership, through
// whichever node answers.
//
// # Guarantees
//
// What is wanted is drawn from the seed; what comes of it depends on who leads and on
// what the mesh refuses, and is counted: Done, Refused (nothing happened, with the
// reason), Unknown (no answer, or one that says nothing). A move counts as done when
// the anchors are as ordered. The number of segments stays between SegmentsMin and
// SegmentsMax, so that splits and merges keep going.
//
// Verify runs "anchormesh verify" against the mesh and returns its findings.
//
// # What it does not do
//
// It judges no data: traffic and verify do. It does not wait for quiet: changes meet
// faults and each other's consequences.
package structure
