package load

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Config describes one run.
type Config struct {
	Endpoints []string
	Workload  string // one of Workloads
	Clients   int    // closed-loop clients; watchers in "watch"
	Conns     int    // connections; 0: see connections

	Warmup   time.Duration // load that is not measured
	Duration time.Duration // the measured window

	Keys        int    // size of the key space
	ValueSize   int    // bytes; at least 8 in "watch", which puts a time into it
	RangeKeys   int    // keys per "range"
	ReadPercent int    // reads of "mixed"
	WatchRate   int    // puts per second of "watch"; far below saturation, as the delay is the question
	Rate        int    // requests per second of all clients together; 0: closed loops
	Prefix      string // of every key
	Seed        uint64

	// Opened and Closed, if set, are called when the window begins and ends,
	// before load's own clock starts and after it stops; they should be quick.
	Opened, Closed func() `json:"-"`
}

// Default returns a Config that lacks only Endpoints and Workload.
func Default() Config {
	return Config{
		Clients:     100,
		Warmup:      2 * time.Second,
		Duration:    10 * time.Second,
		Keys:        10_000,
		ValueSize:   256,
		RangeKeys:   500,
		ReadPercent: 80,
		WatchRate:   100,
		Prefix:      "load/",
		Seed:        1,
	}
}

// Validate reports the first thing that is wrong.
func (c Config) Validate() error {
	switch {
	case len(c.Endpoints) == 0:
		return errors.New("load: no endpoints given")
	case !slices.Contains(Workloads(), c.Workload):
		return fmt.Errorf("load: unknown workload %q, known are %s", c.Workload, strings.Join(Workloads(), ", "))
	case c.Clients < 1 || c.Conns < 0:
		return fmt.Errorf("load: %d clients over %d connections is not possible", c.Clients, c.Conns)
	case c.Duration <= 0 || c.Warmup < 0:
		return errors.New("load: the measured window must be longer than 0 and the warm-up not negative")
	case c.Rate < 0:
		return fmt.Errorf("load: a rate of %d per second is not possible", c.Rate)
	case c.Keys < 1 || c.ValueSize < 0:
		return fmt.Errorf("load: %d keys of %d bytes is not possible", c.Keys, c.ValueSize)
	case c.Workload == "range" && (c.RangeKeys < 1 || c.RangeKeys > c.Keys):
		return fmt.Errorf("load: ranges of %d keys do not fit %d keys", c.RangeKeys, c.Keys)
	case c.Workload == "watch" && (c.ValueSize < stampBytes || c.WatchRate < 1):
		return fmt.Errorf("load: watch needs values of at least %d bytes and a positive rate", stampBytes)
	case c.ReadPercent < 0 || c.ReadPercent > 100:
		return fmt.Errorf("load: %d percent reads is not possible", c.ReadPercent)
	}
	return nil
}

// clientsPerConn is the ratio of etcd's published benchmark commands
// (--conns=100 --clients=1000).
const clientsPerConn = 10

// connections is Conns, or one per clientsPerConn clients, but at least one per
// endpoint, so that a single client too meets leader and followers alike.
func (c Config) connections() int {
	if c.Conns > 0 {
		return c.Conns
	}
	return max(len(c.Endpoints), (c.Clients+clientsPerConn-1)/clientsPerConn)
}
