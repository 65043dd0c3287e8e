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
		d := &Descriptor{Scope: []byte(c.scope), Range: KeyRange{Start: []byte(c.start), End: []byte(c.end)}}
		if got := d.Home(); got != c.home {
			t.Errorf("scope %q, range %v: home %v, want %v", c.scope, d.Range, got, c.home)
		}
	}
	if !(&Descriptor{}).Home() {
		t.Error("the segment that is the whole keyspace is not the root scope's home")
	}
}
