package view

import (
	"cmp"
	"errors"
	"fmt"
	mathrand "math/rand"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/anchormesh/anchormesh"
)

var epoch0 = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// news is a record of few nodes with few epochs, so that they collide.
type news struct{ Record }

func (news) Generate(r *mathrand.Rand, _ int) reflect.Value {
	return reflect.ValueOf(randomNews(r.Uint64()))
}

func randomNews(seed uint64) news {
	r := rand.New(rand.NewPCG(seed, 0))
	rec := Record{
		ID:    anchormesh.NodeID(fmt.Sprint("n", r.IntN(3))),
		Epoch: r.Uint64N(4), Boot: r.Uint64N(2), Mesh: anchormesh.MeshID(r.Uint64N(3)), Left: r.IntN(5) == 0,
	}
	rec.Raw = fmt.Sprint(rec.ID, rec.Epoch, rec.Boot, rec.Mesh, rec.Left) // as signed bytes: all that is said
	return news{rec}
}

// held returns what a table holds of the records, not of the states.
func held(t *Table) map[anchormesh.NodeID]Record {
	out := make(map[anchormesh.NodeID]Record)
	for id, e := range t.entries {
		out[id] = e.rec
	}
	return out
}

func merged(records ...news) *Table {
	t := NewTable(1, DefaultLimits())
	for i, r := range records {
		t.Merge(epoch0.Add(time.Duration(i)*time.Second), r.Record)
	}
	return t
}

// TestMergeLaws: the result depends on the set of records heard, not on their
// order or how often they came.
func TestMergeLaws(t *testing.T) {
	law := func(records []news, seed uint64) bool {
		once := held(merged(records...))
		r := rand.New(rand.NewPCG(seed, 1))
		again := slices.Concat(records, records)
		r.Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
		if !reflect.DeepEqual(once, held(merged(again...))) {
			t.Logf("records %v, seed %d", records, seed)
			return false
		}
		// Merging what another table holds equals merging what it heard.
		cut := 0
		if len(records) > 0 {
			cut = r.IntN(len(records))
		}
		left, right := merged(records[:cut]...), merged(records[cut:]...)
		for _, rec := range held(right) {
			left.Merge(epoch0, rec)
		}
		return reflect.DeepEqual(once, held(left))
	}
	if err := quick.Check(law, &quick.Config{MaxCount: 2000}); err != nil {
		t.Fatal(err)
	}
}

// TestViewsAreSortedAndStay: a View does not change when the table does.
func TestViewsAreSortedAndStay(t *testing.T) {
	check := func(records []news) bool {
		table := NewTable(1, DefaultLimits())
		var views []View
		var copies [][]Member
		for i, r := range records {
			now := epoch0.Add(time.Duration(i) * time.Second)
			table.Merge(now, r.Record)
			table.Observe(now, r.ID, r.Boot, State(1+i%3))
			v := table.View()
			views, copies = append(views, v), append(copies, slices.Clone(v.Members()))
		}
		for i, v := range views {
			if !slices.IsSortedFunc(v.Members(), func(a, b Member) int { return cmp.Compare(a.ID, b.ID) }) ||
				!reflect.DeepEqual(v.Members(), copies[i]) && v.Len() > 0 {
				return false
			}
			for _, m := range v.Members() {
				if got, ok := v.Get(m.ID); !ok || got.ID != m.ID || m.Mesh > 1 {
					return false
				}
			}
		}
		return true
	}
	if err := quick.Check(check, nil); err != nil {
		t.Fatal(err)
	}
}

func TestLimits(t *testing.T) {
	if err := DefaultLimits().Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (Limits{}).Validate(); !errors.Is(err, ErrLimits) {
		t.Fatal(err)
	}
}

func TestNewKeepsTheLastOfAnID(t *testing.T) {
	v := New(3, Member{ID: "b", Epoch: 1}, Member{ID: "a"}, Member{ID: "b", Epoch: 2, State: Alive})
	if m, _ := v.Get("b"); v.Len() != 2 || m.Epoch != 2 || v.Version() != 3 || len(v.Alive()) != 1 || v.Members()[0].ID != "a" {
		t.Fatalf("%+v", v)
	}
	if _, ok := v.Get("c"); ok {
		t.Fatal("found a stranger")
	}
}

