package bench

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/load"
)

// Case is a workload at a number of closed-loop clients.
type Case struct {
	Workload string `json:"workload"`
	Clients  int    `json:"clients"`
}

func (c Case) String() string { return fmt.Sprintf("%s:%d", c.Workload, c.Clients) }

// ParseCases parses "put:1,put:100,get:500".
func ParseCases(text string) ([]Case, error) {
	var out []Case
	for _, field := range strings.Split(text, ",") {
		workload, clients, ok := strings.Cut(strings.TrimSpace(field), ":")
		n, err := strconv.Atoi(clients)
		if !ok || err != nil {
			return nil, fmt.Errorf("bench: case %q is not workload:clients", field)
		}
		out = append(out, Case{Workload: workload, Clients: n})
	}
	return out, nil
}

// DefaultCases are what "make bench-etcd" shows.
const DefaultCases = "put:1,put:100,put:500,get:1,get:100,get:500,range:100,txn:100"

// Config describes a comparison.
type Config struct {
	Subject cluster.Kind
	Peer    cluster.Kind // "" for none
	Nodes   int          // per cluster
	Rounds  int
	Cases   []Case
	Load    load.Config               // what all cases share; Endpoints, Workload, Clients and Prefix are set per run
	Dir     string                    // parent of all data directories; decides the disk
	Args    map[cluster.Kind][]string // further arguments of the servers

	Progress io.Writer // one line per run; io.Discard to be quiet
}

// Default compares three-node clusters in three rounds.
func Default() Config {
	cases, err := ParseCases(DefaultCases)
	if err != nil {
		panic(err)
	}
	return Config{
		Subject: cluster.Mesh,
		Peer:    cluster.Etcd,
		Nodes:   3,
		Rounds:  3,
		Cases:   cases,
		Load:    load.Default(),
		// etcd's default quota of 2 GiB would end a long run of puts.
		Args:     map[cluster.Kind][]string{cluster.Etcd: {"--quota-backend-bytes", "8589934592", "--log-level", "warn"}},
		Progress: io.Discard,
	}
}

// Validate reports the first thing that is wrong.
func (c Config) Validate() error {
	if c.Rounds < 1 || len(c.Cases) == 0 {
		return errors.New("bench: at least one round and one case are needed")
	}
	for _, s := range c.sides() {
		if err := (cluster.Config{Kind: s.Kind, Size: c.Nodes, Dir: c.Dir}).Validate(); err != nil {
			return err
		}
	}
	for _, k := range c.Cases {
		l := c.loadFor(k, []string{"-"})
		if err := l.Validate(); err != nil {
			return fmt.Errorf("case %s: %w", k, err)
		}
	}
	return nil
}

// side is one of the compared clusters.
type side struct {
	Name string
	Kind cluster.Kind
}

// sides returns the subject and, if there is one, the peer.
func (c Config) sides() []side {
	switch c.Peer {
	case "":
		return []side{{string(c.Subject), c.Subject}}
	case c.Subject:
		return []side{{string(c.Subject) + " A", c.Subject}, {string(c.Peer) + " B", c.Peer}}
	default:
		return []side{{string(c.Subject), c.Subject}, {string(c.Peer), c.Peer}}
	}
}

// loadFor returns the load of one case. Prefixes differ by case, so that a case
// does not meet the keys of another.
func (c Config) loadFor(k Case, endpoints []string) load.Config {
	l := c.Load
	l.Endpoints, l.Workload, l.Clients = endpoints, k.Workload, k.Clients
	l.Prefix = fmt.Sprintf("bench/%s/%d/", k.Workload, k.Clients)
	return l
}

// estimate is the time that the windows alone take.
func (c Config) estimate() time.Duration {
	return time.Duration(c.Rounds*len(c.sides())*len(c.Cases)) * (c.Load.Warmup + c.Load.Duration)
}
