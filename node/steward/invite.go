package steward

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
)

// answer is what came of an invitation.
type answer struct {
	segment anchormesh.SegmentID
	node    anchormesh.NodeID
	yes     bool
}

// answered takes the answer to an invitation. After a refusal others have their turn.
func (s *Steward) answered(ctx context.Context, a answer) {
	now := time.Now()
	if t := s.tended[a.segment]; t != nil {
		t.recruiter.Answer(now, a.node, a.yes)
	}
	if a.yes {
		s.tend(ctx, s.look(now), a.segment)
		return
	}
	delete(s.turns, a.segment)
	if m, wished := s.wishes[a.segment]; wished && m.To == a.node {
		delete(s.wishes, a.segment)
		s.planner.Declined(now, a.segment, a.node)
	}
}

func (s *Steward) invite(ctx context.Context, d *anchormesh.Descriptor, e recruit.Effect) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, size := s.cfg.Measured(d.Segment)
	body, err := proto.Marshal(&meshpb.Invitation{
		Descriptor_: meshpb.ToPB(d), Replica: uint64(d.NextReplica), Reason: e.Why, Optional: e.Optional, Bytes: size,
	})
	if err != nil {
		panic("steward: invitation cannot be encoded: " + err.Error())
	}
	reply, err := s.mesh.Call(ctx, e.Node, Method, body)
	var msg meshpb.InvitationReply
	if err == nil {
		err = proto.Unmarshal(reply, &msg)
	}
	outcome := "accepted"
	switch {
	case err != nil:
		outcome = "silent"
		s.cfg.Logger.Warn("invitation was not answered", "segment", d.Segment, "node", e.Node.Short(), "err", err)
	case !msg.GetAccepted():
		outcome = "declined"
		s.cfg.Logger.Info("invitation was declined", "segment", d.Segment, "node", e.Node.Short(), "why", msg.GetReason())
	}
	tell(s.cfg.Listener.Invited, outcome)
	select {
	case s.answer <- answer{d.Segment, e.Node, outcome == "accepted"}:
	case <-ctx.Done():
	}
}

// Serve answers an invitation; it is the mesh's call handler. To accept promises
// room, nothing more: the replica ID comes with the group's log.
func (s *Steward) Serve(from anchormesh.NodeID, payload []byte, to mesh.Responder) {
	var inv meshpb.Invitation
	if err := proto.Unmarshal(payload, &inv); err != nil {
		to.Fail(1, "malformed invitation: "+err.Error())
		return
	}
	d, err := meshpb.FromPB(inv.GetDescriptor_())
	if err != nil {
		to.Fail(1, "malformed invitation: "+err.Error())
		return
	}
	ok, reason := s.accept(time.Now(), recruit.Invitation{
		Mesh: d.Mesh, Segment: d.Segment, Generation: d.Generation, From: from,
		Bytes: max(inv.GetBytes(), 0), Optional: inv.GetOptional(),
	})
	if ok {
		s.cfg.Logger.Info("invitation accepted", "segment", d.Segment, "from", from.Short(), "why", inv.GetReason())
	}
	body, err := proto.Marshal(&meshpb.InvitationReply{Accepted: ok, Reason: reason})
	if err != nil {
		panic("steward: reply cannot be encoded: " + err.Error())
	}
	to.Reply(body)
}

// accept decides about one invitation at a time: what was promised counts.
func (s *Steward) accept(now time.Time, inv recruit.Invitation) (ok bool, reason string) {
	load := s.cfg.Load()
	if inv.Optional {
		load.Even = place.Even(s.cfg.Place, now, s.Nodes(now), s.cfg.Self)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	load.Promised = s.promises.Count(now, inv.Segment, s.host.Holds)
	if ok, reason = recruit.Accept(load, inv); ok {
		s.promises.Give(inv.Segment, now.Add(s.cfg.Recruit.InviteTimeout))
	}
	return ok, reason
}
