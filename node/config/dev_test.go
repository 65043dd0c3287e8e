package config

import (
	"strings"
	"testing"
)

func TestDevNodesAreValidAndMeet(t *testing.T) {
	d := DefaultDev()
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	ports := []Ports{{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}
	for i := range d.Nodes {
		c := d.Node(i, "dir", ports)
		if err := c.Validate(); err != nil {
			t.Errorf("node %d: %v", i, err)
		}
		if c.Mesh.Genesis != (i == 0) || c.KeyPath() != "dir/mesh.key" {
			t.Errorf("node %d: %+v", i, c.Mesh)
		}
	}
	c := d.Node(2, "dir", ports)
	if c.Listen.Client != "127.0.0.1:2381" || c.Mesh.Join[0] != "127.0.0.1:2" || c.Identity.Dir() != "dir/node-3" {
		t.Errorf("third node: %+v", c)
	}
}

func TestDevValidate(t *testing.T) {
	d := DefaultDev()
	d.Nodes, d.ClientAddr, d.Each.Limits.TxnOps = 0, "x:65530", 0
	err := d.Validate().Error()
	for _, want := range []string{"--nodes: 0 is not between 1 and 16", "--max-txn-ops"} {
		if !strings.Contains(err, want) {
			t.Errorf("%q is missing in:\n%s", want, err)
		}
	}
	d = DefaultDev()
	d.Nodes, d.ClientAddr = 16, "x:65530"
	if err := d.Validate(); err == nil || !strings.Contains(err.Error(), "leaves no ports for 16 nodes") {
		t.Errorf("got %v", err)
	}
}
