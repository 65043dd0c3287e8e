package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

// KnownFile keeps where other nodes were last seen to gossip, so that a node finds
// its mesh again without being told any address. A line of its own, then one per
// node, at most knownMax:
//
//	anchormesh-known-v1:<hexadecimal CRC-32 of the rest>
//	<node ID> <host:port>
const KnownFile = "gossip.known"

const (
	knownPrefix = "anchormesh-known-v1:"
	// knownMax bounds the nodes remembered: enough that some of them are still where
	// they were, few enough to ask them all at a start.
	knownMax       = 32
	knownBytesMax  = 16 << 10
	knownEvery     = 2 * time.Second // between two looks at whether the file is to be replaced
	knownNodeBytes = 128             // of a node ID that is believed
)

// contact is where a node gossips.
type contact struct {
	node anchormesh.NodeID
	addr string // host:port
}

// known is what this node remembers of where others gossip. It is a hint: whoever
// answers there proves by mesh key and record who he is.
type known struct {
	files fsys.FS
	dir   string
	log   *slog.Logger
	self  anchormesh.NodeID
	keep  time.Duration // after which nodes that were never met again are forgotten
	began time.Time

	mu    sync.Mutex
	unmet []contact // remembered from earlier, not met since this process began
	text  string    // the file's, as far as is known
}

// loadKnown reads what was kept. A file that cannot be used costs nothing but its use.
func loadKnown(files fsys.FS, dir string, self anchormesh.NodeID, keep time.Duration, log *slog.Logger) *known {
	k := &known{files: files, dir: dir, log: log, self: self, keep: keep, began: time.Now()}
	text, err := fsys.ReadSmall(files, filepath.Join(dir, KnownFile), knownBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return k
	}
	if err == nil {
		k.unmet, err = parseKnown(string(text))
	}
	if err != nil {
		log.Warn("the gossip addresses remembered from earlier are of no use; nodes are found by join addresses, or find this one",
			"file", filepath.Join(dir, KnownFile), "error", err)
		return k
	}
	k.text = string(text)
	return k
}

var errKnown = errors.New("it is damaged")

func parseKnown(text string) ([]contact, error) {
	head, body, _ := strings.Cut(text, "\n")
	sum, ok := strings.CutPrefix(head, knownPrefix)
	if want, err := strconv.ParseUint(sum, 16, 32); !ok || err != nil || uint32(want) != crc32.ChecksumIEEE([]byte(body)) {
		return nil, errKnown
	}
	var out []contact
	for line := range strings.Lines(body) {
		node, addr, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		host, port, err := net.SplitHostPort(addr)
		n, bad := strconv.ParseUint(port, 10, 16)
		if err != nil || bad != nil || n == 0 || host == "" || node == "" || len(node) > knownNodeBytes || len(out) == knownMax {
			return nil, fmt.Errorf("%w: line %q", errKnown, line)
		}
		out = append(out, contact{anchormesh.NodeID(node), addr})
	}
	return out, nil
}

func formatKnown(list []contact) string {
	var body strings.Builder
	for _, c := range list {
		fmt.Fprintf(&body, "%s %s\n", c.node, c.addr)
	}
	return fmt.Sprintf("%s%08x\n%s", knownPrefix, crc32.ChecksumIEEE([]byte(body.String())), body.String())
}

// addrs returns where those were who have not been met since this process began.
func (k *known) addrs() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for _, c := range k.unmet {
		out = append(out, c.addr)
	}
	return out
}

// update takes what is known now, and replaces the file if that says something else.
func (k *known) update(now time.Time, v View, where map[anchormesh.NodeID]string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	text := formatKnown(k.next(now, v, where))
	if text == k.text || k.text == "" && len(v.Members()) <= 1 {
		return nil
	}
	if err := fsys.WriteSmall(k.files, k.dir, KnownFile, []byte(text)); err != nil {
		return err
	}
	k.text = text
	return nil
}

// next is who is to be remembered: the view's members, also those that are away, and
// those who have not been met again yet. Whom the view has forgotten is forgotten here.
func (k *known) next(now time.Time, v View, where map[anchormesh.NodeID]string) []contact {
	k.unmet = slices.DeleteFunc(k.unmet, func(c contact) bool {
		_, met := v.Get(c.node)
		return met || c.node == k.self || now.Sub(k.began) > k.keep
	})
	var alive, away []contact
	for _, m := range v.Members() {
		addr, ok := where[m.ID]
		switch {
		case m.ID == k.self || !ok:
		case m.State == Alive:
			alive = append(alive, contact{m.ID, addr})
		default:
			away = append(away, contact{m.ID, addr})
		}
	}
	away = append(away, k.unmet...)
	k.shuffle(alive)
	k.shuffle(away)
	out := append(alive, away...)
	return out[:min(len(out), knownMax)]
}

// shuffle sorts by an order that is this node's own, so that in a large mesh not all
// remember the same few, and that does not change, so that the file does not either.
func (k *known) shuffle(list []contact) {
	rank := func(c contact) uint32 { return crc32.ChecksumIEEE([]byte(string(k.self) + " " + string(c.node))) }
	slices.SortFunc(list, func(a, b contact) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.node, b.node))
	})
}

// remember keeps the file up to date until done ends.
func (m *Mesh) remember(done <-chan struct{}) {
	tick := time.NewTicker(knownEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case now := <-tick.C:
			m.rememberNow(now)
		}
	}
}

func (m *Mesh) rememberNow(now time.Time) {
	if err := m.known.update(now, m.View(), m.gossip.Addrs()); err != nil && m.noise.Allow("known") {
		m.cfg.Logger.Warn("the gossip addresses of other nodes cannot be kept for the next start", "error", err)
	}
}
