package compose

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Size is the number of nodes in docker-compose.yaml.
const Size = 5

// DataDir is where a container has its data directory.
const DataDir = "/data"

const (
	project   = "anchormesh-testnet"
	subnetDot = "172.28.77.1" // of docker-compose.yaml; node i is 1i
	image     = "anchormesh:testnet"
)

// Config says how to run the mesh.
type Config struct {
	Root string // the source tree
	// Bin is a directory that holds the static program "anchormesh". Empty: the
	// program is built from the source tree into Root/bin.
	Bin string
	// Volumes holds a directory per node to be used as its data volume. Empty:
	// named volumes.
	Volumes []string
	Anchors int // of the root scope
}

// Validate reports the first thing that is wrong.
func (c Config) Validate() error {
	switch {
	case c.Root == "":
		return errors.New("compose: no source tree given")
	case len(c.Volumes) != 0 && len(c.Volumes) != Size:
		return fmt.Errorf("compose: %d volumes for %d nodes", len(c.Volumes), Size)
	case c.Anchors != 1 && c.Anchors != 3 && c.Anchors != 5:
		return fmt.Errorf("compose: %d anchors, can be 1, 3 or 5", c.Anchors)
	}
	return nil
}

// Node is one container of the mesh.
type Node struct {
	Name      string // n1 to n5
	Container string // its ID
	IP        string // on the mesh's network
	Endpoint  string // client URL on loopback
}

// Mesh is a testnet whose containers exist.
type Mesh struct {
	Nodes   []Node
	Network string

	cfg     Config
	compose []string
}

func (c Config) state() string { return filepath.Join(c.Root, ".cache", "testnet") }
func (c Config) bin() string {
	if c.Bin != "" {
		return c.Bin
	}
	return filepath.Join(c.Root, "bin")
}

// Up builds what is missing, starts the mesh and returns when every node is
// ready. A mesh that is up goes on, with the new program if there is one.
func Up(ctx context.Context, cfg Config) (*Mesh, error) {
	m, err := newMesh(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := m.prepare(ctx); err != nil {
		return nil, err
	}
	if _, err := m.run(ctx, "up", "-d", "--no-build"); err != nil {
		return nil, err
	}
	if err := m.find(ctx); err != nil {
		return nil, err
	}
	return m, m.Ready(ctx)
}

// Find returns the mesh that is up, or ErrNotUp.
func Find(ctx context.Context, cfg Config) (*Mesh, error) {
	m, err := newMesh(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return m, m.find(ctx)
}

// Down removes containers, network and named volumes, whether or not all exist.
func Down(ctx context.Context, cfg Config) error {
	m, err := newMesh(ctx, cfg)
	if err != nil {
		return err
	}
	_, err = m.run(ctx, "down", "--volumes", "--remove-orphans", "--timeout", "10")
	return err
}

func newMesh(ctx context.Context, cfg Config) (*Mesh, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if _, err := Engine(ctx); err != nil {
		return nil, err
	}
	// docker-compose reads no file that names a build directory that is not there.
	if err := os.MkdirAll(cfg.bin(), 0o755); err != nil {
		return nil, err
	}
	words, err := composeProgram(ctx)
	return &Mesh{cfg: cfg, compose: words, Network: project + "_mesh"}, err
}

// run runs the compose program on our project.
func (m *Mesh) run(ctx context.Context, args ...string) (string, error) {
	dir := filepath.Join(m.cfg.Root, "testnet", "compose")
	words := append([]string{}, m.compose...)
	words = append(words, "-p", project, "-f", filepath.Join(dir, "docker-compose.yaml"))
	if len(m.cfg.Volumes) > 0 {
		words = append(words, "-f", m.override())
	}
	words = append(words, args...)
	env := []string{
		"ANCHORMESH_TESTNET_BIN=" + m.cfg.bin(),
		"ANCHORMESH_TESTNET_DOCKERFILE=" + filepath.Join(dir, "Dockerfile"),
		"ANCHORMESH_TESTNET_KEY=" + m.keyFile(),
		fmt.Sprintf("ANCHORMESH_TESTNET_ANCHORS=%d", m.cfg.Anchors),
	}
	return run(ctx, env, words[0], words[1:]...)
}

func (m *Mesh) keyFile() string  { return filepath.Join(m.cfg.state(), "mesh.key") }
func (m *Mesh) override() string { return filepath.Join(m.cfg.state(), "volumes.yaml") }

// prepare makes program, image, key and the override of the volumes.
func (m *Mesh) prepare(ctx context.Context) error {
	if err := os.MkdirAll(m.cfg.state(), 0o755); err != nil {
		return err
	}
	if m.cfg.Bin == "" {
		if err := buildProgram(ctx, m.cfg.Root); err != nil {
			return err
		}
	}
	dockerfile := filepath.Join(m.cfg.Root, "testnet", "compose", "Dockerfile")
	if _, err := Run(ctx, "docker", "build", "-q", "-t", image, "-f", dockerfile, m.cfg.bin()); err != nil {
		return err
	}
	if err := m.makeKey(ctx); err != nil {
		return err
	}
	if len(m.cfg.Volumes) == 0 {
		return nil
	}
	return os.WriteFile(m.override(), []byte(volumesYAML(m.cfg.Volumes)), 0o644)
}

func buildProgram(ctx context.Context, root string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join("bin", "anchormesh"), "./cmd/anchormesh")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: go build ./cmd/anchormesh: %w: %s", ErrCommand, err, out)
	}
	return nil
}

