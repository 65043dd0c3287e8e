package segments

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/anchormesh/anchormesh/testnet/bench"
	"github.com/anchormesh/anchormesh/testnet/cluster"
)

// Cost is what a window cost, in cores.
type Cost struct {
	Servers float64 `json:"servers"` // all nodes
	Load    float64 `json:"load"`    // this process and its child
	Other   float64 `json:"other"`   // neither
	Stopped float64 `json:"stopped"` // share of periods in which a node had used its quota
}

func (c Cost) String() string {
	return fmt.Sprintf("servers %.2f, load %.2f, others %.2f cores", c.Servers, c.Load, c.Other)
}

// reading is what is read at both ends of a window.
type reading struct {
	at                  time.Time
	servers, load, busy time.Duration
	periods, throttled  int64
}

func (r *rig) read() (reading, error) {
	out := reading{at: time.Now(), load: loadCPU(), busy: bench.MachineBusy()}
	usage, err := r.c.Usage()
	out.servers = usage.CPU
	out.periods, out.throttled = r.periods()
	return out, err
}

// until returns the cost of the window that ends with end.
func (begin reading) until(end reading) Cost {
	seconds := end.at.Sub(begin.at).Seconds()
	c := Cost{
		Servers: (end.servers - begin.servers).Seconds() / seconds,
		Load:    (end.load - begin.load).Seconds() / seconds,
	}
	c.Other = max(0, (end.busy-begin.busy).Seconds()/seconds-c.Servers-c.Load)
	c.Stopped = ratio(float64(end.throttled-begin.throttled), float64(end.periods-begin.periods))
	return c
}

// loadCPU is user and system time of this process.
func loadCPU() time.Duration {
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// and adds the load of a child process to a cost.
func (c Cost) and(child float64) Cost {
	c.Load, c.Other = c.Load+child, max(0, c.Other-child)
	return c
}

// medianCost takes the medians of several windows' costs.
func medianCost[T any](samples []T, of func(T) Cost) Cost {
	return Cost{
		Servers: median(column(samples, func(s T) float64 { return of(s).Servers })),
		Load:    median(column(samples, func(s T) float64 { return of(s).Load })),
		Other:   median(column(samples, func(s T) float64 { return of(s).Other })),
		Stopped: median(column(samples, func(s T) float64 { return of(s).Stopped })),
	}
}

// scrape returns a node's metrics whose names begin so, with their labels.
func scrape(ctx context.Context, n *cluster.Node, prefix string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, controlAttempt)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.HTTP+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	values := map[string]float64{}
	lines := bufio.NewScanner(reply.Body)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok && strings.HasPrefix(name, prefix) {
			values[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return values, lines.Err()
}
