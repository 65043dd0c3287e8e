package quiet

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneLinePerSubjectAndMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		if !g.Allow("a") || !g.Allow("b") || g.Allow("a") {
			t.Fatal("the first line of a subject, and only it, passes")
		}
		time.Sleep(every - 1)
		if g.Allow("a") {
			t.Fatal("a second line within the minute passes")
		}
		time.Sleep(1)
		if !g.Allow("a") {
			t.Fatal("a minute later no line passes")
		}
	})
}

func TestSubjectsAreBounded(t *testing.T) {
	var g Gate
	for i := range 3 * subjectsMax {
		g.Allow(fmt.Sprint(i))
		if len(g.last) > subjectsMax {
			t.Fatalf("%d subjects are remembered", len(g.last))
		}
	}
}
