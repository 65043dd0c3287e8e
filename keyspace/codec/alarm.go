package codec

// AlarmAction is etcdserverpb.AlarmRequest_AlarmAction.
type AlarmAction int32

// Actions of an alarm request.
const (
	AlarmGet AlarmAction = iota
	AlarmActivate
	AlarmDeactivate
)

// AlarmType is etcdserverpb.AlarmType.
type AlarmType int32

// Kinds of alarms. AlarmNone asks for all kinds.
const (
	AlarmNone AlarmType = iota
	AlarmNoSpace
	AlarmCorrupt
)

// AlarmRequest is etcdserverpb.AlarmRequest.
type AlarmRequest struct {
	Action   AlarmAction
	MemberID uint64
	Alarm    AlarmType
}

// AlarmMember is etcdserverpb.AlarmMember: one alarm raised by one node.
type AlarmMember struct {
	MemberID uint64
	Alarm    AlarmType
}

// ParseAlarm reads an AlarmRequest; the error is ErrMalformed.
func ParseAlarm(b []byte, r *AlarmRequest) error {
	*r = AlarmRequest{}
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | varint:
			r.Action = AlarmAction(int32(f.v))
		case 2<<3 | varint:
			r.MemberID = f.v
		case 3<<3 | varint:
			r.Alarm = AlarmType(int32(f.v))
		}
	}
	return f.end()
}

// AppendAlarm encodes r.
func AppendAlarm(dst []byte, r AlarmRequest) []byte {
	dst = appendInt(dst, 1, int64(r.Action))
	dst = appendUint(dst, 2, r.MemberID)
	return appendInt(dst, 3, int64(r.Alarm))
}

// AppendAlarmResponse encodes the alarms concerned.
func AppendAlarmResponse(dst []byte, h Header, alarms []AlarmMember) []byte {
	dst = AppendHeader(dst, 1, h)
	for _, a := range alarms {
		var m int
		dst, m = beginMessage(dst, 2)
		dst = appendUint(dst, 1, a.MemberID)
		dst = appendInt(dst, 2, int64(a.Alarm))
		dst = endMessage(dst, m)
	}
	return dst
}
