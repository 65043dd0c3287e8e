package segments

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"github.com/anchormesh/anchormesh/testnet/load"
)

// Child is what a process of Config.Flood does: it reads a load's configuration as
// JSON, runs it and writes the result.
func Child(ctx context.Context, in io.Reader, out io.Writer) error {
	var cfg load.Config
	if err := json.NewDecoder(in).Decode(&cfg); err != nil {
		return fmt.Errorf("segments: configuration of the load: %w", err)
	}
	result, err := load.Run(ctx, cfg)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result)
}

// flood runs a load in a process of its own, so that a probe in this one is not
// held up by it. It ends early if ctx does.
func (c Config) flood(ctx context.Context, l load.Config) (load.Result, error) {
	if len(c.Flood) == 0 {
		return load.Run(ctx, l)
	}
	in, err := json.Marshal(l)
	if err != nil {
		return load.Result{}, err
	}
	var out bytes.Buffer
	command := c.flooding()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return load.Result{}, fmt.Errorf("segments: load process: %w", err)
	}
	var result load.Result
	return result, json.Unmarshal(out.Bytes(), &result)
}

// flooding is the command line of the flood, which may stand behind nodes and probe for
// the CPU.
func (c Config) flooding() []string {
	if c.FloodNice == 0 {
		return c.Flood
	}
	return append([]string{"nice", "-n", strconv.Itoa(c.FloodNice)}, c.Flood...)
}

// floods says how the flood runs.
func (c Config) floods() string {
	if c.FloodNice == 0 {
		return "a process of its own"
	}
	return fmt.Sprintf("a process of its own at nice %d", c.FloodNice)
}

// load returns the load that the benchmarks' settings say.
func (c Config) load(workload, prefix string, endpoints []string) load.Config {
	l := load.Default()
	l.Endpoints, l.Workload, l.Prefix = endpoints, workload, prefix
	l.Clients, l.Warmup, l.Duration, l.Keys, l.ValueSize = c.Clients, c.Warmup, c.Duration, c.Keys, c.ValueSize
	return l
}
