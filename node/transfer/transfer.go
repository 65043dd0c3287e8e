package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/host"
)

// Protocol names the bulk streams.
const Protocol = "/anchormesh/snapshot/1"

// Config of transfers.
type Config struct {
	// MaxStreams bounds the transfers out of this node, and those into it.
	MaxStreams int
	// BytesPerSecond paces each transfer.
	BytesPerSecond int
	// Idle is how long a transfer may stand still before it is given up.
	Idle   time.Duration
	Logger *slog.Logger
}

// DefaultConfig allows two transfers each way at 64 MiB/s.
func DefaultConfig() Config {
	return Config{MaxStreams: 2, BytesPerSecond: 64 << 20, Idle: 30 * time.Second, Logger: slog.New(slog.DiscardHandler)}
}

// Bulk opens byte streams to other nodes.
type Bulk interface {
	OpenBulk(ctx context.Context, to anchormesh.NodeID, protocol string) (mesh.BulkStream, error)
}

// Transfers sends and receives segments. It implements consensus.Snapshots.
type Transfers struct {
	cfg     Config
	bulk    Bulk
	host    *host.Host
	out, in chan struct{} // one token per running transfer
}

// New returns transfers over bulk. The host is set by SetHost, since host and
// transfers need each other.
func New(cfg Config, bulk Bulk) *Transfers {
	return &Transfers{cfg: cfg, bulk: bulk, out: make(chan struct{}, cfg.MaxStreams), in: make(chan struct{}, cfg.MaxStreams)}
}

// SetHost says where segments are; call it before anything is transferred.
func (t *Transfers) SetHost(h *host.Host) { t.host = h }

// Send implements consensus.Snapshots.
func (t *Transfers) Send(segment anchormesh.SegmentID, node anchormesh.NodeID, to anchormesh.ReplicaID, done func(bool)) {
	select {
	case t.out <- struct{}{}:
	default:
		go done(false) // Raft asks again after a heartbeat
		return
	}
	go func() {
		begin := time.Now()
		bytes, err := t.send(segment, node, to)
		<-t.out
		if err != nil {
			t.cfg.Logger.Info("snapshot was not sent", "segment", segment, "to", node.Short(), "err", err)
		} else {
			t.cfg.Logger.Info("snapshot sent", "segment", segment, "to", node.Short(), "bytes", bytes, "took", time.Since(begin))
		}
		done(err == nil)
	}()
}

func (t *Transfers) send(segment anchormesh.SegmentID, node anchormesh.NodeID, to anchormesh.ReplicaID) (int, error) {
	r, ok := t.host.Get(segment)
	if !ok || node == "" {
		return 0, errors.New("segment or its new anchor is not known here")
	}
	// What is exported is what is committed. The receiver must find itself in it,
	// and its entry may be only seconds old.
	if err := r.Store.Commit(); err != nil {
		return 0, err // the store's own commits will find it, too, and end the process
	}
	failpoint.Hit("snapshot/before-export")
	export, err := r.Machine.Segment().Export()
	if err != nil {
		return 0, err
	}
	defer export.Close()
	ctx, cancel := context.WithTimeout(context.Background(), t.cfg.Idle)
	defer cancel()
	s, err := t.bulk.OpenBulk(ctx, node, Protocol)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	answered := make(chan error, 1)
	go func() {
		answered <- answer(s)
		_ = s.SetWriteDeadline(time.Unix(1, 0)) // nobody reads any more
	}()
	sent, err := t.stream(s, export, to)
	failpoint.Hit("snapshot/after-export")
	wait := t.cfg.Idle
	if err != nil {
		wait = lastWord
	}
	_ = s.SetReadDeadline(time.Now().Add(wait))
	verdict := <-answered
	if errors.Is(verdict, errNoAnswer) && err != nil {
		_ = s.Reset()
		return sent, err
	}
	return sent, verdict
}

// lastWord is how long a receiver that reads no more may take to say why.
const lastWord = time.Second

// stream writes the whole stream.
func (t *Transfers) stream(s mesh.BulkStream, export *mvcc.Export, to anchormesh.ReplicaID) (int, error) {
	w := bufio.NewWriterSize(s, 64<<10)
	head := header{to: to, meta: export.Meta()}
	if err := head.write(w); err != nil {
		return 0, err
	}
	pace := pacer{perSecond: t.cfg.BytesPerSecond, begin: time.Now()}
	last := false
	for !last {
		chunk, err := export.Next()
		if last = errors.Is(err, io.EOF); err != nil && !last {
			return pace.sent, err
		}
		pace.wait(len(chunk))
		if err := s.SetWriteDeadline(time.Now().Add(t.cfg.Idle)); err != nil {
			return pace.sent, err
		}
		if err := writeChunk(w, chunk); err != nil {
			return pace.sent, err
		}
	}
	return pace.sent, w.Flush()
}

// errNoAnswer says that the receiver ended without a word.
var errNoAnswer = errors.New("the receiver did not answer")

// answer reads the receiver's answer, which may come before it has everything.
func answer(s mesh.BulkStream) error {
	text, err := io.ReadAll(io.LimitReader(s, 4096))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	case len(text) == 0:
		return errNoAnswer
	case text[0] == answerRefused:
		return fmt.Errorf("refused: %s", text[1:])
	}
	return nil
}

// pacer spreads bytes over time.
type pacer struct {
	perSecond, sent int
	begin           time.Time
}

func (p *pacer) wait(n int) {
	p.sent += n
	due := p.begin.Add(time.Duration(float64(p.sent) / float64(p.perSecond) * float64(time.Second)))
	if d := time.Until(due); d > 0 {
		time.Sleep(d)
	}
}

// Receive takes one stream; it is the mesh's bulk handler.
func (t *Transfers) Receive(from anchormesh.NodeID, s mesh.BulkStream) {
	defer s.Close()
	var answer []byte
	select {
	case t.in <- struct{}{}:
		answer = t.receive(from, s)
		<-t.in
	default:
		answer = append([]byte{answerRefused}, "too many snapshots arrive here already"...)
	}
	_ = s.SetDeadline(time.Now().Add(t.cfg.Idle))
	_, _ = s.Write(answer) // if it is lost, the leader sends again and learns "not needed"
}

func (t *Transfers) receive(from anchormesh.NodeID, s mesh.BulkStream) []byte {
	refuse := func(err error) []byte {
		t.cfg.Logger.Info("snapshot was not installed", "from", from.Short(), "err", err)
		return append([]byte{answerRefused}, err.Error()...)
	}
	_ = s.SetDeadline(time.Now().Add(t.cfg.Idle))
	r := bufio.NewReaderSize(s, 64<<10)
	head, err := readHeader(r)
	if err != nil {
		return refuse(err)
	}
	into, err := t.host.Install(host.Offer{To: head.to, Meta: head.meta})
	if err != nil {
		return refuse(err)
	}
	if into == nil {
		return []byte{answerNotNeeded}
	}
	for {
		_ = s.SetDeadline(time.Now().Add(t.cfg.Idle))
		chunk, err := readChunk(r)
		if err == nil && chunk != nil {
			err = into.Add(chunk)
		}
		if err != nil {
			into.Abort()
			return refuse(err)
		}
		if chunk == nil {
			break
		}
	}
	if err := into.Finish(); err != nil {
		into.Abort()
		return refuse(err)
	}
	return []byte{answerInstalled}
}
