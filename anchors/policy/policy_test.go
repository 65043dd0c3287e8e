package policy

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
)

// full is a valid policy in which no field is unset.
func full() *Policy {
	return &Policy{
		Class: anchormesh.Strong, Anchors: Anchors{Count: 5, Zones: 3, MinTrust: 10}, Acks: Acks{Count: 4},
		Approvals: Approvals{Threshold: Fraction{1, 2}},
		Amend:     Amend{Threshold: Fraction{3, 5}, Manual: true, ExpirySeconds: 60},
		Writes: Writes{
			CreateOnly: true, AppendOnly: true, KeyBytesMax: 128, ValueBytesMax: 1024, Writers: []string{"anna", "bert"}, Signed: true,
			Rules: []Rule{{"small", "size(new) < 10 && new != old"}, {"lease", "lease > 0"}},
		},
		Quota: Quota{Bytes: 1 << 30, Keys: 1000, RequestsPerSecond: 100}, Priority: 9,
		Structure: Structure{NoSplit: true, NoMerge: true, SplitWrites: 1, SplitReads: 2, SplitBytes: 3, SplitKeys: 4, DormantSeconds: 5},
		Retention: Retention{Seconds: 600, Writes: 10, OwnCompaction: true},
		Reads:     Reads{LeaderOnly: true}, Line: Own, Binding: []string{"anchors", "class"},
	}
}

