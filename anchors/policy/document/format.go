package document

import (
	"bytes"

	"go.yaml.in/yaml/v3"

	"github.com/anchormesh/anchormesh/anchors/policy"
)

// Format writes a policy as YAML, with its fields in their order and what is unset
// left out. Read back without a preset it is the same policy: what is left out is
// unset in standard, too.
func Format(p *policy.Policy) []byte {
	var doc yaml.Node
	if err := yaml.Unmarshal(p.Encode(), &doc); err != nil { // JSON is YAML
		panic("document: a policy's encoding cannot be read: " + err.Error())
	}
	unstyled(&doc)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		panic("document: a policy cannot be written: " + err.Error())
	}
	return out.Bytes()
}

// unstyled takes JSON's braces and quotes away; what needs quotes gets them again.
func unstyled(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		unstyled(child)
	}
}
