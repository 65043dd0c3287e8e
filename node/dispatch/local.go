package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/stamps"
)

// runLocal runs what only the leader may, on the leader.
func (d *Dispatcher) runLocal(ctx context.Context, r *host.Replica, desc *anchormesh.Descriptor, term uint64, call *etcdapi.Call) (codec.Chunks, error) {
	if !call.Write {
		if err := d.readIndex(ctx, desc.Segment); err != nil {
			return nil, err
		}
		answer, err := d.leases.LeaseRead(ctx, r, term, call.Method, call.Raw())
		return codec.Chunks{answer}, err
	}
	if ends(r, call) {
		return d.endLease(ctx, r, desc, call)
	}
	if err := pace(r, call); err != nil {
		return nil, err
	}
	command := commandOf(r, call)
	if err := d.Admit(r, desc, command); err != nil {
		return nil, err
	}
	r.Meter.Write(call.Keys.Start, len(command))
	res := d.propose(ctx, r, desc, call.Method, command)
	if res.Err != nil {
		return nil, translate(res.Err)
	}
	return codec.Chunks{res.Response}, nil
}

// commandOf returns a call as a command of the log. A compaction that names a revision
// of the scope's line carries it: nothing at or below it can come any more. A write says who
// gave it, if the scope asks for that.
func commandOf(r *host.Replica, call *etcdapi.Call) []byte {
	command := call.Command(byte(opOf(call.Method)))
	if writesKeys(call.Method) && r.Machine.Space().WantsOrigin() {
		return append(keyspace.AppendOrigin(make([]byte, 0, originSizeHint+len(command)), &call.From), command...)
	}
	if call.Method != etcdapi.MethodCompact || call.At == 0 {
		return command
	}
	return append(keyspace.AppendStamp(make([]byte, 0, keyspace.StampBytes+len(command)), call.At), command...)
}

// originSizeHint is room for a peer ID and a proof.
const originSizeHint = 192

// writesKeys reports whether a scope's rules judge the method.
func writesKeys(m etcdapi.Method) bool {
	return m == etcdapi.MethodPut || m == etcdapi.MethodDeleteRange || m == etcdapi.MethodTxn
}

// pace takes one request of what the scope may have each second here.
func pace(r *host.Replica, call *etcdapi.Call) error {
	if r.Pace.PerSecond() > 0 && (writesKeys(call.Method) || call.Method == etcdapi.MethodRange) && !r.Pace.Take(time.Now()) {
		return etcdapi.ErrTooManyRequests
	}
	return nil
}

// submit puts a command on its way into the segment's log: with a stamp, if the
// scope has been split and the command writes keys.
func (d *Dispatcher) submit(r *host.Replica, desc *anchormesh.Descriptor, m etcdapi.Method, command []byte, done func(consensus.Result)) {
	done = metered(r, done)
	if ordered(r) && stamped(m) {
		d.txns.Propose(desc, command, done)
		return
	}
	d.writes.Propose(desc.Segment, desc.Generation, command, done)
}

// metered tells the segment's meter how many writes are on their way, and how long some
// of them are.
func metered(r *host.Replica, done func(consensus.Result)) func(consensus.Result) {
	var begin time.Time
	if r.Meter.Begin() {
		begin = time.Now()
	}
	return func(res consensus.Result) {
		var took time.Duration
		if !begin.IsZero() {
			took = time.Since(begin)
		}
		r.Meter.End(took)
		done(res)
	}
}

// ordered reports whether writes of a segment must respect transactions over several: it
// is not the only one there is.
func ordered(r *host.Replica) bool {
	s := r.Machine.State()
	return s.Line != 0 || len(s.Descriptor.Line) > 0
}

// stamped reports whether a method's command takes a revision.
func stamped(m etcdapi.Method) bool {
	switch m {
	case etcdapi.MethodPut, etcdapi.MethodDeleteRange, etcdapi.MethodTxn, etcdapi.MethodLeaseRevoke:
		return true
	}
	return false
}

