// Package governor lets scopes govern themselves: it takes operators' proposals to the
// home of the scope they concern, votes in the name of this node, and carries out what
// was decided. What was decided stands in the homes' logs (packages scope and machine);
// nothing here is remembered over a restart.
//
// # Who decides what
//
// A new version of a policy and the end of a scope are decided in the log of the scope's
// own home; a new scope, and the recovery of a segment, in that of the scope around it.
// So two operators who create one scope, or one inside the other, meet in one log.
//
// # Voting
//
// Every node looks at the proposals of the homes that it votes in, judges each by itself
// (Judge), and sends a signed vote to the home's leader, again until it is counted. Where
// the policy in force says that operators vote, it waits for Vote.
//
// # Carrying out
//
// The home's leader goes on with whatever is decided, also by a leader before it: it has
// segments cut at the ends of a new scope, the one at the scope's beginning become its
// home, and every other segment adopt the decision, with the home's proof. Each step
// names the generation of the segment it is for and can be repeated. A creation that
// meets another scope in its place is abandoned; the cuts stay, and merge when dormant.
// When the answers of leaders cover all the scope's keys, it notes the version in force.
//
// An order (split, merge, move), where operators vote, is carried out by the segment's
// leader, and abandoned when that refuses it or after orderKept.
//
// # Losses
//
// The home of a scope keeps the losses of the light scopes inside (package
// anchors/keeper): its leader takes reports, has the log choose who begins a lost segment
// anew, and tells that node. Operators' recoveries of light segments stand in the same log.
//
// # What it does not do
//
// It does not merge, and moves no anchors: the steward follows the policies.
package governor
