package differential

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Op is one call. Request decides which; revisions in it are relative.
type Op struct {
	Request     proto.Message
	RangeStream bool // send a RangeRequest with the RPC RangeStream
	Stream      int  // which watch stream a WatchRequest goes to
}

func (op Op) String() string {
	name := string(op.Request.ProtoReflect().Descriptor().Name())
	switch {
	case op.RangeStream:
		name = "RangeStream"
	case name == "WatchRequest":
		name = fmt.Sprintf("Watch[%d]", op.Stream)
	}
	return name + "{" + oneLine(op.Request) + "}"
}

func oneLine(m proto.Message) string {
	return prototext.MarshalOptions{Multiline: false, EmitUnknown: true}.Format(m)
}

const (
	// origin is the relative revision of the state a sequence begins with;
	// below it everything is compacted.
	origin = 10
	// relativeMax separates relative revisions from values that are sent as
	// they are (far future).
	relativeMax = 1 << 20
)

// revisionFields are the fields that hold revisions of the store, by message.
var revisionFields = map[protoreflect.Name][]protoreflect.Name{
	"RangeRequest":       {"revision", "min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"},
	"Compare":            {"create_revision", "mod_revision"},
	"CompactionRequest":  {"revision"},
	"HashKVRequest":      {"revision"},
	"WatchCreateRequest": {"start_revision"},
}

// bind returns the request with revisions as a server has them; absolute translates
// a relative one.
func bind(request proto.Message, absolute func(int64) int64) proto.Message {
	bound := proto.Clone(request)
	bindMessage(bound.ProtoReflect(), absolute)
	return bound
}

func bindMessage(m protoreflect.Message, absolute func(int64) int64) {
	for _, name := range revisionFields[m.Descriptor().Name()] {
		field := m.Descriptor().Fields().ByName(name)
		if rev := m.Get(field).Int(); m.Has(field) && rev > 0 && rev < relativeMax {
			m.Set(field, protoreflect.ValueOfInt64(absolute(rev)))
		}
	}
	eachMessage(m, func(inner protoreflect.Message) { bindMessage(inner, absolute) })
}

// createRequest returns the watch creation in op, or nil.
func (op Op) createRequest() *pb.WatchCreateRequest {
	if w, ok := op.Request.(*pb.WatchRequest); ok {
		return w.GetCreateRequest()
	}
	return nil
}

// races reports whether the answer to op, or later answers, would depend on
// which events were delivered before it.
func (op Op) races() bool {
	switch r := op.Request.(type) {
	case *pb.CompactionRequest:
		return true
	case *pb.WatchRequest:
		return r.GetCancelRequest() != nil
	}
	return false
}