// Admit refuses a command that would grow a store beyond its quota. As in etcd
// the refusal raises the NOSPACE alarm, which then refuses on every replica
// alike until an operator takes it back.
func (d *Dispatcher) Admit(r *host.Replica, desc *anchormesh.Descriptor, command []byte) error {
	space := r.Machine.Space()
	limits := space.Limits()
	if limits.QuotaBytes < 0 {
		return nil
	}
	total, _ := r.Store.SizeBytes()
	if !limits.OverQuota(total, keyspace.Cost(command)) {
		return nil
	}
	if len(space.Alarms(codec.AlarmNoSpace)) == 0 {
		alarm := codec.AppendAlarm(nil, codec.AlarmRequest{
			Action: codec.AlarmActivate, MemberID: d.self.MemberID(), Alarm: codec.AlarmNoSpace,
		})
		d.engine.Propose(desc.Segment, desc.Generation, keyspace.AppendCommand(nil, keyspace.OpAlarm, alarm), func(consensus.Result) {})
	}
	return keyspace.ErrNoSpace
}

// proposed is one wait for a proposal; pooled, since every write needs one.
type proposed struct{ result chan consensus.Result }

var waits = sync.Pool{New: func() any { return &proposed{result: make(chan consensus.Result, 1)} }}

// propose puts a command into the segment's log and waits for its apply.
func (d *Dispatcher) propose(ctx context.Context, r *host.Replica, desc *anchormesh.Descriptor, m etcdapi.Method, command []byte) consensus.Result {
	w := waits.Get().(*proposed)
	d.submit(r, desc, m, command, func(res consensus.Result) { w.result <- res })
	select {
	case res := <-w.result:
		waits.Put(w)
		return res
	case <-ctx.Done():
		// The result may still come: w is left to it.
		return consensus.Result{Err: ctx.Err()}
	}
}

// readLocal reads from the replica here.
func (d *Dispatcher) readLocal(ctx context.Context, r *host.Replica, desc *anchormesh.Descriptor, call *etcdapi.Call) (codec.Chunks, error) {
	if err := r.Machine.State().Silent(); err != nil {
		return nil, retry(err)
	}
	if d.leadersRead(r, desc, call) {
		return nil, retry(etcdapi.ErrNoLeader)
	}
	if err := pace(r, call); err != nil {
		return nil, err
	}
	at, err := d.readPoint(ctx, r, desc, call)
	if err != nil {
		return nil, err
	}
	status, ok := d.engine.Status(desc.Segment)
	if !ok {
		return nil, retry(consensus.ErrNoGroup)
	}
	answer, err := d.read(ctx, r, status.Term, call, at)
	if errors.Is(err, keyspace.ErrFutureRev) && call.Serializable && r.Machine.State().Line != 0 {
		// The scope may have given that revision to other segments, or to a
		// transaction that is not decided yet: only a barrier can tell.
		behind := *call
		behind.Serializable = false
		return d.readLocal(ctx, r, desc, &behind)
	}
	if err != nil {
		return nil, translate(err)
	}
	r.Meter.Read(call.Keys.Start, answer.Size())
	return answer, nil
}

// leadersRead reports whether a read is one that the scope leaves to the leader, which this
// node is not.
func (d *Dispatcher) leadersRead(r *host.Replica, desc *anchormesh.Descriptor, call *etcdapi.Call) bool {
	p := r.Machine.State().Policy
	if !call.Serializable || p == nil || !p.Reads.LeaderOnly {
		return false
	}
	st, ok := d.engine.Status(desc.Segment)
	return !ok || !st.Leads()
}

// readPoint waits until the replica here may answer a read, and returns the revision
// to read at: that of the scope's line if it has one, 0 for the newest here.
func (d *Dispatcher) readPoint(ctx context.Context, r *host.Replica, desc *anchormesh.Descriptor, call *etcdapi.Call) (at anchormesh.Revision, err error) {
	switch {
	case call.Serializable && (r.Machine.State().Line == 0 || call.Method == etcdapi.MethodRange):
		d.host.CatchUp(ctx, r)
		return d.freshEnough(ctx, r, desc, call.At), nil
	case r.Machine.State().Line == 0 && call.At == 0:
		if err = d.readIndex(ctx, desc.Segment); err == nil && ordered(r) && r.Machine.Space().Unsettled() {
			// What is prepared hides what came behind it: read where it is decided.
			at, err = d.behind(ctx, desc)
		}
	default: // a replica that has not applied the split yet waits for it behind the barrier
		if at = call.At; at == 0 {
			at, err = d.now(ctx, desc.Line)
		}
		if err == nil {
			err = d.barrier(ctx, desc, at)
		}
	}
	// What was applied while the read waited may have moved the range away.
	if now := r.Machine.State(); err == nil && (now.Descriptor.Generation != desc.Generation || now.Silent() != nil) {
		err = retry(etcdapi.ErrNotAnchor)
	}
	return at, err
}

