package main

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

// asker is where and how a command asks.
type asker struct {
	endpoints []string
	keyFile   string
	timeout   time.Duration
	out       output
}

func (a *asker) bind(cmd *cobra.Command) {
	a.out = outputTable
	a.endpoints = []string{defaultEndpoint}
	if env := os.Getenv("ANCHORMESH_ENDPOINTS"); env != "" {
		a.endpoints = strings.Split(env, ",")
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&a.endpoints, "endpoints", a.endpoints, "nodes to ask, HOST:PORT or /ip4/.../tcp/.../p2p/... (also ANCHORMESH_ENDPOINTS)")
	fs.StringSliceVar(&a.endpoints, "endpoint", a.endpoints, "the same as --endpoints")
	fs.StringVar(&a.keyFile, "mesh-key-file", os.Getenv("ANCHORMESH_MESH_KEY_FILE"), "mesh key, needed for /p2p/ endpoints only")
	fs.DurationVar(&a.timeout, "timeout", 5*time.Second, "time for an answer")
	bindOutput(cmd, &a.out)
	if cmd.Args == nil {
		cmd.Args = noArgs
	}
}

// one asks one endpoint; do gets a client of it. The error names the endpoint.
func (a *asker) one(ctx context.Context, endpoint string, do func(context.Context, meshpb.MeshClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	conn, err := a.dial(ctx, endpoint)
	if err != nil {
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	defer conn.Close()
	if err := do(ctx, meshpb.NewMeshClient(conn)); err != nil {
		return fmt.Errorf("%s: %s", endpoint, plain(err))
	}
	return nil
}

// first asks the endpoints in turn until one answers.
func (a *asker) first(ctx context.Context, do func(context.Context, meshpb.MeshClient) error) error {
	var problems []error
	for _, endpoint := range a.endpoints {
		err := a.one(ctx, endpoint, do)
		if err == nil || errors.Is(err, errUsage) {
			return err
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// closer is a connection that can be asked.
type closer interface {
	grpc.ClientConnInterface
	Close() error
}

func (a *asker) dial(ctx context.Context, endpoint string) (closer, error) {
	if strings.HasPrefix(endpoint, "/") {
		return dialPeer(ctx, endpoint, a.keyFile)
	}
	addr, err := hostPort(endpoint)
	if err != nil {
		return nil, usage(err)
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

// plain is the sentence of a gRPC error without its wrapping.
func plain(err error) string {
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
func dialPeer(ctx context.Context, endpoint, keyFile string) (closer, error) {
	if keyFile == "" {
		return nil, usage(errKeyFileNeeded)
	}
	key, err := meshkey.Read(keyFile)
	if err != nil {
		return nil, usage(fmt.Errorf("--mesh-key-file: %w", err))
	}
	d := client.NewDialer(key, nil)
	if err := d.Validate(endpoint); err != nil {
		return nil, usage(err)
	}
	conn, err := connectPeer(ctx, d, endpoint)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return conn, nil
}

// connectPeer dials once itself: its error says why not, which gRPC would hide
// behind a time-out. gRPC's stream then shares the connection.
func connectPeer(ctx context.Context, d *client.Dialer, endpoint string) (closer, error) {
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
