// Package line gives one revision line to a scope of several segments: which
// numbers its writes get, and when a read at a number may trust that nothing at
// or below it can still appear. It holds two pure cores and a small third one.
//
//	Home       beside the leader of the scope's home segment: gives out numbers
//	Holder     beside the leader of every segment of the scope, the home too:
//	           puts numbers on writes that wait, and answers barriers
//	Collector  on every node, over its Holders of one scope: puts what waits in
//	           all of them into one request
//
// A write, and a linearizable read of the scope, with the messages between nodes:
//
//	write --> Holder --> Collector ==Request==> Home: one round for all that came
//	             |          ^                     |
//	  propose <--+          +======Answer=========+   numbers from one window W
//
//	read ==Request{}==> Home ==Answer{T}==> read ==Barrier(T)==> every Holder of the
//	range: bar, one round, wait ==> read at T
//
// # Guarantees
//
// They hold if the caller keeps its part, below.
//
//   - A number is given out once. It is above all that was given out, by whatever
//     leader, before its request was made, and so above all that was acknowledged
//     or read before.
//   - T is at or above every number that was acknowledged or read at before T was
//     asked for. Later numbers are above T.
//   - After a Holder has answered Barrier(T), no write at or below T appears in its
//     range, whoever leads it then, and whatever appeared is applied at the
//     Holder's replica. Commits of transactions count through Hold.
//   - Who has a completed barrier at Since over a range and asks for T is told where
//     writes above Since and up to T can still appear. The rest needs no barrier: it
//     answered one at Since, and got no stamps since. If the home does not know (it
//     leads since later, or has forgotten), it answers "all". One condition: the
//     asker has all that was applied when the barrier at Since was answered, what
//     is above Since too. For a transaction prepared below Since may have been
//     committed above it, and its range got no stamp for that.
//   - A write whose number was thrown away took effect nowhere and gets another one.
//     Barriers cannot starve it for ever: the next one waits for its new number,
//     Config.Patience at most.
//   - Deposed, or with another generation, a core gives back all it had not put on
//     an entry, with an error that says "took effect nowhere".
//
// # Why it is enough
//
// A round that a leader wins itself after a request has come says: nobody was
// elected with a majority before the request came. So all numbers that were given
// before that are its own or at or below the W that it has applied, and its next
// one is above both. A number is at or below a W that the giver has applied, hence
// committed; a later leader applies that W before it gives, and starts above it.
// The same argument lets a Holder answer a barrier: a later leader asks for its
// numbers after the round, so after T, and gets them above T. What it inherits
// was applied here or never commits. And a request that was confirmed may wait for
// the window as long as it takes: its round has said all that it has to say.
//
// A window that an entry of a later term brought is its leader's to give from, even
// if the old one applies it before it hears of being replaced. So what is applied
// is told with its entry's term.
//
// # The caller's part
//
//   - Lead a core only after an entry of the leader's own term was applied, with the
//     state as applied then. Window, Structure, Hold and Ended come in apply order,
//     and from applied entries only.
//   - A round is one ReadIndex that begins after the effect was taken. RoundDone is
//     called when its index is applied and after all that was applied up to there
//     was told to the core; its term is that in which this replica led at the
//     moment the round was confirmed, 0 if it did not. A round that Raft forwarded
//     to another leader proves nothing here.
//   - WindowFailed of an extension that was refused comes at the shell's own pace: the
//     next Take proposes again.
//   - Stamped writes are proposed at once, in order, for the seat's generation and
//     in its term only. A proposal that would go on an entry of another term must
//     fail. Apply refuses a stamp that is not above the segment's last.
//   - Ended is told of a stamp only when it is applied, or certain never to be. What
//     a lost leadership leaves unknown is not ended. Hold comes before Ended.
//
// # Limits
//
// Writes, barriers and requests that wait are bounded: beyond, ErrOverloaded, and
// nothing was taken in. Home remembers Config.SpotsMax segments; what it forgets it
// answers with "all".
//
// # What this package does not do
//
// It keeps no keys, sends nothing, reads no clock and checks no leadership. It
// does not order segments in a merge of watches, nor decide transactions. It counts
// by one; dated counting is a matter of Home.draw alone.
package line
