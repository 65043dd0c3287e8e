package structure

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/anchormesh/anchormesh/testnet/binaries"
)

// HasteArgs have nodes judge in seconds what else takes minutes.
func HasteArgs() []string {
	return []string{"--auto-split=true", "--auto-merge=true", "--structure-haste=60"}
}

// touchy is a policy under which the torture's surges are an overload, and what they
// leave behind is dormant within seconds.
const touchy = "preset: standard\nstructure: {split_writes_per_second: 20, dormant_seconds: 3}\n"

// Touchy gives the root scope that policy.
func Touchy(ctx context.Context, endpoints []string) error {
	program, err := binaries.AnchorMesh(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "anchormesh-policy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "touchy.yaml")
	if err := os.WriteFile(file, []byte(touchy), 0o600); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, program, "scope", "set", "", "-f", file, "--endpoints", strings.Join(endpoints, ",")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("policy of the root scope: %w: %s", err, out)
	}
	return nil
}
