package stamps

import (
	"context"
	"errors"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/deposed"
	"github.com/anchormesh/anchormesh/node/route"
)

// Codes of failed answers.
const (
	refused   = 1
	elsewhere = 2 // the asked node does not lead; the text is who does, as far as it knows
)

// whom picks who to ask about a segment that is led elsewhere: the leader if it is
// known, best to a replica here, else its voters in turn. Nobody but a voter hears of
// leaders by itself, so a hint may be old or missing for good.
func (l *Lines) whom(d *anchormesh.Descriptor) anchormesh.NodeID {
	if st, here := l.engine.Status(d.Segment); here && st.Leader != "" && st.Leader != l.cfg.Self {
		return st.Leader
	}
	if leader, ok := l.table.Leader(d.Segment); ok && leader != l.cfg.Self {
		return leader
	}
	nodes := route.Askable(d, l.caller.Connected)
	for range nodes {
		if node := nodes[l.turn.Add(1)%uint64(len(nodes))]; node != l.cfg.Self {
			return node
		}
	}
	return ""
}

// call asks the node that whom picked and remembers who led, who is said to, or that
// this one did not. A question under way holds up all that come behind it: one to a leader
// that fell silent ends soon after the replica here, if there is one, follows another.
func (l *Lines) call(ctx context.Context, d *anchormesh.Descriptor, body []byte) ([]byte, error) {
	l.engine.Seek(d.Segment)
	to := l.whom(d)
	if to == "" {
		return nil, ErrNoHome
	}
	watched, stop := deposed.While(ctx, to, func() anchormesh.NodeID { return l.table.Follows(d.Segment) })
	defer stop()
	answer, err := l.caller.Call(watched, to, Method, body)
	err = deposed.Error(watched, err)
	var remote *mesh.RemoteError
	known, ok := l.table.Leader(d.Segment)
	switch {
	case err == nil:
		l.table.Guess(d.Segment, to)
	case errors.As(err, &remote) && remote.Code == elsewhere && remote.Text != "" && remote.Text != string(to):
		l.table.Guess(d.Segment, anchormesh.NodeID(remote.Text))
	case ok && known == to:
		l.table.Guess(d.Segment, "")
	}
	return answer, err
}

// notHere is the answer to a question about a segment that is not led here.
func (l *Lines) notHere(segment anchormesh.SegmentID, to mesh.Responder, err error) {
	if !errors.Is(err, line.ErrNotLeader) {
		to.Fail(refused, err.Error())
		return
	}
	l.engine.Seek(segment)
	leader := anchormesh.NodeID("")
	if st, here := l.engine.Status(segment); here && st.Leader != l.cfg.Self {
		leader = st.Leader
	}
	to.Fail(elsewhere, string(leader))
}
