package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// EnvPrefix begins the environment variable of every flag.
const EnvPrefix = "ANCHORMESH_"

// EnvName is the environment variable of a flag: --data-dir is
// ANCHORMESH_DATA_DIR.
func EnvName(flag string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Fill gives every flag of fs that the command line did not set its value from
// the environment (lookup is os.LookupEnv), else from the YAML file that --config
// names, else leaves the default. It reports every bad value, each with its
// source. An empty variable counts as not set.
func Fill(fs *pflag.FlagSet, lookup func(string) (string, bool)) error {
	onCommandLine := make(map[string]bool)
	fs.Visit(func(f *pflag.Flag) { onCommandLine[f.Name] = true })

	var problems []error
	fs.VisitAll(func(f *pflag.Flag) {
		value, ok := lookup(EnvName(f.Name))
		if onCommandLine[f.Name] || !ok || value == "" {
			return
		}
		if err := fs.Set(f.Name, value); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", EnvName(f.Name), err))
		}
	})
	if file := fs.Lookup(FileFlag); file != nil && file.Value.String() != "" {
		problems = append(problems, fillFromFile(fs, file.Value.String()))
	}
	return errors.Join(problems...)
}

// Unrecognised lists the ANCHORMESH_* variables of environ (os.Environ) that no
// flag of fs reads. They are worth a warning, not a refusal: Kubernetes puts such
// variables into every container next to a service of that name.
func Unrecognised(fs *pflag.FlagSet, environ []string) []string {
	known := make(map[string]bool)
	fs.VisitAll(func(f *pflag.Flag) { known[EnvName(f.Name)] = true })
	var out []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, EnvPrefix) && !known[name] {
			out = append(out, name)
		}
	}
	return out
}

func fillFromFile(fs *pflag.FlagSet, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--%s: %w", FileFlag, err)
	}
	fields, err := parseFields(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var problems []error
	seen := make(map[string]bool)
	for _, f := range fields {
		flag := fs.Lookup(f.name)
		switch {
		case flag == nil || f.name == FileFlag || f.name == "help":
			problems = append(problems, fmt.Errorf("%s:%d: unknown field %q", path, f.line, f.name))
		case seen[f.name]:
			problems = append(problems, fmt.Errorf("%s:%d: field %q stands twice", path, f.line, f.name))
		case flag.Changed: // the command line or the environment won
		default:
			if err := f.set(fs, flag); err != nil {
				problems = append(problems, fmt.Errorf("%s:%d: %w", path, f.line, err))
			}
		}
		seen[f.name] = true
	}
	return errors.Join(problems...)
}

// field is one line of the file.
type field struct {
	name  string
	line  int
	value *yaml.Node
}

// parseFields reads one flat YAML mapping. An empty file has no fields.
func parseFields(text []byte) ([]field, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("want one YAML document, found more")
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: want fields such as \"name: n1\"", root.Line)
	}
	var fields []field
	for i := 0; i+1 < len(root.Content); i += 2 {
		key := root.Content[i]
		fields = append(fields, field{name: key.Value, line: key.Line, value: root.Content[i+1]})
	}
	return fields, nil
}

// set gives the field's value to its flag, through the flag's own parser.
func (f field) set(fs *pflag.FlagSet, flag *pflag.Flag) error {
	switch {
	case f.value.Kind == yaml.ScalarNode && f.value.Tag == "!!null":
		return fmt.Errorf("field %q has no value", f.name)
	case f.value.Kind == yaml.ScalarNode:
		return fs.Set(f.name, f.value.Value)
	case f.value.Kind != yaml.SequenceNode:
		return fmt.Errorf("field %q wants one value", f.name)
	}
	list, ok := flag.Value.(pflag.SliceValue)
	if !ok {
		return fmt.Errorf("field %q wants one value, not a list", f.name)
	}
	var values []string
	for _, item := range f.value.Content {
		if item.Kind != yaml.ScalarNode {
			return fmt.Errorf("field %q wants a list of plain values", f.name)
		}
		values = append(values, item.Value)
	}
	flag.Changed = true
	return list.Replace(values)
}
