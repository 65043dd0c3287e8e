package document

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/anchormesh/anchormesh/anchors/policy"
)

// reader fills a policy from a document. It goes on behind a problem, so that all
// are told at once.
type reader struct {
	lines    map[string]int // where each field stands
	problems []error
}

func (r *reader) problem(n *yaml.Node, field, reason string, args ...any) {
	r.problems = append(r.problems, &Problem{n.Line, field, fmt.Sprintf(reason, args...)})
}

func (r *reader) policy(n *yaml.Node, p *policy.Policy) { r.mapping(n, "", reflect.ValueOf(p).Elem()) }

// mapping fills a struct.
func (r *reader) mapping(n *yaml.Node, at string, into reflect.Value) {
	if n.Kind != yaml.MappingNode {
		r.problem(n, at, "want fields, such as %q", at+": {"+tags(into.Type())[0]+": ...}")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := strings.TrimPrefix(at+"."+key.Value, ".")
		field, ok := fieldOf(into, key.Value)
		preset := name == presetField
		switch {
		case !ok && !preset:
			r.problem(key, name, "there is no such field; want %s", strings.Join(tags(into.Type()), ", "))
			continue
		case r.lines[name] != 0:
			r.problem(key, name, "stands twice, first in line %d", r.lines[name])
			continue
		}
		if r.lines[name] = key.Line; !preset {
			r.value(value, name, field)
		}
	}
}

// value fills one field.
func (r *reader) value(n *yaml.Node, at string, into reflect.Value) {
	switch {
	case n.Kind == yaml.AliasNode:
		r.problem(n, at, "is an alias; write the value")
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		r.problem(n, at, "has no value")
	case isText(into):
		r.text(n, at, into)
	case into.Kind() == reflect.Struct:
		if into.Type() == reflect.TypeFor[policy.Acks]() {
			into.SetZero() // all and count exclude each other: what is said replaces the preset's
		}
		r.mapping(n, at, into)
	case into.Kind() == reflect.Slice:
		r.list(n, at, into)
	default:
		r.scalar(n, at, into)
	}
}

func (r *reader) text(n *yaml.Node, at string, into reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		r.problem(n, at, "want one value")
		return
	}
	if err := into.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
		r.problem(n, at, "%v", err)
	}
}

func (r *reader) list(n *yaml.Node, at string, into reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		r.problem(n, at, "want a list")
		return
	}
	out := reflect.MakeSlice(into.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		name := fmt.Sprintf("%s[%d]", at, i)
		r.lines[name] = item.Line
		r.value(item, name, out.Index(i))
	}
	into.Set(out)
}

func (r *reader) scalar(n *yaml.Node, at string, into reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		r.problem(n, at, "want one value")
		return
	}
	switch into.Kind() {
	case reflect.Bool:
		if n.ShortTag() != "!!bool" {
			r.problem(n, at, "%q, want true or false", n.Value)
			return
		}
		into.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Int, reflect.Int64:
		v, ok := number(n.Value, at)
		if !ok {
			r.problem(n, at, "%q is no number%s", n.Value, unitHint(at))
			return
		}
		into.SetInt(v)
	default:
		into.SetString(n.Value)
	}
}

// units of sizes.
var units = map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

// number reads a whole number, of bytes with a unit, of seconds as a duration.
func number(text, field string) (int64, bool) {
	if v, err := strconv.ParseInt(text, 10, 64); err == nil {
		return v, true
	}
	switch {
	case strings.HasSuffix(field, "seconds"):
		d, err := time.ParseDuration(text)
		return int64(d / time.Second), err == nil && d%time.Second == 0
	case strings.Contains(field, "bytes"):
		for unit, size := range units {
			if digits, ok := strings.CutSuffix(text, unit); ok {
				v, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
				return v * size, err == nil && v >= 0 && v <= 1<<53/size
			}
		}
	}
	return 0, false
}

func unitHint(field string) string {
	switch {
	case strings.HasSuffix(field, "seconds"):
		return " of seconds, nor a duration such as 10m"
	case strings.Contains(field, "bytes"):
		return " of bytes such as 512 or 64KiB"
	}
	return ""
}

// isText reports whether a value has a written form of its own.
func isText(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return ok
}

// fieldOf finds a struct's field by its tag.
func fieldOf(v reflect.Value, tag string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("yaml") == tag {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// tags lists the names of a struct's fields.
func tags(t reflect.Type) (out []string) {
	for i := range t.NumField() {
		out = append(out, t.Field(i).Tag.Get("yaml"))
	}
	return out
}
