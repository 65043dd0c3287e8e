package lease

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestCore runs the scripts in testdata. Time is a script's own: "at" moves it
// and ticks; everything else happens at the time reached.
//
//	config [extend=] [interval=] [retry=] [step=] [rate=] [expire=] [checkpoints=] [waiting=]
//	lead term=N            input: one lease a line, "ID TTL [remaining=N] [epoch=N]"
//	demote
//	grant id=N ttl=N
//	revoked id=N
//	checkpointed id=N ttl=N remaining=N epoch=N
//	renew ids=(1,2,3)      tokens are 100 + position
//	at <duration>          moves the clock to an absolute time, then ticks
//	jump <duration>        moves the clock without a tick, maybe backwards
//	left id=N
func TestCore(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{start: time.Unix(1000, 0), cfg: DefaultConfig()}
		s.core = New(s.cfg)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.run(t, d) })
	})
}

type script struct {
	cfg   Config
	core  *Core
	start time.Time
	now   time.Duration
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "config":
		return s.config(t, d)
	case "lead":
		var term uint64
		d.ScanArgs(t, "term", &term)
		return s.step(Lead{Term: term, Leases: parseLeases(t, d.Input)})
	case "demote":
		return s.step(Demote{})
	case "grant":
		var l Lease
		d.ScanArgs(t, "id", &l.ID)
		d.ScanArgs(t, "ttl", &l.TTL)
		return s.step(Granted{l})
	case "revoked":
		var id int64
		d.ScanArgs(t, "id", &id)
		return s.step(Revoked{id})
	case "checkpointed":
		var l Lease
		d.ScanArgs(t, "id", &l.ID)
		d.ScanArgs(t, "ttl", &l.TTL)
		d.ScanArgs(t, "remaining", &l.Remaining)
		d.ScanArgs(t, "epoch", &l.Epoch)
		return s.step(Checkpointed{l})
	case "renew":
		var r Renew
		for i, v := range d.CmdArgs[0].Vals {
			var id int64
			fmt.Sscan(v, &id)
			r.Renewals = append(r.Renewals, Renewal{ID: id, Token: uint64(100 + i)})
		}
		return s.step(r)
	case "at", "jump":
		s.now = mustDuration(t, d.CmdArgs[0].Key)
		if d.Cmd == "jump" {
			return ""
		}
		return s.step(Tick{})
	case "left":
		var id int64
		d.ScanArgs(t, "id", &id)
		left, ok := s.core.Remaining(s.start.Add(s.now), id)
		return fmt.Sprintf("%v %v\n", left, ok)
	}
	t.Fatalf("unknown command %q", d.Cmd)
	return ""
}

func (s *script) config(t *testing.T, d *datadriven.TestData) string {
	for _, a := range d.CmdArgs {
		switch v := a.Vals[0]; a.Key {
		case "extend":
			s.cfg.Extend = mustDuration(t, v)
		case "interval":
			s.cfg.CheckpointInterval = mustDuration(t, v)
		case "retry":
			s.cfg.RetryInterval = mustDuration(t, v)
		case "step":
			s.cfg.StepMax = mustDuration(t, v)
		case "rate":
			fmt.Sscan(v, &s.cfg.ExpireRate)
		case "expire":
			fmt.Sscan(v, &s.cfg.ExpireMax)
		case "checkpoints":
			fmt.Sscan(v, &s.cfg.CheckpointMax)
		case "waiting":
			fmt.Sscan(v, &s.cfg.WaitingMax)
		default:
			t.Fatalf("unknown setting %q", a.Key)
		}
	}
	if err := s.cfg.Validate(); err != nil {
		return err.Error() + "\n"
	}
	s.core = New(s.cfg)
	return ""
}

func mustDuration(t *testing.T, s string) time.Duration {
	v, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func parseLeases(t *testing.T, in string) (out []Lease) {
	for line := range strings.Lines(in) {
		f := strings.Fields(line)
		var l Lease
		fmt.Sscan(f[0], &l.ID)
		fmt.Sscan(f[1], &l.TTL)
		for _, opt := range f[2:] {
			name, v, _ := strings.Cut(opt, "=")
			switch name {
			case "remaining":
				fmt.Sscan(v, &l.Remaining)
			case "epoch":
				fmt.Sscan(v, &l.Epoch)
			default:
				t.Fatalf("unknown field %q", name)
			}
		}
		out = append(out, l)
	}
	return out
}

func (s *script) step(ev Event) string {
	fx := s.core.Step(s.start.Add(s.now), ev)
	var b strings.Builder
	for _, a := range fx.Answers {
		fmt.Fprintf(&b, "answer %d to lease %d: %v", a.Token, a.ID, a.Verdict)
		if a.Verdict == Renewed {
			fmt.Fprintf(&b, " ttl=%d", a.TTL)
		}
		b.WriteByte('\n')
	}
	for _, e := range fx.Expire {
		fmt.Fprintf(&b, "expire lease %d epoch=%d term=%d\n", e.ID, e.Epoch, e.Term)
	}
	for _, c := range fx.Checkpoint {
		fmt.Fprintf(&b, "checkpoint lease %d remaining=%d epoch=%d term=%d\n", c.ID, c.Remaining, c.Epoch, c.Term)
	}
	for _, c := range fx.Clear {
		fmt.Fprintf(&b, "clear lease %d\n", c.ID)
	}
	if fx.Next != 0 {
		fmt.Fprintf(&b, "next in %v\n", fx.Next)
	}
	return b.String()
}