func TestPresetsAreValidAndCanonical(t *testing.T) {
	for _, name := range Presets {
		p, ok := Preset(name)
		if !ok {
			t.Fatalf("no preset %s", name)
		}
		if err := p.Validate([]byte("/a/"), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		back, err := Decode(p.Encode())
		if err != nil || !reflect.DeepEqual(back, p) {
			t.Errorf("%s: %v: %+v came back as %+v", name, err, p, back)
		}
	}
	if _, ok := Preset("best"); ok {
		t.Error("there is no preset of that name")
	}
	if err := full().Validate([]byte("/a/"), nil); err != nil {
		t.Error(err)
	}
}

// The stored form is pinned: it stands in logs.
func TestEncoding(t *testing.T) {
	for want, p := range map[string]*Policy{
		`{"class":"normal","anchors":{"count":3}}`: Standard(),
		`{"class":"strong","anchors":{"count":5},"acks":{"count":4},"approvals":{"threshold":"1/2"},"amend":{"threshold":"3/5"},"priority":8,` +
			`"binding":["acks","amend.threshold","anchors.count","approvals.threshold","class"]}`: Critical(),
		`{"class":"strong","anchors":{"count":5,"zones":3,"min_trust":10},"acks":{"count":4},"approvals":{"threshold":"1/2"},` +
			`"amend":{"threshold":"3/5","manual":true,"expiry_seconds":60},` +
			`"writes":{"create_only":true,"append_only":true,"key_bytes_max":128,"value_bytes_max":1024,"writers":["anna","bert"],"signed":true,` +
			`"rules":[{"name":"small","expr":"size(new) < 10 && new != old"},{"name":"lease","expr":"lease > 0"}]},` +
			`"quota":{"bytes":1073741824,"keys":1000,"requests_per_second":100},"priority":9,` +
			`"structure":{"no_split":true,"no_merge":true,"split_writes_per_second":1,"split_reads_per_second":2,"split_bytes":3,"split_keys":4,"dormant_seconds":5},` +
			`"retention":{"seconds":600,"writes":10,"own_compaction":true},"reads":{"leader_only":true},"line":"own","binding":["anchors","class"]}`: full(),
	} {
		if got := string(p.Encode()); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if back, err := Decode([]byte(want)); err != nil || !reflect.DeepEqual(back, p) {
			t.Errorf("%s: %v, %+v", want, err, back)
		}
	}
}

func TestOneMeaningHasOneEncoding(t *testing.T) {
	a, b := full(), full()
	a.Priority, b.Priority = 0, DefaultPriority
	a.Amend.ExpirySeconds, b.Amend.ExpirySeconds = 0, DefaultExpirySeconds
	a.Line, b.Line = "", Shared
	b.Approvals.Threshold, b.Amend.Threshold = Fraction{2, 4}, Fraction{6, 10}
	b.Writes.Writers, b.Binding = []string{"bert", "anna", "bert"}, []string{"class", "anchors"}
	if !a.Equal(b) || a.Hash() != b.Hash() || len(Diff(a, b)) != 0 {
		t.Errorf("they mean the same:\n%s\n%s\n%v", a.Encode(), b.Encode(), Diff(a, b))
	}
	if b.Writes.Rules[0].Name = "tiny"; a.Equal(b) {
		t.Error("they do not")
	}
}

func TestWhatIsNotCanonicalIsRefused(t *testing.T) {
	for _, text := range []string{
		``, `null`, `[]`, `"x"`, `{}`, `{"class":"normal"}`, // the last two leave out what is never left out
		`{"class":"normal","anchors":{"count":3}} `, `{"class":"normal","anchors":{"count":3}}{}`,
		`{"anchors":{"count":3},"class":"normal"}`, `{"class":"normal","class":"normal","anchors":{"count":3}}`,
		`{"Class":"normal","anchors":{"count":3}}`, `{"class":0,"anchors":{"count":3}}`, `{"class":"soft","anchors":{"count":3}}`,
		`{"class":"normal","anchors":{"count":3},"priority":5}`, `{"class":"normal","anchors":{"count":3},"line":"shared"}`,
		`{"class":"normal","anchors":{"count":3},"amend":{"threshold":"2/4"}}`, `{"class":"normal","anchors":{"count":3},"colour":1}`,
		`{"class":"normal","anchors":{"count":3.0}}`, `{"class":"normal","anchors":{"count":3},"binding":["class","class"]}`,
		strings.Repeat(" ", BytesMax+1),
	} {
		if p, err := Decode([]byte(text)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %+v", text, err, p)
		}
	}
}

func TestValidate(t *testing.T) {
	refuses := Compile(func(r Rule) error {
		if strings.Contains(r.Expr, "(") {
			return errors.New("no parentheses,\nplease")
		}
		return nil
	})
	for _, c := range []struct {
		scope  string
		change func(*Policy)
		want   string // of the problems, joined; empty: valid
	}{
		{"/a/", func(*Policy) {}, ""},
		{"", func(*Policy) {}, ""},
		{"", func(p *Policy) { p.Class = anchormesh.Light }, "class: the root scope cannot be light: leases, and what is known of light scopes, are kept there"},
		{"/a/", func(p *Policy) { p.Class = 9 }, "class: want light, normal or strong"},
		{strings.Repeat("x", 1025), func(*Policy) {}, "prefix: 1025 bytes, at most 1024"},
		{"/a/", func(p *Policy) { p.Anchors.Count = 4 }, "anchors.count: 4, want 1, 3, 5 or 7"},
		{"/a/", func(p *Policy) { p.Anchors.Zones = 4 }, "anchors.zones: 3 anchors cannot be in 4 zones"},
		{"/a/", func(p *Policy) { p.Anchors.MinTrust = -1 }, "anchors.min_trust: -1 is negative"},
		{"/a/", func(p *Policy) { p.Acks.All = true }, "acks: a normal scope is etcd's contract; class strong has more"},
		{"/a/", func(p *Policy) { p.Class, p.Acks.All = anchormesh.Light, true }, "acks: a light scope acknowledges writes before the disks have them, and cannot have it; class strong can"},
		{"/a/", func(p *Policy) { p.Class, p.Approvals.Threshold = anchormesh.Light, Fraction{1, 2} }, "approvals.threshold: a light scope acknowledges writes before the disks have them, and cannot have it; class strong can"},
		{"/a/", func(p *Policy) { p.Class, p.Writes.Signed = anchormesh.Light, true }, "writes.signed: a light scope acknowledges writes before the disks have them, and cannot have it; class strong can"},
		{"/a/", func(p *Policy) { p.Writes.Signed = true }, ""},
		{"/a/", func(p *Policy) { p.Class = anchormesh.Strong }, "class: strong without acks and without approvals promises no more than normal: give one of them"},
		{"/a/", func(p *Policy) { strong(p); p.Reads.Lease = true }, "reads.lease: not offered: a leader that was paused, or whose group sleeps, cannot tell how old its majority's word is, and would answer with the past"},
		{"/a/", func(p *Policy) { strong(p); p.Acks.Count = 4 }, "acks: all and count exclude each other"},
		{"/a/", func(p *Policy) { strong(p); p.Acks = Acks{Count: 4} }, "acks.count: 4 acks of 3 anchors can never arrive"},
		{"/a/", func(p *Policy) { strong(p); p.Acks = Acks{Count: 1} }, "acks.count: every write waits for a majority, 2 of 3 anchors, already: want that or more"},
		{"/a/", func(p *Policy) { strong(p); p.Acks = Acks{Count: -1} }, "acks.count: -1 is negative"},
		{"/a/", func(p *Policy) { strong(p); p.Approvals.Threshold = Fraction{3, 4} }, "approvals.threshold: 3/4 cannot be reached when 1 of 3 anchors are missing, which the scope must survive: at most 2/3"},
		{"/a/", func(p *Policy) { strong(p); p.Approvals.Threshold = Fraction{1, 3} }, "approvals.threshold: 1/3 would let 1 of 3 anchors decide alone: more than 1/3"},
		{"/a/", func(p *Policy) { strong(p); p.Approvals.Threshold = Fraction{0, 3} }, "approvals.threshold: 0/3, want a fraction above 0, at most 1, of at most 1000 parts"},
		{"/a/", func(p *Policy) { p.Anchors.Count = 5; p.Amend.Threshold = Fraction{2, 3} }, "amend.threshold: 2/3 cannot be reached when 2 of 5 anchors are missing, which the scope must survive: at most 3/5"},
		{"/a/", func(p *Policy) { p.Anchors.Count = 5; p.Amend.Threshold = Fraction{3, 5} }, ""},
		{"/a/", func(p *Policy) { p.Anchors.Count = 1; p.Amend.Threshold = Fraction{1, 1} }, ""},
		{"/a/", func(p *Policy) { p.Amend.Threshold = Fraction{1, 1001} }, "amend.threshold: 1/1001, want a fraction above 0, at most 1, of at most 1000 parts"},
		{"/a/", func(p *Policy) { p.Amend.ExpirySeconds = 1 }, "amend.expiry_seconds: 1, want 10 to 2592000"},
		{"/a/", func(p *Policy) { p.Quota.Bytes, p.Quota.Keys = -1, -2 }, "quota.bytes: -1 is negative\nquota.keys: -2 is negative"},
		{"/a/", func(p *Policy) { p.Priority = 10 }, "priority: 10, want 0 to 9"},
		{"/a/", func(p *Policy) { p.Retention.Seconds = 1 << 40 }, "retention.seconds: 1099511627776, want 0 to 315360000"},
		{"/a/", func(p *Policy) { p.Writes.AppendOnly, p.Writes.TTLRequired = true, true }, "writes.append_only: nothing would ever be deleted, but writes.ttl_required has every key deleted when its lease ends"},
		{"/a/", func(p *Policy) { p.Writes.Writers = []string{"a", "\xff"} }, `writes.writers: "\xff" is no name of 1 to 128 bytes`},
		{"/a/", func(p *Policy) { p.Writes.Writers = make([]string, 65) }, "writes.writers: 65, at most 64\nwrites.writers: \"\" is no name of 1 to 128 bytes"},
		{"/a/", func(p *Policy) { p.Writes.Rules = []Rule{{"A b", "true"}} }, `writes.rules[0].name: "A b", want 1 to 64 of a-z, 0-9, - and _`},
		{"/a/", func(p *Policy) { p.Writes.Rules = []Rule{{"a", "true"}, {"a", "1"}} }, `writes.rules[1].name: "a" stands twice`},
		{"/a/", func(p *Policy) { p.Writes.Rules = []Rule{{"a", " "}} }, `writes.rules[0].expr: rule "a" has no expression`},
		{"/a/", func(p *Policy) { p.Writes.Rules = []Rule{{"a", "f()"}} }, `writes.rules[0].expr: rule "a" does not compile: no parentheses, please`},
		{"/a/", func(p *Policy) { p.Writes.Rules = []Rule{{"a", strings.Repeat("1", 2049)}} }, `writes.rules[0].expr: rule "a" is 2049 bytes long, at most 2048`},
		{"/a/", func(p *Policy) { p.Writes.Rules = make([]Rule, 33) }, `writes.rules: 33, at most 32`},
		{"/a/", func(p *Policy) { p.Line = "mine" }, `line: "mine", want shared or own`},
		{"", func(p *Policy) { p.Line = Own }, `line: the root scope's line is its own already: leave it out`},
		{"/a/", func(p *Policy) { p.Binding = []string{"class", "quota", "reads.lease"} }, ""},
		{"/a/", func(p *Policy) { p.Binding = []string{"line"} }, `binding: "line" is no field that can be bound: want some of ` + strings.Join(Bindable(), ", ")},
	} {
		p := Standard()
		c.change(p)
		got := ""
		if err := p.Validate([]byte(c.scope), refuses); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", p.Encode(), got, c.want)
		}
	}
}

