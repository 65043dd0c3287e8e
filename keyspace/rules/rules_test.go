package rules_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh/keyspace/rules"
)

func put(key, value string) *rules.Write {
	return &rules.Write{Key: []byte(key), New: []byte(value)}
}

func over(w *rules.Write, old string) *rules.Write {
	w.Old = rules.Version{Value: []byte(old), Revision: 7}
	return w
}

func deletion(key, old string) *rules.Write {
	return over(&rules.Write{Key: []byte(key), Deleted: true}, old)
}

func leased(w *rules.Write, id int64) *rules.Write {
	w.Lease = id
	return w
}

func by(w *rules.Write, user, peer string) *rules.Write {
	w.By = rules.Writer{User: user, Peer: peer}
	return w
}

func expr(text string) rules.Rules {
	return rules.Rules{Scope: "/s", Exprs: []rules.Expr{{Name: "mine", Text: text}}}
}

// judge is both questions, as apply asks them.
func judge(t *testing.T, r rules.Rules, w *rules.Write) string {
	t.Helper()
	j, err := rules.Compile(r)
	if err != nil {
		t.Fatal(err)
	}
	if err = j.Admit(&w.By, w.Key); err == nil {
		err = j.Judge(w)
	}
	if err == nil {
		return ""
	}
	var refusal *rules.Refusal
	if !errors.As(err, &refusal) {
		t.Fatalf("%v is no refusal", err)
	}
	if want := refusal.Rule == "writers" || refusal.Rule == "signed"; refusal.Denied != want {
		t.Errorf("Denied is %v for rule %s", refusal.Denied, refusal.Rule)
	}
	if !strings.Contains(err.Error(), refusal.Rule) || !strings.Contains(err.Error(), string(w.Key)) {
		t.Errorf("%q names not rule and key", err)
	}
	return refusal.Rule
}

func TestEachKindRefusesWhatItSays(t *testing.T) {
	signed := put("k", "v")
	signed.By.Signed = true
	for _, c := range []struct {
		name  string
		rules rules.Rules
		write *rules.Write
		want  string
	}{
		{"create_only new", rules.Rules{CreateOnly: true}, put("k", "v"), ""},
		{"create_only existing", rules.Rules{CreateOnly: true}, over(put("k", "v"), "v"), "create_only"},
		{"create_only delete", rules.Rules{CreateOnly: true}, deletion("k", "v"), ""},
		{"append_only new", rules.Rules{AppendOnly: true}, put("k", "v"), ""},
		{"append_only longer", rules.Rules{AppendOnly: true}, over(put("k", "vw"), "v"), ""},
		{"append_only other", rules.Rules{AppendOnly: true}, over(put("k", "w"), "v"), "append_only"},
		{"append_only delete", rules.Rules{AppendOnly: true}, deletion("k", "v"), "append_only"},
		{"append_only delete nothing", rules.Rules{AppendOnly: true}, &rules.Write{Key: []byte("k"), Deleted: true}, ""},
		{"ttl without", rules.Rules{TTLRequired: true}, put("k", "v"), "ttl_required"},
		{"ttl with", rules.Rules{TTLRequired: true}, leased(put("k", "v"), 5), ""},
		{"ttl delete", rules.Rules{TTLRequired: true}, deletion("k", "v"), ""},
		{"key limit at", rules.Rules{KeyBytesMax: 2}, put("kk", "v"), ""},
		{"key limit above", rules.Rules{KeyBytesMax: 2}, put("kkk", "v"), "key_bytes_max"},
		{"key limit delete", rules.Rules{KeyBytesMax: 2}, deletion("kkk", "v"), ""},
		{"value limit at", rules.Rules{ValueBytesMax: 2}, put("k", "vv"), ""},
		{"value limit above", rules.Rules{ValueBytesMax: 2}, put("k", "vvv"), "value_bytes_max"},
		{"writers nobody", rules.Rules{Writers: []string{"a"}}, put("k", "v"), "writers"},
		{"writers other", rules.Rules{Writers: []string{"a"}}, by(put("k", "v"), "b", "c"), "writers"},
		{"writers user", rules.Rules{Writers: []string{"a"}}, by(put("k", "v"), "a", "c"), ""},
		{"writers peer", rules.Rules{Writers: []string{"c"}}, by(put("k", "v"), "", "c"), ""},
		{"writers delete", rules.Rules{Writers: []string{"c"}}, deletion("k", "v"), "writers"},
		{"signed not", rules.Rules{Signed: true}, by(put("k", "v"), "a", "c"), "signed"},
		{"signed", rules.Rules{Signed: true}, signed, ""},
		{"cel key", expr(`key.startsWith('/s/')`), put("/s/k", "v"), ""},
		{"cel key wrong", expr(`key.startsWith('/s/')`), put("/t/k", "v"), "mine"},
		{"cel old null", expr(`old == null`), put("k", "v"), ""},
		{"cel old not null", expr(`old == null`), over(put("k", "v"), "v"), "mine"},
		{"cel old empty is not null", expr(`old != null`), over(put("k", "v"), ""), ""},
		{"cel new", expr(`deleted || string(new).matches('^[0-9]+$')`), put("k", "12"), ""},
		{"cel new wrong", expr(`deleted || string(new).matches('^[0-9]+$')`), put("k", "1a"), "mine"},
		{"cel counts up", expr(`old == null || int(string(new)) == int(string(old)) + 1`), over(put("k", "8"), "7"), ""},
		{"cel counts up wrong", expr(`old == null || int(string(new)) == int(string(old)) + 1`), over(put("k", "9"), "7"), "mine"},
		{"cel fails", expr(`int(string(new)) > 0`), put("k", "x"), "mine"},
		{"cel no utf-8", expr(`string(new) != ''`), put("k", "\xff"), "mine"},
		{"cel lease", expr(`lease != 0`), put("k", "v"), "mine"},
		{"cel lease set", expr(`lease == 5`), leased(put("k", "v"), 5), ""},
		{"cel revision", expr(`revision == 7`), over(put("k", "v"), "v"), ""},
		{"cel size", expr(`size <= 3`), put("k", "four"), "mine"},
		{"cel deleted", expr(`!deleted`), deletion("k", "v"), "mine"},
		{"cel deleted is null", expr(`new == null`), deletion("k", "v"), ""},
		{"cel user", expr(`user == 'root' || peer in ['p', 'q']`), by(put("k", "v"), "", "q"), ""},
		{"cel user wrong", expr(`user == 'root' || peer in ['p', 'q']`), by(put("k", "v"), "x", "y"), "mine"},
		{"cel macros", expr(`['a', 'b'].exists(p, key.startsWith(p)) && key.size() < 10`), put("bk", "v"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.rules.Scope = "/s"
			if got := judge(t, c.rules, c.write); got != c.want {
				t.Errorf("refused by %q, want %q", got, c.want)
			}
		})
	}
}