// makeKey makes the mesh key once; a mesh that is up must keep its own.
func (m *Mesh) makeKey(ctx context.Context) error {
	if _, err := os.Stat(m.keyFile()); err == nil {
		return nil
	}
	key, err := Run(ctx, filepath.Join(m.cfg.bin(), "anchormesh"), "key", "new")
	if err != nil {
		return err
	}
	return os.WriteFile(m.keyFile(), []byte(key+"\n"), 0o600)
}

// volumesYAML makes directories of this machine the nodes' volumes.
func volumesYAML(dirs []string) string {
	var b strings.Builder
	b.WriteString("volumes:\n")
	for i, dir := range dirs {
		fmt.Fprintf(&b, "  data%d: {driver: local, driver_opts: {type: none, o: bind, device: %q}}\n", i+1, dir)
	}
	return b.String()
}

// find fills in the nodes.
func (m *Mesh) find(ctx context.Context) error {
	m.Nodes = nil
	for i := 1; i <= Size; i++ {
		name := fmt.Sprintf("n%d", i)
		id, err := Run(ctx, "docker", "ps", "-aq", "--no-trunc",
			"--filter", "label=com.docker.compose.project="+project, "--filter", "label=com.docker.compose.service="+name)
		if err != nil {
			return err
		}
		if id == "" {
			return fmt.Errorf("%w: no container of %s", ErrNotUp, name)
		}
		m.Nodes = append(m.Nodes, Node{
			Name: name, Container: strings.Fields(id)[0],
			IP: fmt.Sprintf("%s%d", subnetDot, i), Endpoint: fmt.Sprintf("http://127.0.0.1:2379%d", i),
		})
	}
	return nil
}

const (
	readyPoll    = 500 * time.Millisecond
	readyTimeout = 2 * time.Minute // for all nodes after a start
)

// Ready returns when every node says that it is ready; the error says which is
// not and how its log ends.
func (m *Mesh) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for _, n := range m.Nodes {
		for {
			_, err := Run(ctx, filepath.Join(m.cfg.bin(), "anchormesh"), "status", "--endpoint", strings.TrimPrefix(n.Endpoint, "http://"))
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("compose: %s is not ready: %w\n%s", n.Name, err, m.LogTail(n))
			case <-tick.C:
			}
		}
	}
	return nil
}

// LogTail returns the end of a node's log, for an error message.
func (m *Mesh) LogTail(n Node) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "logs", "--tail", "30", n.Container).CombinedOutput()
	if err != nil {
		return err.Error()
	}
	return string(out)
}
