package keyspace

import (
	"context"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// benchBatch is how many commands a log entry holds in the benchmarks.
const benchBatch = 64

// benchApply applies entries of benchBatch commands, made by next, and reports
// nanoseconds per command.
func benchApply(b *testing.B, d *driver, next func(i int) []byte) {
	b.ReportAllocs()
	cmds := make([][]byte, benchBatch)
	i := 0
	for b.Loop() {
		b.StopTimer()
		for j := range cmds {
			cmds[j] = next(i)
			i++
		}
		if i%(1<<14) == 0 {
			d.commit()
		}
		b.StartTimer()
		d.index++
		for _, o := range d.space.Apply(d.index, 1, cmds, true) {
			if o.Err != nil {
				b.Fatal(o.Err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchBatch, "ns/cmd")
}

func benchKey(i int) []byte { return fmt.Appendf(nil, "/registry/pods/default/web-%06d", i) }

// filled returns a driver with n keys of 256 bytes, committed.
func filled(b *testing.B, n int) *driver {
	d := newDriver(b)
	value := make([]byte, 256)
	var cmds [][]byte
	for i := range n {
		cmds = append(cmds, command(OpPut, &pb.PutRequest{Key: benchKey(i), Value: value}))
		if len(cmds) == 1000 || i == n-1 {
			d.index++
			d.space.Apply(d.index, 1, cmds, false)
			cmds = cmds[:0]
		}
	}
	d.commit()
	return d
}

func BenchmarkApplyPut(b *testing.B) {
	d := filled(b, 10_000)
	value := make([]byte, 256)
	benchApply(b, d, func(i int) []byte {
		return command(OpPut, &pb.PutRequest{Key: benchKey(i * 7919 % 10_000), Value: value})
	})
}

func BenchmarkApplyPutPrevKV(b *testing.B) {
	d := filled(b, 10_000)
	value := make([]byte, 256)
	benchApply(b, d, func(i int) []byte {
		return command(OpPut, &pb.PutRequest{Key: benchKey(i * 7919 % 10_000), Value: value, PrevKv: true})
	})
}

func BenchmarkApplyPutNextToLeases(b *testing.B) {
	d := filled(b, 10_000)
	d.grant(1, 60)
	for i := range 1000 {
		d.put(fmt.Sprintf("/registry/events/%04d", i), "", 1)
	}
	value := make([]byte, 256)
	benchApply(b, d, func(i int) []byte {
		return command(OpPut, &pb.PutRequest{Key: benchKey(i * 7919 % 10_000), Value: value})
	})
}

// BenchmarkApplyKubernetesTxn is the API server's update: if the key is unchanged
// put, else get. Every other one fails.
func BenchmarkApplyKubernetesTxn(b *testing.B) {
	d := filled(b, 10_000)
	value := make([]byte, 256)
	seen := make([]int64, 10_000)
	for i := range seen {
		seen[i] = int64(i) + 2
	}
	rev, _ := d.space.Revision()
	benchApply(b, d, func(i int) []byte {
		k := i * 7919 % 10_000
		expect := seen[k]
		if i%2 == 1 {
			expect = 1
		} else {
			rev++
			seen[k] = rev
		}
		return command(OpTxn, &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: benchKey(k), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: expect}}},
			Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: benchKey(k), Value: value})},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: benchKey(k)}}}},
		})
	})
	if now, _ := d.space.Revision(); now != rev {
		b.Fatalf("revision %d, want %d: not every other transaction wrote", now, rev)
	}
}

func benchRange(b *testing.B, q codec.RangeRequest) {
	d := filled(b, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		c, err := d.space.Range(context.Background(), &q, 1)
		if err != nil || c.Size() == 0 {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) { benchRange(b, codec.RangeRequest{Key: benchKey(5000)}) }

func BenchmarkRange500(b *testing.B) {
	benchRange(b, codec.RangeRequest{Key: benchKey(0), RangeEnd: benchKey(500)})
}

// BenchmarkRange500Of10000 is a page of a Kubernetes list: the rest is counted.
func BenchmarkRange500Of10000(b *testing.B) {
	benchRange(b, codec.RangeRequest{Key: benchKey(0), RangeEnd: []byte{0}, Limit: 500})
}

func BenchmarkCount10000(b *testing.B) {
	benchRange(b, codec.RangeRequest{Key: benchKey(0), RangeEnd: []byte{0}, CountOnly: true})
}
