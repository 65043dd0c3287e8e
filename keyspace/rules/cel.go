package rules

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/cel-go/cel"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// CompileError says where an expression is wrong.
type CompileError struct {
	Rule         string
	Line, Column int // from 1
	Reason       string
}

// Error is one sentence.
func (e *CompileError) Error() string {
	return fmt.Sprintf("rule %q, line %d, column %d: %s", e.Rule, e.Line, e.Column, e.Reason)
}

// program is a compiled expression.
type program struct {
	name  string
	run   cel.Program
	reads bool // it names old or revision
	asks  bool // it names user or peer
}

// recursionMax bounds how deep an expression nests.
const recursionMax = 32

// env is what every expression is checked against.
var env = newEnv()

func newEnv() *cel.Env {
	value := cel.NullableType(cel.BytesType)
	e, err := cel.NewCustomEnv(
		cel.StdLib(),
		cel.ParserExpressionSizeLimit(ExprBytesMax),
		cel.ParserRecursionLimit(recursionMax),
		cel.Variable("key", cel.StringType),
		cel.Variable("old", value),
		cel.Variable("new", value),
		cel.Variable("lease", cel.IntType),
		cel.Variable("revision", cel.IntType),
		cel.Variable("size", cel.IntType),
		cel.Variable("deleted", cel.BoolType),
		cel.Variable("user", cel.StringType),
		cel.Variable("peer", cel.StringType),
	)
	if err != nil {
		panic("rules: the environment of expressions: " + err.Error())
	}
	return e
}

// Check compiles an expression and forgets it. The error is a *CompileError.
func Check(e Expr) error {
	_, err := compile(e)
	return err
}

func compile(e Expr) (program, error) {
	wrong := func(line, column int, reason string) (program, error) {
		return program{}, &CompileError{Rule: e.Name, Line: line, Column: column, Reason: reason}
	}
	switch {
	case e.Name == "" || len(e.Name) > 64 || !utf8.ValidString(e.Name) || strings.ContainsFunc(e.Name, unicode.IsControl):
		return wrong(1, 1, "its name is no short line of text")
	case len(e.Text) > ExprBytesMax:
		return wrong(1, 1, fmt.Sprintf("it has %d bytes, at most %d are possible", len(e.Text), ExprBytesMax))
	}
	checked, issues := env.Compile(e.Text)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return wrong(max(first.Location.Line(), 1), first.Location.Column()+1, oneLine(first.Message))
	}
	if checked.OutputType() != cel.BoolType {
		return wrong(1, 1, fmt.Sprintf("it is of type %s, want bool", checked.OutputType()))
	}
	p := program{name: e.Name}
	native := checked.NativeRep()
	if id, reason := p.walk(native); reason != "" {
		at := native.SourceInfo().GetStartLocation(id)
		return wrong(max(at.Line(), 1), at.Column()+1, reason)
	}
	var err error
	if p.run, err = env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(CostMax)); err != nil {
		return wrong(1, 1, oneLine(err.Error()))
	}
	return p, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ") }

// walk notes which names the expression uses, and finds what is not deterministic.
func (p *program) walk(checked *celast.AST) (id int64, reason string) {
	celast.PreOrderVisit(checked.Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		if reason != "" {
			return
		}
		if reason = forbidden(checked, e); reason != "" {
			id = e.ID()
			return
		}
		if e.Kind() == celast.IdentKind {
			switch e.AsIdent() {
			case "old", "revision":
				p.reads = true
			case "user", "peer":
				p.asks = true
			}
		}
	}))
	return id, reason
}

// forbidden says why an expression's part must not be judged by, or nothing.
func forbidden(checked *celast.AST, e celast.Expr) string {
	switch e.Kind() {
	case celast.MapKind:
		return "maps have no order"
	case celast.StructKind:
		return "messages are not for rules"
	case celast.CallKind:
		call := e.AsCall()
		if call.FunctionName() == overloads.Matches {
			if pattern := call.Args()[len(call.Args())-1]; pattern.Kind() != celast.LiteralKind {
				return "the pattern of matches is no literal"
			}
		}
	}
	switch checked.GetType(e.ID()).Kind() {
	case types.DoubleKind:
		return "floats are not for rules"
	case types.TimestampKind, types.DurationKind:
		return "times are not for rules"
	case types.MapKind:
		return "maps have no order"
	case types.StructKind, types.AnyKind:
		return "messages are not for rules"
	}
	return ""
}

// judge returns why the write is refused, or nothing.
func (p *program) judge(names *activation) string {
	out, _, err := p.run.Eval(names)
	switch {
	case err != nil:
		return "it cannot be evaluated: " + oneLine(err.Error())
	case out != types.True:
		return "it is not true of this write"
	}
	return ""
}

// activation gives an expression its names. Values are made when they are asked for.
type activation struct{ w *Write }

// ResolveName implements cel.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	w := a.w
	switch name {
	case "key":
		return types.String(w.Key), true
	case "old":
		return bytesOrNull(w.Old.Value, w.Old.Revision != 0), true
	case "new":
		return bytesOrNull(w.New, !w.Deleted), true
	case "lease":
		return types.Int(w.Lease), true
	case "revision":
		return types.Int(w.Old.Revision), true
	case "size":
		return types.Int(len(w.New)), true
	case "deleted":
		return types.Bool(w.Deleted), true
	case "user":
		return types.String(w.By.User), true
	case "peer":
		return types.String(w.By.Peer), true
	}
	return nil, false
}

// Parent implements cel.Activation.
func (a *activation) Parent() cel.Activation { return nil }

func bytesOrNull(b []byte, exists bool) ref.Val {
	if !exists {
		return types.NullValue
	}
	return types.Bytes(b)
}
