package etcdapi

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	ossignal "os/signal"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// The benchmark measures the CPU that a server process spends per request: the
// server is a child process whose rusage is read, so that the load does not
// count. Its backend answers at once. BENCH.md holds the figures.

const (
	benchServerEnv = "ETCDAPI_BENCH_SERVER" // variant,workers,write buffer,read buffer,µs a round takes
	benchValue     = 256
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(benchServerEnv); spec != "" {
		benchServer(spec)
		return
	}
	os.Exit(m.Run())
}

// instant answers every request with fixed bytes.
type instant struct {
	*stub
	put, get codec.Chunks

	every time.Duration // answers go out together this often, as after an fsync; 0: at once
	mu    sync.Mutex
	round chan struct{} // closed at the end of the round
}

// rounds ends a round at a time.
func (i *instant) rounds() {
	for range time.Tick(i.every) {
		i.mu.Lock()
		close(i.round)
		i.round = make(chan struct{})
		i.mu.Unlock()
	}
}

func newInstant() *instant {
	h := codec.Header{ClusterID: 1 << 60, MemberID: 1 << 61, Revision: 12345, RaftTerm: 3}
	kv := codec.KeyValue{Key: []byte("key"), Create: 1, Mod: 2, Version: 1, Value: make([]byte, benchValue)}
	get := codec.AppendHeader(nil, 1, h)
	get = codec.AppendRaw(get, 2, codec.AppendKeyValue(nil, &kv))
	return &instant{
		stub: &stub{led: true, leaseLed: true},
		put:  codec.Chunks{codec.AppendPutResponse(nil, h, nil)},
		get:  codec.Chunks{codec.AppendRangeTail(get, false, 1)},
	}
}

// wait waits for the end of the round.
func (i *instant) wait(ctx context.Context) error {
	if i.every == 0 {
		return nil
	}
	i.mu.Lock()
	round := i.round
	i.mu.Unlock()
	select {
	case <-round:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (i *instant) Do(ctx context.Context, c *Call) (codec.Chunks, error) {
	if err := i.wait(ctx); err != nil {
		return nil, err
	}
	if c.Method == MethodRange {
		return i.get, nil
	}
	return i.put, nil
}

// benchServer is the child: it prints its address and serves until it is told to
// end.
func benchServer(spec string) {
	f := strings.Split(spec, ",")
	number := func(i int) int {
		n, err := strconv.Atoi(f[i])
		if err != nil {
			panic(err)
		}
		return n
	}
	if path := os.Getenv("ETCDAPI_BENCH_PROFILE"); path != "" {
		out, err := os.Create(path)
		if err != nil {
			panic(err)
		}
		pprof.StartCPUProfile(out)
		defer pprof.StopCPUProfile()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	cfg := DefaultConfig()
	cfg.Tuning = Tuning{StreamWorkers: uint32(number(1)), WriteBufferBytes: number(2), ReadBufferBytes: number(3)}
	b := newInstant()
	if b.every = time.Duration(number(4)) * time.Microsecond; b.every > 0 {
		b.round = make(chan struct{})
		go b.rounds()
	}
	if f[0] == "generated" {
		s := grpc.NewServer(grpc.ChainUnaryInterceptor(etcdLikeLog, etcdLikeMetrics, etcdLikeMetadata),
			grpc.MaxRecvMsgSize(2<<20), grpc.NumStreamWorkers(uint32(number(1))))
		pb.RegisterKVServer(s, etcdLike{wait: b.wait})
		go s.Serve(l)
	} else {
		s, err := New(cfg, Backends{Requests: b, Watches: b, Leases: b, Cluster: b, Maintenance: b, Node: b})
		if err != nil {
			panic(err)
		}
		go s.Serve(l)
	}
	fmt.Fprintln(os.Stdout, l.Addr())
	end := make(chan os.Signal, 1)
	ossignal.Notify(end, syscall.SIGTERM)
	<-end
}

// etcdLike does what etcd's handlers do to a message around the same nothing:
// decode it, envelop it for the log, and encode the answer. etcd's tracing and
// real metrics come on top there.
type etcdLike struct {
	pb.UnimplementedKVServer
	wait func(context.Context) error
}

func (e etcdLike) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	if len(r.Key) == 0 {
		return nil, rpctypes.ErrGRPCEmptyKey
	}
	entry, err := proto.Marshal(&pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 1 << 63}, Put: r})
	if err != nil || len(entry) > 3<<19 {
		return nil, rpctypes.ErrGRPCRequestTooLarge
	}
	bounded, cancel := context.WithTimeout(ctx, 7*time.Second)
	defer cancel()
	if err := e.wait(bounded); err != nil {
		return nil, err
	}
	return &pb.PutResponse{Header: &pb.ResponseHeader{ClusterId: 1 << 60, MemberId: 1 << 61, Revision: 12345, RaftTerm: 3}}, nil
}

