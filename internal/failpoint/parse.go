package failpoint

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

type action int

const (
	crash action = iota + 1
	panics
	sleep
	hold
	cut
	stop
)

// words are the actions without an argument.
var words = map[action]string{crash: "crash", panics: "panic", hold: "hold", cut: "cut", stop: "stop"}

type point struct {
	action action
	delay  time.Duration // of sleep
	from   int64         // first hit that acts, from 1; the only one, but for sleep
	hits   atomic.Int64
}

// parse reads the form described in the package's doc.
func parse(spec string) (map[string]*point, error) {
	points := map[string]*point{}
	for _, term := range strings.Split(spec, ";") {
		term = strings.TrimSpace(term)
		if term == "" {
			continue
		}
		name, what, ok := strings.Cut(term, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q: want name=action", term)
		}
		p, err := parsePoint(what)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", term, err)
		}
		points[name] = p
	}
	return points, nil
}

func parsePoint(what string) (*point, error) {
	p := &point{from: 1}
	what, count, counted := strings.Cut(what, "@")
	if counted {
		n, err := strconv.ParseInt(count, 10, 64)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("count %q: want a number from 1", count)
		}
		p.from = n
	}
	for action, word := range words {
		if word == what {
			p.action = action
			return p, nil
		}
	}
	switch {
	case strings.HasPrefix(what, "sleep(") && strings.HasSuffix(what, ")"):
		d, err := time.ParseDuration(what[len("sleep(") : len(what)-1])
		if err != nil {
			return nil, err
		}
		p.action, p.delay = sleep, d
	default:
		return nil, fmt.Errorf("action %q: want crash, panic, hold, cut, stop or sleep(duration)", what)
	}
	return p, nil
}
