package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

// handshakeTimeout is how long a connection may take to speak HTTP/2. One that
// never does would also keep Stop waiting.
const handshakeTimeout = 5 * time.Second

// Server serves the API on any number of listeners.
type Server struct {
	cfg     Config
	timeout time.Duration
	log     *slog.Logger
	checker checker
	codec   wireCodec

	requests    Requests
	watches     Watches
	leases      Leases
	cluster     Cluster
	maintenance Maintenance
	node        Node

	grpc     *grpc.Server
	health   *health.Server
	stopping context.Context // ends the long-lived streams
	stop     context.CancelFunc
}

// New makes a server; it serves nothing before Serve. Health answers
// NOT_SERVING until SetServing.
func New(cfg Config, b Backends) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if b.Requests == nil || b.Watches == nil || b.Leases == nil || b.Cluster == nil || b.Maintenance == nil || b.Node == nil {
		return nil, errors.New("etcdapi: a backend is missing")
	}
	s := &Server{
		cfg:         cfg,
		timeout:     cfg.requestTimeout(),
		log:         cfg.Logger,
		checker:     checker{maxRequestBytes: cfg.MaxRequestBytes, maxTxnOps: cfg.MaxTxnOps, minLeaseTTL: cfg.minLeaseTTL()},
		codec:       newWireCodec(),
		requests:    b.Requests,
		watches:     b.Watches,
		leases:      b.Leases,
		cluster:     b.Cluster,
		maintenance: b.Maintenance,
		node:        b.Node,
		health:      health.NewServer(),
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(s.options()...)
	for _, svc := range []service{
		s.kvService(), s.watchService(), s.leaseService(), s.clusterService(),
		s.maintenanceService(), s.authService(), electionService(), lockService(),
	} {
		s.grpc.RegisterService(svc.desc(cfg.Listener), s)
	}
	healthpb.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.SetServing(false)
	return s, nil
}

func (s *Server) options() []grpc.ServerOption {
	c := s.cfg
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(s.codec),
		grpc.MaxRecvMsgSize(c.MaxRequestBytes + overheadBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.MaxConcurrentStreams(c.MaxConcurrentStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: c.KeepAliveMinTime}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: c.KeepAliveInterval, Timeout: c.KeepAliveTimeout}),
		grpc.NumStreamWorkers(c.Tuning.StreamWorkers),
		grpc.WriteBufferSize(c.Tuning.WriteBufferBytes),
		grpc.ReadBufferSize(c.Tuning.ReadBufferBytes),
		// Once Stop has returned no handler touches the backends any more.
		grpc.WaitForHandlers(true),
	}
}

// RegisterService adds another gRPC service to the same listeners, before Serve.
// Its messages are protobuf.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
}

// SetServing changes what the gRPC health service answers.
func (s *Server) SetServing(serving bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		status = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", status)
}

// Serve accepts connections until Stop, which makes it return nil. It may run
// for several listeners; it closes them.
func (s *Server) Serve(l net.Listener) error {
	err := s.grpc.Serve(l)
	if err == nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("serving etcd's API on %s: %w", l.Addr(), err)
}

// Stop ends the streams, so that clients reconnect elsewhere, and lets requests
// finish until ctx ends; then it closes all connections. When it returns, no
// handler runs.
func (s *Server) Stop(ctx context.Context) {
	s.health.Shutdown()
	s.stop()
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.log.Warn("requests were still running when the time to stop was over")
		s.grpc.Stop()
		<-done
	}
}
