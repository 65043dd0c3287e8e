package compose

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConfigValidate(t *testing.T) {
	good := Config{Root: ".", Anchors: 3}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []Config{{Anchors: 3}, {Root: ".", Anchors: 4}, {Root: ".", Anchors: 3, Volumes: []string{"a"}}} {
		if bad.Validate() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

// The compose file and this package must speak of the same nodes.
func TestComposeFileMatchesTheNodes(t *testing.T) {
	data, err := os.ReadFile("docker-compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	zones := map[string]bool{}
	for i := 1; i <= Size; i++ {
		for _, want := range []string{
			fmt.Sprintf("ANCHORMESH_NAME: n%d\n", i),
			fmt.Sprintf(`"127.0.0.1:2379%d:2379"`, i),
			fmt.Sprintf("ipv4_address: %s%d", subnetDot, i),
			fmt.Sprintf("http://127.0.0.1:2379%d\n", i),
		} {
			if strings.Count(string(data), want) != 1 {
				t.Errorf("%q is not in docker-compose.yaml exactly once", want)
			}
		}
	}
	for line := range strings.Lines(string(data)) {
		if zone, ok := strings.CutPrefix(strings.TrimSpace(line), "ANCHORMESH_ZONE: "); ok {
			zones[zone] = true
		}
	}
	if len(zones) != 3 {
		t.Errorf("zones are %v, want three", zones)
	}
	if !strings.Contains(string(data), "image: "+image+"\n") {
		t.Errorf("docker-compose.yaml does not use %s", image)
	}
}

// Whatever compose program is here accepts the files, the override included.
func TestComposeAcceptsTheFiles(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	root := t.TempDir()
	words, err := composeProgram(ctx)
	if err != nil {
		t.Skip(err)
	}
	dir := filepath.Join(root, "testnet", "compose")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("docker-compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "docker-compose.yaml"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	volumes := []string{"/v/1", "/v/2", "/v/3", "/v/4", "/v/5"}
	m := &Mesh{cfg: Config{Root: root, Anchors: 5, Volumes: volumes}, compose: words}
	for _, dir := range []string{m.cfg.state(), m.cfg.bin()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(m.override(), []byte(volumesYAML(volumes)), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := m.run(ctx, "config")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range append(volumes, m.keyFile()) {
		if !strings.Contains(got, want) {
			t.Errorf("the configuration does not name %s", want)
		}
	}
	if !strings.Contains(got, "ANCHORMESH_ANCHORS: '5'") && !strings.Contains(got, `ANCHORMESH_ANCHORS: "5"`) {
		t.Error("the number of anchors is not passed on")
	}
}
