package load

import (
	"context"
	"time"
)

// timetable says when a client sends its requests. The zero value is a closed
// loop: now, whenever the last one was answered.
//
// With a rate, request k of client i is due at start + (k*clients+i)/rate, and its
// latency counts from then: who is late because the last answer was late has
// waited all the same.
type timetable struct {
	due  time.Time
	step time.Duration
}

func (s *session) timetable(id int) timetable {
	if s.cfg.Rate == 0 {
		return timetable{}
	}
	gap := time.Second / time.Duration(s.cfg.Rate)
	return timetable{due: s.began.Add(time.Duration(id) * gap), step: gap * time.Duration(s.cfg.Clients)}
}

// next waits until the next request is due and returns the time its latency
// counts from.
func (t *timetable) next(ctx context.Context) (time.Time, error) {
	if t.step == 0 {
		return time.Now(), nil
	}
	due := t.due
	t.due = due.Add(t.step)
	if wait := time.Until(due); wait > 0 {
		return due, pause(ctx, wait)
	}
	return due, ctx.Err()
}