// TestScripts runs testdata. Time is in seconds after the start.
//
//	new mesh= members= keepgone= keepalien=
//	merge   lines: ID epoch= boot= mesh= [left] [raw=] [at=]
//	observe lines: ID boot= state [at=]
//	mesh id=
//	reap at=
//	coalesce quantum= quiescence=   lines: seconds of changes; prints when each View is due
func TestScripts(t *testing.T) {
	var table *Table
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "new":
				l := DefaultLimits()
				var mesh, gone, alien int
				for name, into := range map[string]*int{"mesh": &mesh, "members": &l.Members, "keepgone": &gone, "keepalien": &alien} {
					if d.HasArg(name) {
						d.ScanArgs(t, name, into)
					}
				}
				if gone > 0 {
					l.KeepGone = time.Duration(gone) * time.Second
				}
				if alien > 0 {
					l.KeepAlien = time.Duration(alien) * time.Second
				}
				table = NewTable(anchormesh.MeshID(mesh), l)
				return ""
			case "mesh":
				var mesh int
				d.ScanArgs(t, "id", &mesh)
				table.SetMesh(anchormesh.MeshID(mesh))
			case "reap":
				var at int
				d.ScanArgs(t, "at", &at)
				table.Reap(epoch0.Add(time.Duration(at) * time.Second))
			case "coalesce":
				return coalesceScript(t, d)
			default:
				return applyScript(t, table, d)
			}
			return show(table)
		})
	})
}

func applyScript(t *testing.T, table *Table, d *datadriven.TestData) string {
	var out strings.Builder
	for line := range strings.Lines(d.Input) {
		args := map[string]string{}
		fields := strings.Fields(line)
		for _, f := range fields[1:] {
			k, v, _ := strings.Cut(f, "=")
			args[k] = v
		}
		num := func(k string) uint64 {
			n, err := strconv.ParseUint(cmp.Or(args[k], "0"), 10, 64)
			if err != nil {
				d.Fatalf(t, "%s: %v", line, err)
			}
			return n
		}
		id, now := anchormesh.NodeID(fields[0]), epoch0.Add(time.Duration(num("at"))*time.Second)
		_, left := args["left"]
		changed := false
		if d.Cmd == "merge" {
			changed = table.Merge(now, Record{ID: id, Epoch: num("epoch"), Boot: num("boot"),
				Mesh: anchormesh.MeshID(num("mesh")), Left: left, Raw: args["raw"]})
		} else {
			state := Alive
			for s := range map[State]bool{Alive: true, Left: true, Dead: true} {
				if _, ok := args[s.String()]; ok {
					state = s
				}
			}
			changed = table.Observe(now, id, num("boot"), state)
		}
		if !changed {
			fmt.Fprintf(&out, "no news: %s\n", strings.TrimSpace(line))
		}
	}
	return out.String() + show(table)
}

func show(table *Table) string {
	var out strings.Builder
	for _, m := range table.View().Members() {
		fmt.Fprintf(&out, "%s epoch=%d boot=%d mesh=%d %v since=%d\n", m.ID, m.Epoch, m.Boot, uint64(m.Mesh), m.State, int(m.Since.Sub(epoch0).Seconds()))
	}
	c := table.Counts()
	fmt.Fprintf(&out, "merged=%d stale=%d refused=%d meshes=%d\n", c.Merged, c.Stale, c.Refused, len(table.Meshes()))
	return out.String()
}

func coalesceScript(t *testing.T, d *datadriven.TestData) string {
	var quantum, quiescence int
	d.ScanArgs(t, "quantum", &quantum)
	d.ScanArgs(t, "quiescence", &quiescence)
	c := Coalescer{Quantum: time.Duration(quantum) * time.Second, Quiescence: time.Duration(quiescence) * time.Second}
	var out strings.Builder
	flush := func(until time.Time) {
		if at, ok := c.Due(); ok && !at.After(until) {
			if c.Flush(at.Add(-1)) || !c.Flush(at) || c.Flush(at) {
				d.Fatalf(t, "a View is due at %v, neither before nor twice", at)
			}
			fmt.Fprintf(&out, "view at %d\n", int(at.Sub(epoch0).Seconds()))
		}
	}
	for _, f := range strings.Fields(d.Input) {
		n, err := strconv.Atoi(f)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		now := epoch0.Add(time.Duration(n) * time.Second)
		flush(now)
		c.Note(now)
	}
	flush(epoch0.Add(time.Hour))
	return out.String()
}
