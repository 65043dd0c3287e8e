package merger

import (
	"bytes"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/merge"
)

func FuzzParseQuestion(f *testing.F) {
	nodes := []anchormesh.NodeID{"a", "b"}
	q := question{kind: askJudge, number: 9, key: []byte("m"), attempt: merge.Attempt{Generation: 2, Number: 1}, pair: merge.Pair{
		Left: merge.Side{Segment: 9, Generation: 2, Changed: 7, Nodes: nodes}, Right: merge.Side{Segment: 11, Generation: 2, Changed: 5, Nodes: nodes},
	}}
	f.Add(q.encode())
	f.Add([]byte{askReady})
	f.Add([]byte{askOwner, 1, 200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := parseQuestion(b)
		if err != nil {
			return
		}
		again, err := parseQuestion(q.encode())
		if err != nil || !bytes.Equal(again.encode(), q.encode()) {
			t.Errorf("%+v became %+v, %v", q, again, err)
		}
	})
}
