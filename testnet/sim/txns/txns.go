package txns

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/approvals"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

const (
	recoverAfter = time.Second
	resumeAfter  = 5 * time.Second
	tick         = 250 * time.Millisecond
	retryWait    = 10 * time.Millisecond
	tellWait     = 100 * time.Millisecond
	numberWait   = 300 * time.Millisecond
	finishMax    = 10 * time.Second
	restampMax   = 8
)

// Txns runs the transactions of a process.
type Txns struct {
	node.Quiet
	*node.Process
	gates map[anchormesh.SegmentID]*gate
	seen  map[stay]time.Duration
	busy  map[stay]bool
}

// New returns a process's transactions.
func New(p *node.Process) node.Shell {
	return &Txns{Process: p, gates: make(map[anchormesh.SegmentID]*gate), seen: make(map[stay]time.Duration), busy: make(map[stay]bool)}
}

// At returns a process's transactions.
func At(p *node.Process) *Txns { return node.Part[*Txns](p) }

// Booted ends from now on what coordinators left behind.
func (x *Txns) Booted() {
	if x.Mesh.Splits() {
		x.Every(tick, x.look)
	}
}

func (x *Txns) now() time.Duration { return x.Mesh.K.Now() }

func (x *Txns) gate(segment anchormesh.SegmentID) *gate {
	if x.gates[segment] == nil {
		x.gates[segment] = newGate()
	}
	return x.gates[segment]
}

// Propose puts an ordinary write that takes a stamp into the log of a segment that this
// node leads, unless a transaction holds its keys.
func (x *Txns) Propose(d *anchormesh.Descriptor, command []byte, done func(consensus.Result)) {
	r := x.Host.Held[d.Segment]
	if r == nil {
		done(consensus.Result{Err: consensus.ErrNoGroup})
		return
	}
	if x.Mesh.Cfg.Plant == plan.PlantNoGate {
		approvals.At(x.Process).Propose(d, command, done)
		return
	}
	g := x.gate(d.Segment)
	ticket, err := g.enter(r.Machine.Space(), command)
	if err != nil {
		done(consensus.Result{Err: err})
		return
	}
	approvals.At(x.Process).Propose(d, command, func(res consensus.Result) {
		g.leave(ticket)
		done(res)
	})
}

// Request is a client's Txn or DeleteRange over several segments.
type Request struct {
	Kind    check.Kind
	Raw     []byte
	Command []byte // by which the witness knows it
	Keys    anchormesh.KeyRange
	Again   bool // it was in somebody's way before
}

// Do makes one attempt; done gets the answer, consensus.ErrUnknown, node.ErrRetry if it
// took effect nowhere and may be tried again, or what the client is told. The result ends
// the wait of the client.
func (x *Txns) Do(req Request, done func(resp []byte, err error)) (giveUp func()) {
	nothing := func() {}
	parts, whole := x.Table.Covering(req.Keys)
	if !whole || len(parts) == 0 {
		done(nil, node.ErrRetry)
		return nothing
	}
	var list []commit.Segment
	for _, d := range parts {
		list = append(list, commit.Segment{Range: d.Range})
	}
	division, err := divide(&req, list)
	if err != nil {
		done(nil, node.ErrRetry)
		return nothing
	}
	if mixed(parts, division) {
		done(nil, ErrLight)
		return nothing
	}
	id := x.name()
	x.Mesh.Attempted(id, req.Command)
	r := &run{Txns: x, id: id, places: make(map[int]commit.Place)}
	r.core = commit.NewCoordinator(id, division, req.Again)
	r.answer = func(a commit.Answer) {
		switch a.Outcome {
		case commit.Committed:
			x.Mesh.Stats.Spanning++
			done(a.Plan.Answer(codec.Header{ClusterID: uint64(node.MeshID), Revision: a.Revision}), nil)
		case commit.Again:
			done(nil, node.ErrRetry)
		case commit.Unknown:
			done(nil, consensus.ErrUnknown)
		default:
			done(nil, a.Err)
		}
	}
	r.begin()
	return func() { r.step(commit.GiveUp{Err: ErrGivenUp}) }
}

func divide(req *Request, list []commit.Segment) (*commit.Division, error) {
	if req.Kind == check.Delete {
		var r codec.DeleteRangeRequest
		if err := codec.ParseDeleteRange(req.Raw, &r); err != nil {
			return nil, err
		}
		return commit.DivideDelete(&r, list)
	}
	var r codec.TxnRequest
	if err := codec.ParseTxn(req.Raw, &r); err != nil {
		return nil, err
	}
	return commit.Divide(&r, list)
}

// mixed reports whether a transaction names keys of a light scope and of another.
func mixed(parts []*anchormesh.Descriptor, division *commit.Division) bool {
	var touched []*anchormesh.Descriptor
	light := false
	for _, d := range parts {
		if slices.ContainsFunc(division.Spans, func(span anchormesh.KeyRange) bool { return d.Range.Contains(span.Start) }) {
			touched = append(touched, d)
			light = light || d.Class == anchormesh.Light
		}
	}
	return light && slices.ContainsFunc(touched, func(d *anchormesh.Descriptor) bool { return !bytes.Equal(d.Scope, touched[0].Scope) })
}

// name draws a transaction's name.
func (x *Txns) name() (id commit.TxnID) {
	binary.BigEndian.PutUint64(id[:], x.Rng.Uint64())
	binary.BigEndian.PutUint64(id[8:], x.Mesh.Tag())
	return id
}

// command is a request's body as a command of the log.
func command(op keyspace.Op, body []byte) []byte { return keyspace.AppendCommand(nil, op, body) }
