package etcdapi

import (
	"context"
	"time"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
)

// unaryFunc answers one request; dec reads it.
type unaryFunc func(ctx context.Context, dec func(any) error) (any, error)

// service is what this package does about one gRPC service. A method or stream
// of the service that stands in none of the maps answers Unimplemented with the
// sentence in missing, so that nothing of etcd's API is ever an unknown method.
type service struct {
	name    string
	methods []string
	streams []grpc.StreamDesc // names and directions
	unary   map[string]unaryFunc
	stream  map[string]grpc.StreamHandler
	missing map[string]string // by method, "" is for all others
	file    any               // for reflection
}

// from takes names and directions from a generated description.
func (s service) from(d *grpc.ServiceDesc) service {
	s.name, s.file = d.ServiceName, d.Metadata
	for _, m := range d.Methods {
		s.methods = append(s.methods, m.MethodName)
	}
	for _, st := range d.Streams {
		s.streams = append(s.streams, grpc.StreamDesc{
			StreamName: st.StreamName, ServerStreams: st.ServerStreams, ClientStreams: st.ClientStreams,
		})
	}
	return s
}

// desc builds the description that gRPC serves.
func (s service) desc(l Listener) *grpc.ServiceDesc {
	d := &grpc.ServiceDesc{ServiceName: s.name, HandlerType: (*any)(nil), Metadata: s.file}
	for _, name := range s.methods {
		fn, ok := s.unary[name]
		if !ok {
			fn = s.refuse(name)
		}
		d.Methods = append(d.Methods, grpc.MethodDesc{MethodName: name, Handler: measured("/"+s.name+"/"+name, fn, l)})
	}
	for _, st := range s.streams {
		fn, ok := s.stream[st.StreamName]
		if !ok {
			err := s.sentence(st.StreamName)
			fn = func(any, grpc.ServerStream) error { return err }
		}
		st.Handler = measuredStream("/"+s.name+"/"+st.StreamName, fn, l)
		d.Streams = append(d.Streams, st)
	}
	return d
}

func (s service) sentence(method string) error {
	text, ok := s.missing[method]
	if !ok {
		text = s.missing[""]
	}
	if text == "" {
		text = "AnchorMesh does not have " + s.name + "." + method + " yet."
	}
	return status.Error(codes.Unimplemented, text)
}

func (s service) refuse(method string) unaryFunc {
	err := s.sentence(method)
	return func(context.Context, func(any) error) (any, error) { return nil, err }
}

// measured turns fn into gRPC's form and tells the listener. gRPC's
// interceptors are not used: they cost a closure and an info struct per request.
func measured(method string, fn unaryFunc, l Listener) grpc.MethodHandler {
	if l.Request == nil {
		return func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			return fn(ctx, dec)
		}
	}
	return func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		start := time.Now()
		answer, err := fn(ctx, dec)
		l.Request(method, status.Code(err), time.Since(start))
		return answer, err
	}
}

func measuredStream(method string, fn grpc.StreamHandler, l Listener) grpc.StreamHandler {
	if l.StreamOpened == nil && l.StreamClosed == nil {
		return fn
	}
	return func(srv any, stream grpc.ServerStream) error {
		if l.StreamOpened != nil {
			l.StreamOpened(method)
		}
		err := fn(srv, stream)
		if l.StreamClosed != nil {
			l.StreamClosed(method, status.Code(err))
		}
		return err
	}
}

// typed makes a method out of a function over generated messages.
func typed[Req any, Answer proto.Message, P interface {
	*Req
	proto.Message
}](s *Server, fn func(context.Context, P) (Answer, error)) unaryFunc {
	return func(ctx context.Context, dec func(any) error) (any, error) {
		req := P(new(Req))
		if err := dec(req); err != nil {
			return nil, err
		}
		if err := s.admit(ctx, func() bool { return s.node.KeysLed(anchormesh.KeyRange{}) }); err != nil {
			return nil, err
		}
		bounded, cancel := s.bound(ctx)
		defer cancel()
		answer, err := fn(bounded, req)
		if err != nil {
			return nil, toWire(settle(ctx, false, err))
		}
		return answer, nil
	}
}

// admit looks at the metadata as etcd does: a client version that is no text is
// refused, and a client that insists on a leader is refused without one.
func (s *Server) admit(ctx context.Context, led func() bool) error {
	if v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataClientAPIVersionKey); len(v) > 0 && !utf8.ValidString(v[0]) {
		return rpctypes.ErrGRPCInvalidClientAPIVersion
	}
	if requiresLeader(ctx) && !led() {
		return rpctypes.ErrGRPCNoLeader
	}
	return nil
}

func requiresLeader(ctx context.Context) bool {
	v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey)
	return len(v) > 0 && v[0] == rpctypes.MetadataHasLeader
}
