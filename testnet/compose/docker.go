package compose

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

var (
	// ErrNoEngine is returned when no Docker engine answers.
	ErrNoEngine = errors.New("compose: no Docker engine answers")
	// ErrNoCompose is returned when neither "docker compose" nor "docker-compose" works.
	ErrNoCompose = errors.New(`compose: neither "docker compose" nor "docker-compose" is installed`)
	// ErrCommand is returned when a command failed; it wraps what the command said.
	ErrCommand = errors.New("compose: command failed")
	// ErrNotUp is returned when the mesh's containers do not exist.
	ErrNotUp = errors.New("compose: the testnet is not up")
)

// Run runs a command and returns its standard output without the space around
// it; if it fails the error holds what it said.
func Run(ctx context.Context, name string, args ...string) (string, error) {
	return run(ctx, nil, name, args...)
}

func run(ctx context.Context, env []string, name string, args ...string) (string, error) {
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s %s: %w: %s", ErrCommand, name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// Engine returns the version of the Docker engine, or why there is none.
func Engine(ctx context.Context) (string, error) {
	version, err := Run(ctx, "docker", "version", "--format", "{{.Server.Version}}")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoEngine, err)
	}
	return version, nil
}

// composeProgram returns the compose command that is installed, the plugin first.
func composeProgram(ctx context.Context) ([]string, error) {
	for _, words := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if _, err := Run(ctx, words[0], append(words[1:], "version")...); err == nil {
			return words, nil
		}
	}
	return nil, ErrNoCompose
}
