package exchange

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/route"
)

// Method is the mesh call of this package.
const Method = 2

const (
	// maxReply bounds the descriptors in one answer; the next question gets the
	// rest.
	maxReply = 1024
	// callTimeout bounds one question.
	callTimeout = 2 * time.Second
)

// Mesh is what the exchange needs of the mesh.
type Mesh interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
	View() mesh.View
	Self() mesh.Member
}

// Config of the exchange.
type Config struct {
	Interval time.Duration // between questions once something is known
	Hurry    time.Duration // between questions while nothing is known
	Logger   *slog.Logger
	// Learn takes what was told.
	Learn func(*anchormesh.Descriptor) error
}

// Exchange asks and answers.
type Exchange struct {
	cfg   Config
	mesh  Mesh
	table *route.Table

	mu    sync.Mutex
	asked map[anchormesh.NodeID]time.Time // strangers' questions, rate-limited
	ask   chan anchormesh.NodeID
}

// New returns an exchange over a table.
func New(cfg Config, m Mesh, t *route.Table) *Exchange {
	return &Exchange{cfg: cfg, mesh: m, table: t, asked: make(map[anchormesh.NodeID]time.Time), ask: make(chan anchormesh.NodeID, 16)}
}

// Run asks until ctx ends.
func (x *Exchange) Run(ctx context.Context) error {
	for {
		wait := x.cfg.Interval
		if len(x.table.All()) == 0 {
			wait = x.cfg.Hurry
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case node := <-x.ask:
			x.from(ctx, node)
		case <-timer.C:
			if node, ok := x.somebody(); ok {
				x.from(ctx, node)
			}
		}
		timer.Stop()
	}
}

// From asks a node soon, at most once per Hurry and node.
func (x *Exchange) From(node anchormesh.NodeID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if now := time.Now(); now.Sub(x.asked[node]) >= x.cfg.Hurry {
		select {
		case x.ask <- node:
			x.asked[node] = now
		default: // enough questions wait
		}
	}
}

func (x *Exchange) somebody() (anchormesh.NodeID, bool) {
	self := x.mesh.Self().ID
	var others []anchormesh.NodeID
	for _, m := range x.mesh.View().Alive() {
		if m.ID != self {
			others = append(others, m.ID)
		}
	}
	if len(others) == 0 {
		return "", false
	}
	return others[rand.IntN(len(others))], true
}

func (x *Exchange) from(ctx context.Context, node anchormesh.NodeID) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req := &meshpb.DescriptorsRequest{}
	for _, d := range x.table.All() {
		req.Known = append(req.Known, &meshpb.Known{Segment: uint64(d.Segment), Generation: uint64(d.Generation), Changed: d.Changed})
	}
	body, err := proto.Marshal(req)
	if err != nil {
		panic("exchange: question cannot be encoded: " + err.Error())
	}
	answer, err := x.mesh.Call(ctx, node, Method, body)
	if err != nil {
		x.cfg.Logger.Debug("descriptors were not told", "by", node.Short(), "err", err)
		return
	}
	var reply meshpb.DescriptorsReply
	if err := proto.Unmarshal(answer, &reply); err != nil {
		x.cfg.Logger.Warn("malformed descriptors", "from", node.Short(), "err", err)
		return
	}
	for _, pb := range reply.GetDescriptors() {
		d, err := meshpb.FromPB(pb)
		if err == nil {
			err = x.cfg.Learn(d)
		}
		if err != nil {
			x.cfg.Logger.Warn("descriptor was not taken", "from", node.Short(), "err", err)
		}
	}
}

// Serve answers a question; it is the mesh's call handler.
func (x *Exchange) Serve(_ anchormesh.NodeID, payload []byte, to mesh.Responder) {
	var req meshpb.DescriptorsRequest
	if err := proto.Unmarshal(payload, &req); err != nil {
		to.Fail(1, "malformed question: "+err.Error())
		return
	}
	known := make(map[anchormesh.SegmentID]*anchormesh.Descriptor, len(req.GetKnown()))
	for _, k := range req.GetKnown() {
		id := anchormesh.SegmentID(k.GetSegment())
		known[id] = &anchormesh.Descriptor{Generation: anchormesh.Generation(k.GetGeneration()), Changed: k.GetChanged()}
	}
	reply := &meshpb.DescriptorsReply{}
	for _, d := range x.table.All() {
		if old := known[d.Segment]; old != nil && !d.Newer(old) {
			continue
		}
		if len(reply.Descriptors) == maxReply {
			break
		}
		reply.Descriptors = append(reply.Descriptors, meshpb.ToPB(d))
	}
	body, err := proto.Marshal(reply)
	if err != nil {
		panic("exchange: answer cannot be encoded: " + err.Error())
	}
	to.Reply(body)
}
