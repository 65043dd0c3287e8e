package structure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/anchormesh/anchormesh/testnet/binaries"
)

// ErrStructure: "anchormesh verify" found something.
var ErrStructure = errors.New("the mesh's structure is not whole")

// Verify runs "anchormesh verify" of this tree against a mesh, and returns how many
// segments it found whole.
func Verify(ctx context.Context, endpoints []string) (segments int, err error) {
	program, err := binaries.AnchorMesh(ctx)
	if err != nil {
		return 0, err
	}
	out, err := exec.CommandContext(ctx, program, "verify", "--endpoints", strings.Join(endpoints, ","), "-o", "json").Output()
	var seen struct {
		Segments int               `json:"segments"`
		Findings []json.RawMessage `json:"findings"`
		Notes    []string          `json:"notes"`
	}
	if broken := json.Unmarshal(out, &seen); broken != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return 0, errors.Join(broken, err)
	}
	if len(seen.Findings) > 0 {
		return seen.Segments, fmt.Errorf("%w: %s", ErrStructure, seen.Findings)
	}
	return seen.Segments, err
}