func strong(p *Policy) { p.Class, p.Acks.All = anchormesh.Strong, true }

func TestALongPolicyIsRefused(t *testing.T) {
	p := Standard()
	for i := range RulesMax {
		p.Writes.Rules = append(p.Writes.Rules, Rule{strings.Repeat("a", i+1), strings.Repeat("\"", RuleBytesMax)})
	}
	if err := p.Validate([]byte("/a/"), nil); err == nil || !strings.Contains(err.Error(), "at most 16384") {
		t.Error(err)
	}
}

// Whatever field the type gets, comparisons must know it.
func TestEveryFieldIsCompared(t *testing.T) {
	var leaves []string
	var walk func(reflect.Type, string)
	walk = func(typ reflect.Type, at string) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := at + f.Tag.Get("yaml")
			if json, _, _ := strings.Cut(f.Tag.Get("json"), ","); at+json != name {
				t.Errorf("field %s is %q in JSON", name, json)
			}
			if f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[Fraction]() && f.Type != reflect.TypeFor[Acks]() {
				walk(f.Type, name+".")
				continue
			}
			leaves = append(leaves, name)
		}
	}
	walk(reflect.TypeFor[Policy](), "")
	var known []string
	for _, f := range fields {
		known = append(known, f.name)
	}
	if !slices.Equal(leaves, known) {
		t.Errorf("the type has\n%q\ncompared are\n%q", leaves, known)
	}
	if d := Diff(Standard(), full()); len(d) != len(fields)-2 { // ttl_required and lease are no in both
		t.Errorf("%d fields differ: %v", len(d), d)
	}
}