func TestWhatIsTooDearIsRefused(t *testing.T) {
	j, err := rules.Compile(expr(`string(new).contains('x') || [1,2,3].all(i, [1,2,3].all(j, string(new).contains('y') || string(new) < 'b'))`))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Judge(put("k", strings.Repeat("a", 100))); err != nil {
		t.Fatal(err)
	}
	err = j.Judge(put("k", strings.Repeat("a", 1<<20)))
	if err == nil || !strings.Contains(err.Error(), "cost limit") {
		t.Fatalf("%v, want a refusal for its cost", err)
	}
}

// A whole value of the default limit can be looked at.
func TestALargeValueCanBeRead(t *testing.T) {
	j, err := rules.Compile(expr(`string(new).startsWith('a') && !string(new).contains('x')`))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Judge(put("k", strings.Repeat("a", 500<<10))); err != nil {
		t.Fatal(err)
	}
}

func TestCompileSaysWhere(t *testing.T) {
	for _, c := range []struct {
		text string
		at   [2]int
		part string
	}{
		{`key ==`, [2]int{1, 7}, "Syntax error"},
		{"size > 3 &&\n  nothing", [2]int{2, 3}, "undeclared"},
		{`key`, [2]int{1, 1}, "type string"},
		{`key == 3`, [2]int{1, 5}, "no matching overload"},
		{`size > 1 && double(size) > 1.5`, [2]int{1, 19}, "floats"},
		{`{'a': 1}['a'] == 1`, [2]int{1, 1}, "maps"},
		{`{'a': 1, 'b': 2}.exists(k, k == key)`, [2]int{1, 1}, "maps"},
		{`timestamp('2020-01-01T00:00:00Z').getHours('Europe/Vienna') == 1`, [2]int{1, 10}, "times"},
		{`duration('1s') == duration('2s')`, [2]int{1, 9}, "times"},
		{`key.matches(string(new))`, [2]int{1, 12}, "pattern"},
		{`google.protobuf.BytesValue{value: b'a'} == new`, [2]int{1, 27}, "messages"},
		{`dyn(1.5) == 1`, [2]int{1, 5}, "floats"},
		{strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100), [2]int{}, "recursion"},
		{strings.Repeat("true || ", 1000) + "true", [2]int{1, 1}, "bytes"},
	} {
		_, err := rules.Compile(expr(c.text))
		var wrong *rules.CompileError
		if !errors.As(err, &wrong) {
			t.Errorf("%s: %v, want a CompileError", c.text, err)
			continue
		}
		if wrong.Rule != "mine" || c.at != [2]int{} && c.at != [2]int{wrong.Line, wrong.Column} || !strings.Contains(wrong.Error(), c.part) {
			t.Errorf("%.60s: %v, want %v and %q", c.text, wrong, c.at, c.part)
		}
	}
}

