package document

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/anchormesh/anchormesh/anchors/policy"
)

// BytesMax bounds a document: a policy's longest encoding, with room for comments.
const BytesMax = 4 * policy.BytesMax

// DefaultPreset is what a document without one begins with.
const DefaultPreset = "standard"

// presetField names the preset in a document. It is not a field of the policy.
const presetField = "preset"

// Problem says what is wrong in a document, and where.
type Problem struct {
	Line   int    // 0: it is about what the document does not say
	Field  string // its path, "anchors.count"; empty: the whole document
	Reason string
}

// Error implements error.
func (p *Problem) Error() string {
	text := p.Reason
	if p.Field != "" {
		text = p.Field + ": " + text
	}
	if p.Line > 0 {
		text = fmt.Sprintf("line %d: %s", p.Line, text)
	}
	return text
}

// Read reads the policy of a scope. preset is what it begins with if the document
// names none; empty is DefaultPreset. The error is one Problem or several, joined.
func Read(text []byte, preset string, scope []byte, compile policy.Compile) (*policy.Policy, error) {
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	p, err := begin(root, preset)
	if err != nil {
		return nil, err
	}
	r := reader{lines: make(map[string]int)}
	if root != nil {
		r.policy(root, p)
	}
	if len(r.problems) > 0 {
		return nil, errors.Join(r.problems...)
	}
	if err := p.Validate(scope, compile); err != nil {
		return nil, r.locate(err)
	}
	return p.Normal(), nil
}

// parse returns the document's mapping; nil if it is empty.
func parse(text []byte) (*yaml.Node, error) {
	if len(text) > BytesMax {
		return nil, &Problem{Reason: fmt.Sprintf("the document is %d bytes long, at most %d", len(text), BytesMax)}
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, &Problem{Reason: strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, &Problem{Reason: "want one document, found more"}
	}
	root := doc.Content[0]
	switch {
	case root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null":
		return nil, nil
	case root.Kind != yaml.MappingNode:
		return nil, &Problem{Line: root.Line, Reason: `want fields such as "class: normal"`}
	}
	return root, nil
}

// begin returns the preset that the document changes.
func begin(root *yaml.Node, preset string) (*policy.Policy, error) {
	line := 0
	if root != nil {
		for i := 0; i+1 < len(root.Content); i += 2 {
			value := root.Content[i+1]
			if root.Content[i].Value != presetField {
				continue
			}
			if preset != "" && preset != value.Value {
				return nil, &Problem{value.Line, presetField, fmt.Sprintf("the document begins with %q, asked for was %q", value.Value, preset)}
			}
			preset, line = value.Value, value.Line
			if preset == "" {
				return nil, &Problem{line, presetField, "has no value"}
			}
		}
	}
	p, ok := policy.Preset(cmp.Or(preset, DefaultPreset))
	if !ok {
		return nil, &Problem{line, presetField, fmt.Sprintf("there is no %q, want %s", preset, strings.Join(policy.Presets, ", "))}
	}
	return p, nil
}

// locate gives what Validate found its lines.
func (r *reader) locate(err error) error {
	problems := []error{err}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		problems = slices.Clone(many.Unwrap())
	}
	for i, err := range problems {
		var p *policy.Problem
		if errors.As(err, &p) {
			problems[i] = &Problem{r.line(p.Field), p.Field, p.Reason}
		}
	}
	return errors.Join(problems...)
}

// line is where a field stands, or what it is part of; 0 if the document does not
// say it.
func (r *reader) line(field string) int {
	for field != "" {
		if at, ok := r.lines[field]; ok {
			return at
		}
		field = field[:max(0, strings.LastIndexAny(field, ".["))]
	}
	return 0
}