func TestReached(t *testing.T) {
	for _, c := range []struct {
		at          Fraction
		part, whole uint64
		want        bool
	}{
		{Fraction{}, 1, 2, false}, {Fraction{}, 2, 3, true}, {Fraction{}, 0, 0, false},
		{Fraction{1, 2}, 1, 2, true}, {Fraction{2, 3}, 2, 3, true}, {Fraction{2, 3}, 665, 1000, false},
		{Fraction{999, 1000}, 1 << 63, 1<<64 - 1, false}, {Fraction{1, 2}, 1 << 63, 1<<64 - 1, true},
	} {
		if got := c.at.Reached(c.part, c.whole); got != c.want {
			t.Errorf("%s of %d by %d: %v", c.at, c.whole, c.part, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, p := range []*Policy{Ephemeral(), Standard(), Critical(), full()} {
		f.Add(p.Encode())
	}
	f.Add([]byte(`{"class":"normal","anchors":{"count":3},"writes":{"rules":[{"name":"\ud800","expr":"\u003c"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			return
		}
		if string(p.Encode()) != string(b) || !json.Valid(b) {
			t.Fatalf("%q is not what is written: %q", b, p.Encode())
		}
		_ = p.Validate([]byte("/a/"), nil) // whatever was decoded can be judged
		if err := Weakens(p, p); err != nil {
			t.Fatalf("%s is laxer than itself: %v", b, err)
		}
		if d := Diff(p, p); d != nil {
			t.Fatalf("%s differs from itself: %v", b, d)
		}
	})
}
