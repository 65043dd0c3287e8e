// Package audit judges how a mesh was governed, by what its nodes left on their disks:
// every entry that their logs committed, and the state that their stores are in. It
// counts again, from the bytes, what the nodes counted.
//
//	Read     the books: logs and stores of stopped nodes
//	Judge    the auditors, below; no one stops another
//
// # What is judged
//
//	logs         no two nodes committed different entries at one place
//	approvals    in a scope that wants approvals no write showed but by an entry whose
//	             votes suffice: signed by voters in force, about this batch in this term,
//	             generation and configuration, under the version of policy and weights
//	             that held there, and with the weight that the threshold asks for
//	decisions    every proposal that was decided had signed votes of the home's voters
//	             for it whose weights, in the ledger of that place, make up the tally that
//	             is written down and reach the threshold of the version in force before
//	structure    every cut, and every merge when it was opened, had the signed votes of
//	             its segment's anchors, or carried a decision of its scope's home
//	versions     each segment adopted them in order, a home one after the other, and
//	             each adoption names a decision about just that
//	trust        every ledger follows, weight by weight, from the signed reports in the
//	             log of its segment, back to where its segment began
//	changes      nothing was decided that nobody asked for, and what operators were told
//	             to be in force is in the record
//
// # What it cannot judge
//
// Logs let go of what is old, lineages and ledgers of all but the newest. What depends on
// what is not there any more is counted as such and not judged: see Verdict.Unknown. The
// books of a mesh that lost its disks say nothing.
//
// It promises nothing about voters that lie together: their signatures hold.
package audit
