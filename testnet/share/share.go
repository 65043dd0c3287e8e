package share

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrUnavailable is returned by Detect when this system lets us limit nobody; it
// wraps what was tried.
var ErrUnavailable = errors.New("share: no control group of the cpu controller can be made here (Linux and root are needed)")

// Limiter makes groups.
type Limiter struct {
	root    string // where groups are made
	version int    // of control groups: 1 or 2
}

// roots are the usual mount points of the cpu controller, with their version.
// Where both are mounted, version 1 holds the controller if it is there at all.
var roots = []Limiter{
	{"/sys/fs/cgroup/cpu", 1},
	{"/sys/fs/cgroup/cpu,cpuacct", 1},
	{"/sys/fs/cgroup", 2},
	{"/sys/fs/cgroup/unified", 2},
}

// Detect returns a Limiter that was seen to work: a group was made, limited and
// removed.
func Detect() (Limiter, error) {
	var tried []error
	for _, l := range roots {
		err := l.try()
		if err == nil {
			return l, nil
		}
		tried = append(tried, err)
	}
	return Limiter{}, fmt.Errorf("%w: %w", ErrUnavailable, errors.Join(tried...))
}

func (l Limiter) String() string { return fmt.Sprintf("control groups v%d in %s", l.version, l.root) }

func (l Limiter) try() error {
	if l.version == 2 {
		if err := l.delegate(); err != nil {
			return err
		}
	} else if _, err := os.Stat(filepath.Join(l.root, "cpu.shares")); err != nil {
		return err
	}
	l.sweep()
	g, err := l.Group("try")
	if err != nil {
		return err
	}
	return errors.Join(g.Limit(0.5), g.Close())
}

// delegate gives groups below a version 2 root the cpu controller.
func (l Limiter) delegate() error {
	has := func(file string) (bool, error) {
		text, err := os.ReadFile(filepath.Join(l.root, file))
		return slices.Contains(strings.Fields(string(text)), "cpu"), err
	}
	if ok, err := has("cgroup.controllers"); err != nil || !ok {
		return errors.Join(err, fmt.Errorf("%s has no cpu controller", l.root))
	}
	if ok, err := has("cgroup.subtree_control"); err != nil || ok {
		return err
	}
	return os.WriteFile(filepath.Join(l.root, "cgroup.subtree_control"), []byte("+cpu"), 0)
}

// Groups are named anchormesh-bench-PID-NAME, after the process that made them.
const groupPrefix = "anchormesh-bench-"

// sweep removes groups of programs that are gone. Groups with processes in them
// cannot be removed.
func (l Limiter) sweep() {
	dirs, _ := filepath.Glob(filepath.Join(l.root, groupPrefix+"*"))
	for _, dir := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), groupPrefix), "-")
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
			_ = os.Remove(dir)
		}
	}
}

// Group holds processes to one share together.
type Group struct {
	dir     string
	version int
}

// Group makes a group without a limit. The name must differ from those of this
// process's other groups.
func (l Limiter) Group(name string) (*Group, error) {
	dir := filepath.Join(l.root, fmt.Sprintf("%s%d-%s", groupPrefix, os.Getpid(), name))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	return &Group{dir: dir, version: l.version}, nil
}

func (g *Group) write(file, text string) error {
	return os.WriteFile(filepath.Join(g.dir, file), []byte(text), 0)
}

// Add moves a process into the group.
func (g *Group) Add(pid int) error { return g.write("cgroup.procs", strconv.Itoa(pid)) }

// Limit holds the group to that many cores (0.05 is 5 % of one); 0 lifts it.
func (g *Group) Limit(cores float64) error {
	quota, period := bandwidth(cores)
	if g.version == 2 {
		text := "max"
		if quota > 0 {
			text = strconv.FormatInt(quota.Microseconds(), 10)
		}
		return g.write("cpu.max", fmt.Sprintf("%s %d", text, period.Microseconds()))
	}
	// The kernel refuses a quota of a period that is not valid with the other's
	// old value, so the quota is lifted between the two.
	if err := g.write("cpu.cfs_quota_us", "-1"); err != nil || quota == 0 {
		return err
	}
	return errors.Join(
		g.write("cpu.cfs_period_us", strconv.FormatInt(period.Microseconds(), 10)),
		g.write("cpu.cfs_quota_us", strconv.FormatInt(quota.Microseconds(), 10)))
}

// The kernel's bounds are quotas of at least 1 ms and periods of 1 ms to 1 s.
const (
	period   = 20 * time.Millisecond
	quotaMin = time.Millisecond
	longest  = time.Second
)

// bandwidth turns a share into quota and period: the usual period, or a longer
// one if the quota would be too small for the kernel. A quota of 0 is none.
func bandwidth(cores float64) (quota, per time.Duration) {
	if cores <= 0 {
		return 0, period
	}
	per = min(longest, max(period, time.Duration(float64(quotaMin)/cores)))
	return max(quotaMin, time.Duration(cores*float64(per))), per
}

// Periods tells how many periods in which the group ran have passed and in how
// many of them it was stopped for having used its quota.
func (g *Group) Periods() (all, throttled int64, err error) {
	text, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	if err != nil {
		return 0, 0, err
	}
	all, throttled = parseStat(string(text))
	return all, throttled, nil
}

func parseStat(text string) (all, throttled int64) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, _ := strconv.ParseInt(value, 10, 64)
		switch name {
		case "nr_periods":
			all = n
		case "nr_throttled":
			throttled = n
		}
	}
	return all, throttled
}

// Close removes the group; its processes must have ended.
func (g *Group) Close() error { return os.Remove(g.dir) }