// behind returns the newest revision of a segment that counts, when all that was
// prepared at or below it is decided.
func (d *Dispatcher) behind(ctx context.Context, desc *anchormesh.Descriptor) (anchormesh.Revision, error) {
	at, err := d.now(ctx, desc.Line)
	if err == nil {
		err = d.barrier(ctx, desc, at)
	}
	return at, err
}

// now asks for the newest revision of a line.
func (d *Dispatcher) now(ctx context.Context, line []byte) (anchormesh.Revision, error) {
	at, err := d.lines.Now(ctx, line)
	return at, lineFailed(ctx, err)
}

// nowOver asks for the newest revision of all lines that segments are on, to which each
// of them is raised.
func (d *Dispatcher) nowOver(ctx context.Context, parts []*anchormesh.Descriptor) (anchormesh.Revision, error) {
	at, err := d.lines.NowOver(ctx, stamps.LinesOf(parts))
	return at, lineFailed(ctx, err)
}

// barrier waits until the replica here has everything of the segment up to at, and
// nothing at or below it can come any more.
func (d *Dispatcher) barrier(ctx context.Context, desc *anchormesh.Descriptor, at anchormesh.Revision) error {
	index, err := d.lines.Barrier(ctx, desc, at)
	if err != nil {
		return lineFailed(ctx, err)
	}
	done := make(chan error, 1)
	d.engine.WhenApplied(desc.Segment, index, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return retry(err)
		}
		return nil
	case <-ctx.Done():
		return gaveUp(ctx, etcdapi.ErrNoLeader)
	}
}

// lineFailed sorts the errors of a question about revisions.
func lineFailed(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return gaveUp(ctx, etcdapi.ErrNoLeader)
	case stamps.Retry(err):
		return retry(etcdapi.ErrNoLeader)
	case errors.Is(err, stamps.ErrStopped):
		return etcdapi.ErrStopped
	}
	return etcdapi.ErrTooManyRequests
}

// read answers at a revision of the scope's line, or (0) at the newest one here.
func (d *Dispatcher) read(ctx context.Context, r *host.Replica, term uint64, call *etcdapi.Call, at anchormesh.Revision) (codec.Chunks, error) {
	space := r.Machine.Space()
	switch call.Method {
	case etcdapi.MethodRange:
		if at == 0 {
			return space.Range(ctx, &call.Range, term)
		}
		return space.RangeAt(ctx, &call.Range, term, at)
	case etcdapi.MethodTxn:
		var req codec.TxnRequest
		if err := codec.ParseTxn(call.Raw(), &req); err != nil {
			return nil, err
		}
		if at == 0 {
			return space.ReadTxn(ctx, &req, term)
		}
		return space.ReadTxnAt(ctx, &req, term, at)
	case etcdapi.MethodAlarm:
		var req codec.AlarmRequest
		if err := codec.ParseAlarm(call.Raw(), &req); err != nil {
			return nil, err
		}
		return codec.Chunks{codec.AppendAlarmResponse(nil, space.Header(term), space.Alarms(req.Alarm))}, nil
	}
	panic("dispatch: " + call.Method.String() + " is not a read")
}

// readIndex waits until a read of the replica here is linearizable.
func (d *Dispatcher) readIndex(ctx context.Context, segment anchormesh.SegmentID) error {
	done := make(chan error, 1)
	d.engine.ReadIndex(segment, func(_ uint64, err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return retry(err)
		}
		return nil
	case <-ctx.Done():
		return gaveUp(ctx, etcdapi.ErrNoLeader)
	}
}

// opOf names the command of a writing method.
func opOf(m etcdapi.Method) keyspace.Op {
	switch m {
	case etcdapi.MethodPut:
		return keyspace.OpPut
	case etcdapi.MethodDeleteRange:
		return keyspace.OpDeleteRange
	case etcdapi.MethodTxn:
		return keyspace.OpTxn
	case etcdapi.MethodCompact:
		return keyspace.OpCompact
	case etcdapi.MethodLeaseGrant:
		return keyspace.OpLeaseGrant
	case etcdapi.MethodLeaseRevoke:
		return keyspace.OpLeaseRevoke
	case etcdapi.MethodAlarm:
		return keyspace.OpAlarm
	}
	panic("dispatch: " + m.String() + " is not a write")
}
