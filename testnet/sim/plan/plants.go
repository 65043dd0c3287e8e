package plan

// Plant is a fault planted into the simulation's own shell, to show that the
// checkers see it. The zero Plant is none.
type Plant string

// Plants.
const (
	// PlantAckEarly delivers what waits for the disk before the log is written.
	PlantAckEarly Plant = "ack-early"
	// PlantStaleRead answers linearizable reads without a read round.
	PlantStaleRead Plant = "stale-read"
	// PlantRetryUnknown repeats writes whose outcome is unknown.
	PlantRetryUnknown Plant = "retry-unknown"
	// PlantSkipEvent drops some events on their way to the watch hub.
	PlantSkipEvent Plant = "skip-event"
	// PlantAmnesia lets a node come back with an empty log and its old identity.
	PlantAmnesia Plant = "amnesia"
	// PlantEarlyExpiry makes clocks run ten times too fast for leases.
	PlantEarlyExpiry Plant = "early-expiry"
	// PlantOldOffer takes a snapshot that is older than the log which an installation
	// that was cut short left behind.
	PlantOldOffer Plant = "old-offer"
	// PlantTruncateAhead lets go of log that raft was not told to be applied yet.
	PlantTruncateAhead Plant = "truncate-ahead"
	// PlantDropTail drops the log behind an installed snapshot, acknowledged entries
	// included.
	PlantDropTail Plant = "drop-tail"
	// PlantLateApply gives entries that a stopped replica was to apply to the one that
	// a snapshot brought back under the same ID.
	PlantLateApply Plant = "late-apply"
	// PlantKeepRemoved lets a replica run on that applied its own removal.
	PlantKeepRemoved Plant = "keep-removed"
	// PlantNoInstall answers snapshots as installed without installing them.
	PlantNoInstall Plant = "no-install"
	// PlantEarlyChild begins the log of a split's child before the cut is in the store.
	PlantEarlyChild Plant = "early-child"
	// PlantNoBarrier reads at a number of the line behind a read round, without a
	// barrier.
	PlantNoBarrier Plant = "no-barrier"
	// PlantNoRound gives out numbers and answers barriers without asking a majority.
	PlantNoRound Plant = "no-round"
	// PlantDense counts writes of a scope that was split where they are applied.
	PlantDense Plant = "dense"
	// PlantDenseExpiry does so with the ends of leases.
	PlantDenseExpiry Plant = "dense-expiry"
	// PlantLeadersOnly asks for numbers of the line only where a leader is known.
	PlantLeadersOnly Plant = "leaders-only"
	// PlantRacingBirth takes a snapshot of a child that is about to begin from a split.
	PlantRacingBirth Plant = "racing-birth"
	// PlantPartOfNow reads a part of a range at the newest revision here, not at that of
	// the other parts, if the replica has not applied the split yet.
	PlantPartOfNow Plant = "part-of-now"
	// PlantWatchPastSplit lets watches go on that reach beyond what a split left.
	PlantWatchPastSplit Plant = "watch-past-split"
	// PlantForgedVotes counts votes that their voters did not sign, and has a home's leader
	// cast them.
	PlantForgedVotes Plant = "forged-votes"
	// PlantHastyForce notes versions as in force that not all segments have adopted.
	PlantHastyForce Plant = "hasty-force"
	// PlantOldRules leaves the rules of the version before in force behind an adoption.
	PlantOldRules Plant = "old-rules"
	// PlantThawUnproved thaws a frozen segment without asking what became of the attempt.
	PlantThawUnproved Plant = "thaw-unproved"
	// PlantAbsorbUnconfirmed absorbs a segment that is frozen in its log, before every
	// anchor has said that it applied that.
	PlantAbsorbUnconfirmed Plant = "absorb-unconfirmed"
	// PlantDoctoredLeader lets leaders of strong scopes make up the votes on a batch, and
	// admit what was refused. Machines that check find that out.
	PlantDoctoredLeader Plant = "doctored-leader"
	// PlantForgetfulVotes lets a replica run on that may have forgotten what it
	// acknowledged from memory.
	PlantForgetfulVotes Plant = "forgetful-votes"
	// PlantUnapproved does so among machines that believe every signature.
	PlantUnapproved Plant = "unapproved"
	// PlantUnasked lets leaders cut and merge segments without asking their anchors, among
	// machines that do not insist.
	PlantUnasked Plant = "unasked"
	// PlantDoctoredAct lets leaders make up the votes on cuts and merges. Machines that
	// check refuse them all.
	PlantDoctoredAct Plant = "doctored-act"
	// PlantForgedAct does so among machines that believe every signature.
	PlantForgedAct Plant = "forged-act"
	// PlantEarlyAnswer lets coordinators of transactions over several segments answer before
	// the decision is in the log.
	PlantEarlyAnswer Plant = "early-answer"
	// PlantNoGate lets ordinary writes pass the locks of transactions that are not prepared.
	PlantNoGate Plant = "no-gate"
	// PlantForgetfulLeader lets a new leader of a segment forget what is prepared in it: no
	// barrier waits for that.
	PlantForgetfulLeader Plant = "forgetful-leader"
)
