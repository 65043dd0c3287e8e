package keyspace

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// alarmBucket is the segment's side table of alarms; see the package comment.
const alarmBucket = "alarm"

// alarmTable holds the alarms that stand, by type and member.
type alarmTable []codec.AlarmMember

func compareAlarms(a, b codec.AlarmMember) int {
	return cmp.Or(cmp.Compare(a.Alarm, b.Alarm), cmp.Compare(a.MemberID, b.MemberID))
}

// noSpace reports whether anybody ran out of space.
func (t alarmTable) noSpace() bool { return t.stands(codec.AlarmNoSpace) }

// corrupt reports whether anybody found the data damaged.
func (t alarmTable) corrupt() bool { return t.stands(codec.AlarmCorrupt) }

func (t alarmTable) stands(kind codec.AlarmType) bool {
	for _, a := range t {
		if a.Alarm == kind {
			return true
		}
	}
	return false
}

// of returns the alarms of a kind; AlarmNone is all.
func (t alarmTable) of(kind codec.AlarmType) []codec.AlarmMember {
	var out []codec.AlarmMember
	for _, a := range t {
		if kind == codec.AlarmNone || a.Alarm == kind {
			out = append(out, a)
		}
	}
	return out
}

func (t *alarmTable) load(seg *mvcc.Segment) (err error) {
	seg.ForEachAux(alarmBucket, func(k, _ []byte) {
		if len(k) != 12 {
			err = fmt.Errorf("stored alarm %x cannot be read: restore this replica from another", k)
			return
		}
		*t = append(*t, codec.AlarmMember{
			Alarm:    codec.AlarmType(binary.BigEndian.Uint32(k)),
			MemberID: binary.BigEndian.Uint64(k[4:]),
		})
	})
	slices.SortFunc(*t, compareAlarms)
	return err
}

func alarmKey(m codec.AlarmMember) []byte {
	k := binary.BigEndian.AppendUint32(nil, uint32(m.Alarm))
	return binary.BigEndian.AppendUint64(k, m.MemberID)
}

func (a *applier) alarm(raw []byte) Outcome {
	var r codec.AlarmRequest
	if err := codec.ParseAlarm(raw, &r); err != nil {
		return Outcome{Err: err}
	}
	m := codec.AlarmMember{MemberID: r.MemberID, Alarm: r.Alarm}
	at, standing := slices.BinarySearchFunc(a.s.alarms, m, compareAlarms)
	var concerned []codec.AlarmMember
	switch {
	case r.Action == codec.AlarmGet:
		concerned = a.s.alarms.of(r.Alarm)
	case r.Action == codec.AlarmActivate && r.Alarm != codec.AlarmNone:
		if !standing {
			a.s.alarms = slices.Insert(a.s.alarms, at, m)
			a.b.PutAux(alarmBucket, alarmKey(m), nil)
		}
		concerned = []codec.AlarmMember{m}
	case r.Action == codec.AlarmDeactivate && standing:
		a.s.alarms = slices.Delete(a.s.alarms, at, at+1)
		a.b.DeleteAux(alarmBucket, alarmKey(m))
		concerned = []codec.AlarmMember{m}
	}
	start := a.begin()
	if a.want {
		a.buf = codec.AppendAlarmResponse(a.buf, a.header(a.shown()), concerned)
	}
	return a.answer(start)
}

// Alarms returns the alarms of a kind that stand, by type and member; AlarmNone
// asks for all.
func (s *Space) Alarms(kind codec.AlarmType) []codec.AlarmMember {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.alarms.of(kind)
}
