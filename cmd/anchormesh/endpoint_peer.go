package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/anchormesh/anchormesh/client"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

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
