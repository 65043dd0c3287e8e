package audit

import (
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/node/machine"
)

// write is a key with a value that a request wants to write.
type write struct{ key, value string }

// admitted is what approved batches let in, and why others did not.
type admitted struct {
	writes  map[write]bool
	refused map[write]string
	maybe   map[write]bool // in batches that cannot be judged
	unknown int            // batches whose policy, voters or ledger are not kept any more
	judged  int
}

// approvals makes sure that what was shown was approved.
func approvals(c *Case, p *past, l *ledgers) Verdict {
	v := Verdict{Name: "approvals: nothing was written without the votes that the policy asks for"}
	in := admitted{writes: make(map[write]bool), refused: make(map[write]string), maybe: make(map[write]bool)}
	whole := true
	for _, id := range c.Books.segments() {
		log := c.Books.Logs[id]
		if in.log(id, log, p, l, c.Verify) && !log.Whole {
			whole = false
		}
	}
	v.Judged, v.Unknown = in.judged, in.unknown
	for _, put := range c.Puts {
		w := write{put.Key, put.Value}
		switch why, seen := in.refused[w]; {
		case in.writes[w]:
			v.Judged++
		case in.maybe[w]:
			v.Unknown++
		case seen:
			v.broken("%q was written at revision %d, and its votes did not suffice: %s", put.Key, put.Revision, why)
		case !whole:
			v.Unknown++
		default:
			v.broken("%q was written at revision %d, and no log has votes on that", put.Key, put.Revision)
		}
	}
	return v
}

// log reads one segment's batches; it reports whether there were any.
func (in *admitted) log(id anchormesh.SegmentID, log *Log, p *past, l *ledgers, verify machine.Verify) (any bool) {
	last := make(map[uint64]uint64) // of each term, the last sequence
	for i := range log.Entries {
		e := &log.Entries[i]
		if len(e.Payloads) == 0 || len(e.Payloads[0]) == 0 || keyspace.Op(e.Payloads[0][0]) != machine.OpApproved {
			continue
		}
		any = true
		batch, err := approval.Parse(e.Payloads[0][1:])
		if err != nil {
			continue // it can have let nothing in
		}
		held, known := p.at(id, e.Index)
		if !known || !l.of(id).whole {
			in.unknown++
			for i := range batch.Slots {
				for _, w := range writes(batch.Slots[i].Request()) {
					in.maybe[w] = true
				}
			}
			continue
		}
		in.judged++
		now := l.of(id).at(e.Index)
		why := void(batch, id, e, &held, now.Version(), last[e.Term])
		if in.batch(batch, &held, now, why, verify) {
			last[e.Term] = batch.Question.Sequence
		}
	}
	return any
}

// void says why a batch lets nothing in, whatever the votes.
func void(b *approval.Batch, id anchormesh.SegmentID, e *Entry, held *inForce, ledger, last uint64) string {
	q := &b.Question
	switch {
	case q.Segment != id || q.Generation != e.Generation || held.generation != e.Generation || q.Term != e.Term:
		return "they are about another segment, generation or term"
	case q.Policy != held.version:
		return fmt.Sprintf("they are about version %d of the policy, and %d is in force", q.Policy, held.version)
	case held.policy == nil || held.policy.Approvals.Threshold.IsZero():
		return "the policy in force asks for none"
	case q.Trust != ledger:
		return fmt.Sprintf("they are about version %d of the weights, and %d is in force", q.Trust, ledger)
	case q.Sequence <= last:
		return "the batch was admitted before"
	case q.Index >= e.Index:
		return "they judge what was to come"
	}
	return ""
}

// batch counts the votes on each request by itself; it reports whether they count at all.
func (in *admitted) batch(b *approval.Batch, held *inForce, now *trust.Ledger, why string, verify machine.Verify) bool {
	var voters *trust.Electorate
	if why == "" {
		voters = trust.Elect(now.Of(held.voters), thresholds(held.policy)...)
		why = forged(b, voters, verify)
	}
	for i := range b.Slots {
		reason := why
		if reason == "" {
			sum, need := approving(b, i, voters), voters.Need(held.policy.Approvals.Threshold)
			if sum < need {
				reason = fmt.Sprintf("%d of %d", sum, need)
			}
		}
		for _, w := range writes(b.Slots[i].Request()) {
			if reason == "" {
				in.writes[w] = true
			} else {
				in.refused[w] = reason
			}
		}
	}
	return why == ""
}

// forged says what is wrong with the votes as such.
func forged(b *approval.Batch, voters *trust.Electorate, verify machine.Verify) string {
	var sums []anchormesh.Hash
	for i := range b.Slots {
		if s := &b.Slots[i]; s.Bytes == nil {
			sums = append(sums, s.Sum)
		} else {
			sums = append(sums, approval.Sum(s.Request()))
		}
	}
	if approval.Digest(sums) != b.Question.Digest {
		return "they are about other requests"
	}
	seen := make(map[anchormesh.NodeID]bool)
	for i := range b.Votes {
		vote := &b.Votes[i]
		switch {
		case seen[vote.Node]:
			return fmt.Sprintf("node %s voted twice", vote.Node.Short())
		case voters.Weight(vote.Node) == 0:
			return fmt.Sprintf("node %s has no vote", vote.Node.Short())
		case !verify(vote.Node, b.Question.Statement(vote), vote.Signature):
			return fmt.Sprintf("node %s did not sign", vote.Node.Short())
		}
		seen[vote.Node] = true
	}
	return ""
}

// approving is the weight that does not refuse a request.
func approving(b *approval.Batch, request int, voters *trust.Electorate) (sum uint32) {
	for i := range b.Votes {
		refuses := false
		for _, r := range b.Votes[i].Refusals {
			refuses = refuses || r.Request == request
		}
		if !refuses {
			sum += voters.Weight(b.Votes[i].Node)
		}
	}
	return sum
}

// writes returns what a request may put.
func writes(request []byte) (out []write) {
	if len(request) == 0 {
		return nil
	}
	switch body := request[1:]; keyspace.Op(request[0]) {
	case keyspace.OpBy:
		if _, rest, ok := keyspace.ParseOrigin(body); ok {
			return writes(rest)
		}
	case keyspace.OpPut:
		var r etcdserverpb.PutRequest
		if proto.Unmarshal(body, &r) == nil {
			out = append(out, write{string(r.Key), string(r.Value)})
		}
	case keyspace.OpTxn:
		var r etcdserverpb.TxnRequest
		if proto.Unmarshal(body, &r) == nil {
			out = puts(&r)
		}
	case keyspace.OpPrepare:
		if r, err := commit.DecodePrepare(body); err == nil {
			for i := range r.Writes {
				if w := &r.Writes[i]; !w.Delete {
					out = append(out, write{string(w.Key), string(w.Value)})
				}
			}
		}
	}
	return out
}

func puts(r *etcdserverpb.TxnRequest) (out []write) {
	for _, op := range append(append([]*etcdserverpb.RequestOp{}, r.Success...), r.Failure...) {
		if p := op.GetRequestPut(); p != nil {
			out = append(out, write{string(p.Key), string(p.Value)})
		}
		if t := op.GetRequestTxn(); t != nil {
			out = append(out, puts(t)...)
		}
	}
	return out
}
