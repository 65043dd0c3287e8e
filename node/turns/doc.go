// Package turns drives hand-overs: the keys of a scope go from the line of revisions of
// the scope around it to a line of their own, or back.
//
//	to its own line                       back to the outer line
//	home    OpTurn: serves nothing        home    OpTurn: serves nothing, gives no number
//	others  OpSwitch: ask the home         outer   raised above all that the line gave
//	outer   a number for these keys       home    OpSwitch: serves, on the outer line
//	home    OpBegin: its line begins      others  OpSwitch
//	        above that number             home    OpSettle
//
// The policy of a scope asks for its line ("line: own", or shared, which a scope that is
// being deleted returns to). Everything that must survive is in the segments' logs (package machine); the leader of
// the home reads there how far a hand-over has come and does what is next. Nothing is
// remembered here.
//
// # Guarantees
//
//   - No two segments of a scope write with numbers of two lines at the same time, as
//     long as the scope goes to its own line; on the way back the outer line is above
//     all numbers of the other before the first segment takes one of it. So inside one
//     scope revisions never go back.
//   - A number of the old line that was given out before a segment adopted the other one
//     is used before that, or never: its generation is over.
//   - A hand-over ends. If a segment or the outer line does not answer within Patience,
//     it is turned back; who adopted already goes back, too. Once the home is on the
//     outer line, the others follow whenever they can.
//   - In between, requests took effect nowhere, or wait for their number.
//
// # Limits
//
// A transaction over several segments that is prepared in one of them is waited for.
// Hand-overs of scopes inside each other must not run at the same time: who starts them
// sees to that.
//
// # What travels (call of package stamps)
//
//	wish    from (length, bytes), Switching of package machine; number 0: only answer
//	answer  0, range start, range end: adopted, or not concerned; 1, descriptor: ask anew
package turns
