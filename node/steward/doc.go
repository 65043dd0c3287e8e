// Package steward carries out what package anchors/recruit decides for the
// segments that this node leads: it invites nodes over the mesh and proposes
// changes of the anchor groups to their logs. It also answers invitations.
//
// One goroutine looks at every led segment once a second and after changes of
// the view. Every decision is logged with its reason.
package steward
