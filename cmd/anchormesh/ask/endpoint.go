package ask

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh/client"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const defaultEndpoint = "127.0.0.1:2379"

// ErrUsage marks errors of the command line and the configuration.
var ErrUsage = errors.New("usage")

// Usage makes err one that says the command line is wrong; nil stays nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}

type usageError struct{ error }

func (e *usageError) Unwrap() []error { return []error{e.error, ErrUsage} }

// Asker is where and how a command asks.
type Asker struct {
	Endpoints []string
	Timeout   time.Duration // for one answer
	Out       Output
	keyFile   string
}

// Bind gives a command the flags. Its answers are tables and JSON, and in the forms
// named besides.
func (a *Asker) Bind(cmd *cobra.Command, also ...string) {
	a.Endpoints = []string{defaultEndpoint}
	if env := os.Getenv("ANCHORMESH_ENDPOINTS"); env != "" {
		a.Endpoints = strings.Split(env, ",")
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&a.Endpoints, "endpoints", a.Endpoints, "nodes to ask, HOST:PORT or /ip4/.../tcp/.../p2p/... (also ANCHORMESH_ENDPOINTS)")
	fs.StringSliceVar(&a.Endpoints, "endpoint", a.Endpoints, "the same as --endpoints")
	fs.StringVar(&a.keyFile, "mesh-key-file", os.Getenv("ANCHORMESH_MESH_KEY_FILE"), "mesh key, needed for /p2p/ endpoints only")
	fs.DurationVar(&a.Timeout, "timeout", 5*time.Second, "time for an answer")
	a.Out.Bind(cmd, also...)
	if cmd.Args == nil {
		cmd.Args = NoArgs
	}
}

// NoArgs wants no arguments.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return Usage(fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath()))
	}
	return Usage(fmt.Errorf("%s takes no argument, got %q", cmd.CommandPath(), args[0]))
}

// Exactly wants so many arguments, and names them.
func Exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return Usage(errors.New(what))
		}
		return nil
	}
}

// One asks one endpoint over a connection to it. The error names the endpoint.
func (a *Asker) One(ctx context.Context, endpoint string, do func(context.Context, grpc.ClientConnInterface) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	conn, err := a.Dial(ctx, endpoint)
	if err != nil {
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	defer conn.Close()
	if err := do(ctx, conn); err != nil {
		return &answerError{endpoint, err}
	}
	return nil
}

// First asks the endpoints in turn until one answers. A refusal is an answer: the
// next one would say the same.
func (a *Asker) First(ctx context.Context, do func(context.Context, grpc.ClientConnInterface) error) error {
	var problems []error
	for _, endpoint := range a.Endpoints {
		err := a.One(ctx, endpoint, do)
		if err == nil || errors.Is(err, ErrUsage) {
			return err
		}
		if problems = append(problems, err); refusal(err) {
			break
		}
	}
	return errors.Join(problems...)
}

// Mesh is First with a client of service Mesh.
func (a *Asker) Mesh(ctx context.Context, do func(context.Context, meshpb.MeshClient) error) error {
	return a.First(ctx, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		return do(ctx, meshpb.NewMeshClient(conn))
	})
}

// Scopes is First with a client of service Scopes.
func (a *Asker) Scopes(ctx context.Context, do func(context.Context, meshpb.ScopesClient) error) error {
	return a.First(ctx, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		return do(ctx, meshpb.NewScopesClient(conn))
	})
}

// answerError is a node's own error.
type answerError struct {
	endpoint string
	err      error
}

// Error names the endpoint on each line.
func (e *answerError) Error() string {
	text := Plain(e.err)
	return e.endpoint + ": " + strings.ReplaceAll(text, "\n", "\n"+e.endpoint+": ")
}

func (e *answerError) Unwrap() error { return e.err }

// refusal reports whether any other node would say the same.
func refusal(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.AlreadyExists, codes.FailedPrecondition, codes.Aborted, codes.Unknown:
		var answer *answerError
		return errors.As(err, &answer)
	}
	return false
}

// Conn is a connection that can be asked.
type Conn interface {
	grpc.ClientConnInterface
	Close() error
}

// Dial connects to an endpoint.
func (a *Asker) Dial(ctx context.Context, endpoint string) (Conn, error) {
	if strings.HasPrefix(endpoint, "/") {
		return dialPeer(ctx, endpoint, a.keyFile)
	}
	addr, err := hostPort(endpoint)
	if err != nil {
		return nil, Usage(err)
	}
	// gRPC wraps a refused connection three times; a plain dial says it once.
	probe, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	probe.Close()
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// hostPort accepts what etcdctl accepts: HOST:PORT or http://HOST:PORT.
func hostPort(endpoint string) (string, error) {
	addr := strings.TrimPrefix(endpoint, "http://")
	if strings.HasPrefix(addr, "https://") {
		return "", errors.New("TLS to a client address is not served yet; use http:// or a /p2p/ address")
	}
	if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
		return "", errors.New("an endpoint is HOST:PORT or /ip4/ADDRESS/tcp/PORT/p2p/PEER-ID")
	}
	return addr, nil
}

// Plain is the sentence of a gRPC error without its wrapping.
func Plain(err error) string {
	s, ok := status.FromError(err)
	switch {
	case !ok:
		return err.Error()
	case s.Code() == codes.Unimplemented:
		return "this is no AnchorMesh node: " + s.Message()
	case s.Code() == codes.DeadlineExceeded:
		return "no answer in time"
	}
	return s.Message()
}

// errKeyFileNeeded: a libp2p endpoint was given without the mesh key.
var errKeyFileNeeded = errors.New("a /p2p/ endpoint needs the mesh key: give its file with --mesh-key-file")

// peerConn is a gRPC connection over libp2p, with what is under it.
type peerConn struct {
	*grpc.ClientConn
	dialer *client.Dialer
}

func (c peerConn) Close() error { return errors.Join(c.ClientConn.Close(), c.dialer.Close()) }

// dialPeer connects to a node by its libp2p address, through package client.
func dialPeer(ctx context.Context, endpoint, keyFile string) (Conn, error) {
	if keyFile == "" {
		return nil, Usage(errKeyFileNeeded)
	}
	key, err := meshkey.Read(keyFile)
	if err != nil {
		return nil, Usage(fmt.Errorf("--mesh-key-file: %w", err))
	}
	d := client.NewDialer(key, nil)
	if err := d.Validate(endpoint); err != nil {
		return nil, Usage(err)
	}
	conn, err := connectPeer(ctx, d, endpoint)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return conn, nil
}

// connectPeer dials once itself: its error says why not, which gRPC would hide
// behind a time-out. gRPC's stream then shares the connection.
func connectPeer(ctx context.Context, d *client.Dialer, endpoint string) (Conn, error) {
	probe, err := d.DialContext(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	defer probe.Close()
	conn, err := grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithContextDialer(d.DialContext), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return peerConn{conn, d}, nil
}