func (etcdLike) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	return &pb.RangeResponse{
		Header: &pb.ResponseHeader{ClusterId: 1 << 60, MemberId: 1 << 61, Revision: 12345, RaftTerm: 3},
		Kvs:    []*mvccpb.KeyValue{{Key: r.Key, CreateRevision: 1, ModRevision: 2, Version: 1, Value: make([]byte, benchValue)}},
		Count:  1,
	}, nil
}

var benchCounts sync.Map

func etcdLikeLog(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	start := time.Now()
	answer, err := handler(ctx, req)
	if time.Since(start) > time.Second {
		fmt.Fprintln(os.Stderr, "slow", info.FullMethod)
	}
	return answer, err
}

func etcdLikeMetrics(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	n, _ := benchCounts.LoadOrStore(info.FullMethod, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	return handler(ctx, req)
}

func etcdLikeMetadata(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get(rpctypes.MetadataClientAPIVersionKey); len(v) > 0 && !utf8.ValidString(v[0]) {
			return nil, rpctypes.ErrGRPCInvalidClientAPIVersion
		}
	}
	return handler(ctx, req)
}

// startBenchServer returns the child's address and a reading of its CPU time.
func startBenchServer(b *testing.B, spec string) (addr string, cpu func() time.Duration) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchServerEnv+"="+spec)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	addr, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(addr), func() time.Duration { return cpuOf(b, cmd.Process.Pid) }
}

// cpuOf sums the time on a processor of all threads, in nanoseconds; the ticks
// in /proc/pid/stat would be too coarse.
func cpuOf(b *testing.B, pid int) (sum time.Duration) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		b.Skip("needs /proc: ", err)
	}
	for _, t := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, t.Name()))
		if err != nil {
			continue // the thread has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

type benchLoad struct {
	conns, perConn int
}

func (l benchLoad) String() string { return fmt.Sprintf("conns=%d,inflight=%d", l.conns, l.perConn) }

// run sends b.N requests and reports the server's CPU per request.
func (l benchLoad) run(b *testing.B, spec, method string, request, answer func() proto.Message) {
	addr, cpu := startBenchServer(b, spec)
	var conns []*grpc.ClientConn
	for range l.conns {
		c, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), rpctypes.MetadataClientAPIVersionKey, Version)
	send := func(n int) {
		var left atomic.Int64
		left.Store(int64(n))
		var wg sync.WaitGroup
		for _, c := range conns {
			for range l.perConn {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if err := c.Invoke(ctx, method, request(), answer()); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
		}
		wg.Wait()
	}
	send(2000)
	before := cpu()
	b.ResetTimer()
	send(b.N)
	b.StopTimer()
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1000, "server-µs/op")
}

func putLoad() (func() proto.Message, func() proto.Message) {
	req := &pb.PutRequest{Key: []byte("/registry/pods/default/key-000001"), Value: make([]byte, benchValue)}
	return func() proto.Message { return req }, func() proto.Message { return new(pb.PutResponse) }
}

var benchLoads = []benchLoad{{1, 1}, {1, 64}, {64, 1}, {64, 8}}

var benchVariants = []string{"generated,0,32768,32768", "raw,16,32768,32768"}

func BenchmarkPut(b *testing.B) {
	for _, round := range []int{0, 1000} {
		for _, load := range benchLoads {
			for _, v := range benchVariants {
				b.Run(fmt.Sprintf("round=%dµs/%v/%s", round, load, v[:3]), func(b *testing.B) {
					req, answer := putLoad()
					load.run(b, fmt.Sprintf("%s,%d", v, round), pb.KV_Put_FullMethodName, req, answer)
				})
			}
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for _, load := range benchLoads {
		for _, v := range benchVariants {
			b.Run(fmt.Sprintf("%v/%s", load, v[:3]), func(b *testing.B) {
				req := &pb.RangeRequest{Key: []byte("/registry/pods/default/key-000001")}
				load.run(b, v+",0", pb.KV_Range_FullMethodName,
					func() proto.Message { return req }, func() proto.Message { return new(pb.RangeResponse) })
			})
		}
	}
}

// BenchmarkTuning compares gRPC's knobs, with answers at once and in rounds of a
// millisecond, as a log that syncs gives them.
func BenchmarkTuning(b *testing.B) {
	for _, round := range []int{0, 1000} {
		for _, knobs := range []string{"0,32768,32768", "16,32768,32768", "512,32768,32768", "0,131072,131072", "0,32768,131072", "0,131072,32768"} {
			for _, load := range benchLoads[1:] {
				b.Run(fmt.Sprintf("round=%dµs/%s/%v", round, knobs, load), func(b *testing.B) {
					req, answer := putLoad()
					load.run(b, fmt.Sprintf("raw,%s,%d", knobs, round), pb.KV_Put_FullMethodName, req, answer)
				})
			}
		}
	}
}
