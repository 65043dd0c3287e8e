package anchormesh

import "testing"

func TestHomeIsTheSegmentThatBeginsAtTheScopesPrefix(t *testing.T) {
	for _, c := range []struct {
		scope, start, end string
		home              bool
	}{
		{"", "", "", true},
		{"", "", "m", true},
		{"", "m", "", false},
		{"/a/", "/a/", "/a/k", true},
		{"/a/", "/a/k", "/a0", false},
	} {
		d := &Descriptor{Scope: []byte(c.scope), Line: []byte(c.scope), Range: KeyRange{Start: []byte(c.start), End: []byte(c.end)}}
		if got := d.Home(); got != c.home || d.LineHome() != got {
			t.Errorf("scope %q, range %v: home %v, want %v", c.scope, d.Range, got, c.home)
		}
	}
	if !(&Descriptor{}).Home() {
		t.Error("the segment that is the whole keyspace is not the root scope's home")
	}
}

func TestALineMayBeThatOfAScopeAround(t *testing.T) {
	d := &Descriptor{Scope: []byte("/a/"), Range: KeyRange{Start: []byte("/a/"), End: []byte("/a0")}}
	if !d.Home() || d.LineHome() {
		t.Errorf("home of its scope %v, of the root's line %v; want true, false", d.Home(), d.LineHome())
	}
}
