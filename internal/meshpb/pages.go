package meshpb

import (
	"bytes"
	"context"

	"google.golang.org/grpc"
)

// SegmentsPage is how many segments EachSegment asks for at a time: some hundred bytes
// each, of the 4 MiB that a gRPC client takes in one message.
const SegmentsPage = 1000

// EachSegment calls f with the segments that a node knows, in the order of their ranges,
// and returns the mesh. It asks for them in pages: what changes meanwhile may be seen as
// it was or as it is, and a segment that is cut between two pages with both its parts or
// without its left one's end. The errors are the client's and f's, which end it.
func EachSegment(ctx context.Context, c MeshClient, f func(*SegmentInfo) error, opts ...grpc.CallOption) (mesh uint64, err error) {
	for req := (&SegmentsRequest{Limit: SegmentsPage}); ; {
		reply, err := c.Segments(ctx, req, opts...)
		if err != nil {
			return 0, err
		}
		for _, s := range reply.GetSegments() {
			if err := f(s); err != nil {
				return 0, err
			}
		}
		if bytes.Compare(reply.GetNext(), req.GetStart()) <= 0 {
			return reply.GetMesh(), nil // the last page, or all of a node that knows no pages
		}
		req.Start = reply.GetNext()
	}
}
