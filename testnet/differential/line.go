package differential

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// line puts the numbers of a target that has a line of its own beside the revisions
// of the reference: its numbers grow with every write, but not by one, and one call
// may take several (a lease that ends in several segments). Calls come one after the
// other, so the numbers above those of one writing call, up to the last of the next, are
// that next one's; numbers that were only read at show what was there before.
type line struct {
	reference []int64 // ascending, without gap
	target    []int64 // the highest number of each
}

// begin forgets everything before a state that both servers have.
func (l *line) begin(reference, target int64) {
	l.reference, l.target = []int64{reference}, []int64{target}
}

// note says where both stand after a call.
func (l *line) note(reference, target int64) {
	last := len(l.reference) - 1
	if reference > l.reference[last] {
		l.reference, l.target = append(l.reference, reference), append(l.target, max(target, l.target[last]+1))
	}
}

func (l *line) last() (reference, target int64) {
	n := len(l.reference) - 1
	return l.reference[n], l.target[n]
}

// toReference translates what the target says. Numbers above all known ones show the
// newest state.
func (l *line) toReference(number int64) int64 {
	if number <= 0 {
		return number
	}
	i, _ := slices.BinarySearch(l.target, number)
	switch {
	case i == 0:
		return l.reference[0] - (l.target[0] - number)
	case i == len(l.target):
		return l.reference[i-1]
	}
	return l.reference[i]
}

// farAhead is the distance of one future revision to the next: a line may have given
// out numbers that nobody saw.
const farAhead = 1 << 32

// toTarget translates what the target is asked.
func (l *line) toTarget(revision int64) int64 {
	reference, target := l.last()
	switch {
	case revision > reference:
		return target + (revision-reference)*farAhead
	case revision <= l.reference[0]:
		return max(1, l.target[0]-(l.reference[0]-revision))
	}
	return l.target[revision-l.reference[0]]
}

// answeredFields are the fields of answers and events that hold revisions, by message.
var answeredFields = map[protoreflect.Name][]protoreflect.Name{
	"ResponseHeader": {"revision"},
	"KeyValue":       {"create_revision", "mod_revision"},
}

// translate puts the reference's revisions into what the target says.
func (l *line) translate(m protoreflect.Message) {
	for _, name := range answeredFields[m.Descriptor().Name()] {
		field := m.Descriptor().Fields().ByName(name)
		if m.Has(field) {
			m.Set(field, protoreflect.ValueOfInt64(l.toReference(m.Get(field).Int())))
		}
	}
	eachMessage(m, l.translate)
}

// eachMessage calls f for every message that m holds.
func eachMessage(m protoreflect.Message, f func(protoreflect.Message)) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Kind() != protoreflect.MessageKind:
		case field.IsList():
			for i := range v.List().Len() {
				f(v.List().Get(i).Message())
			}
		default:
			f(v.Message())
		}
		return true
	})
}

// bareHeaders takes the revisions out of the headers inside a transaction's answer. etcd counts
// in them while it applies; over several segments there is only the revision of the whole.
func bareHeaders(m protoreflect.Message) {
	if h, ok := m.Interface().(*pb.ResponseHeader); ok {
		h.Revision = 0
	}
	eachMessage(m, bareHeaders)
}

// header returns an answer's header, nil if it has none.
func (a answer) header() *pb.ResponseHeader {
	if a.err != nil {
		return nil
	}
	h, ok := a.message.(interface{ GetHeader() *pb.ResponseHeader })
	if !ok {
		return nil
	}
	return h.GetHeader()
}

// bothRefused reports whether both servers refused a transaction. Where there are several
// reasons, its segments look at the same time, and the first to find one has said it.
func bothRefused(op Op, a, b answer) bool {
	_, txn := op.Request.(*pb.TxnRequest)
	unavailable := status.Code(a.err) == codes.Unavailable || status.Code(b.err) == codes.Unavailable
	return txn && a.err != nil && b.err != nil && !unavailable
}

// mayBeBehind reports whether a call's header says where one replica of one segment stands.
func mayBeBehind(request proto.Message) bool {
	r, ok := request.(*pb.RangeRequest)
	return ok && r.Serializable
}

// ofLeases reports whether a call's header says where the leases' home stands, which is
// not where the line stands.
func ofLeases(request proto.Message) bool {
	switch request.(type) {
	case *pb.LeaseGrantRequest, *pb.LeaseRevokeRequest, *pb.LeaseKeepAliveRequest, *pb.LeaseTimeToLiveRequest, *pb.LeaseLeasesRequest:
		return true
	}
	return false
}

// leftOut reports whether a call means nothing on a line of the target's own: hashes cover
// the numbers themselves, and nobody knows which number a future revision will be.
func leftOut(op Op, l *line) bool {
	if _, hash := op.Request.(*pb.HashKVRequest); hash {
		return true
	}
	c := op.createRequest()
	last, _ := l.last()
	return c != nil && l.reference[0]+c.StartRevision-origin > last
}