func TestLimitsOfPolicies(t *testing.T) {
	for _, r := range []rules.Rules{
		{Exprs: make([]rules.Expr, rules.ExprsMax+1)},
		{Writers: make([]string, rules.WritersMax+1)},
		{KeyBytesMax: -1},
		{ValueBytesMax: -1},
		{Exprs: []rules.Expr{{Text: "true"}}},
		{Exprs: []rules.Expr{{Name: "a\nb", Text: "true"}}},
	} {
		if _, err := rules.Compile(r); err == nil {
			t.Errorf("%.80v is compiled", r)
		}
	}
}

func TestWhatAJudgeWantsToKnow(t *testing.T) {
	for _, c := range []struct {
		rules                rules.Rules
		reads, deletes, asks bool
	}{
		{rules.Rules{KeyBytesMax: 1, ValueBytesMax: 1, TTLRequired: true}, false, false, false},
		{rules.Rules{CreateOnly: true}, true, false, false},
		{rules.Rules{AppendOnly: true}, true, true, false},
		{rules.Rules{Writers: []string{"a"}}, false, false, true},
		{rules.Rules{Signed: true}, false, false, true},
		{expr(`size < 3`), false, true, false},
		{expr(`[1].all(x, old == null)`), true, true, false},
		{expr(`user == ''`), false, true, true},
	} {
		j, err := rules.Compile(c.rules)
		if err != nil {
			t.Fatal(err)
		}
		if j.Reads() != c.reads || j.Deletes() != c.deletes || j.Asks() != c.asks {
			t.Errorf("%+v: reads %v deletes %v asks %v", c.rules, j.Reads(), j.Deletes(), j.Asks())
		}
	}
}

// FuzzCompile: whatever is compiled judges whatever it is shown, twice alike.
func FuzzCompile(f *testing.F) {
	for _, text := range []string{
		`key.startsWith('/s/')`, `old == null || string(new) > string(old)`, `size(new) < 10`, `deleted`,
		`[1,2,3].map(x, x * lease).exists(y, y == revision)`, `b'a' + new == old`, `key[0] == 'a'`, `new[3] == 1`,
		`string(new).matches('a+b')`, `type(old) == bytes`, `lease / revision > 1`, `{1:2}[1] == 2`, `1.5 < 2.0`, `has(new.a)`,
	} {
		f.Add(text, []byte("key"), []byte("old"), []byte("new"), int64(1), false)
	}
	f.Fuzz(func(t *testing.T, text string, key, old, value []byte, n int64, deleted bool) {
		j, err := rules.Compile(expr(text))
		if err != nil {
			var wrong *rules.CompileError
			if !errors.As(err, &wrong) || wrong.Line < 1 || wrong.Column < 1 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		w := &rules.Write{Key: key, New: value, Deleted: deleted, Lease: n, Old: rules.Version{Value: old, Revision: n}}
		first, second := j.Judge(w), j.Judge(w)
		switch {
		case (first == nil) != (second == nil):
			t.Fatalf("%q: %v, then %v", text, first, second)
		case first != nil && first.Error() != second.Error():
			t.Fatalf("%q: %v, then %v", text, first, second)
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	w := leased(over(put("/registry/secrets/default/token", strings.Repeat("v", 256)), strings.Repeat("v", 255)), 9)
	w.By.User = "root"
	for _, c := range []struct {
		name  string
		rules rules.Rules
	}{
		{"fixed", rules.Rules{AppendOnly: true, KeyBytesMax: 100, ValueBytesMax: 1000, Writers: []string{"root"}}},
		{"size", expr(`size <= 1024`)},
		{"prefix", expr(`key.startsWith('/registry/secrets/') && user == 'root'`)},
		{"grow", expr(`deleted || old == null || size(new) > size(old)`)},
		{"list", expr(`user in ['a', 'b', 'root'] || peer in ['x', 'y']`)},
		{"regexp", expr(`key.matches('^/registry/[a-z]+/[a-z0-9-]+/[a-z0-9.-]+$')`)},
		{"text", expr(`string(new).startsWith('v') && !string(new).contains('x')`)},
		{"exists", expr(`['/a/', '/b/', '/registry/'].exists(p, key.startsWith(p))`)},
	} {
		j, err := rules.Compile(c.rules)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := j.Judge(w); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	if !bytes.HasPrefix(w.New, w.Old.Value) {
		b.Fatal("the benchmark's write is no append")
	}
}
