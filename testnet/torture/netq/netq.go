//go:build linux

package netq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	queueNumber = 77
	queueMax    = 4096 // packets that wait at a time; more pass at once
	bufferBytes = 1 << 16
)

// Netfilter's numbers (linux/netfilter/nfnetlink*.h).
const (
	subsysQueue = 3
	msgPacket   = subsysQueue<<8 | 0
	msgVerdict  = subsysQueue<<8 | 1
	msgConfig   = subsysQueue<<8 | 2

	attrPacketHeader  = 1
	attrVerdictHeader = 2
	attrConfigCommand = 1
	attrConfigParams  = 2
	attrConfigMaxLen  = 3

	commandBind = 1
	copyMeta    = 1
	accept      = 1
	drop        = 0
)

// Quality is how bad a network is, for each packet.
type Quality struct {
	Delay   time.Duration
	Jitter  time.Duration // on top of Delay, 0 to Jitter
	Percent int           // lost
}

// Queue delays packets until Close.
type Queue struct {
	fd   int
	held chan packet
	stop chan struct{}
	wg   sync.WaitGroup
}

// packet is one that waits for its time.
type packet struct {
	id  uint32
	due time.Time
}

// Rules are the arguments of iptables that send what a namespace gets and sends,
// loopback aside, to the queue; replace -A by -D to take them away.
func Rules() [][]string {
	number := fmt.Sprint(queueNumber)
	return [][]string{
		{"-A", "INPUT", "!", "-i", "lo", "-j", "NFQUEUE", "--queue-num", number, "--queue-bypass"},
		{"-A", "OUTPUT", "!", "-o", "lo", "-j", "NFQUEUE", "--queue-num", number, "--queue-bypass"},
	}
}

// Open stands in front of the queue of the network namespace of process pid.
func Open(pid int, q Quality, seed uint64) (*Queue, error) {
	fd, err := socketIn(pid)
	if err != nil {
		return nil, fmt.Errorf("netq: namespace of process %d: %w", pid, err)
	}
	out := &Queue{fd: fd, held: make(chan packet, queueMax), stop: make(chan struct{})}
	if err := out.configure(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netq: configure the queue: %w", err)
	}
	out.wg.Go(func() { out.receive(q, rand.New(rand.NewPCG(seed, 1))) })
	out.wg.Go(out.release)
	return out, nil
}

// socketIn opens a netfilter socket in another network namespace. A socket stays in
// the namespace it was made in; the thread that went there is thrown away.
func socketIn(pid int) (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := -1, error(nil)
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		}
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		}
		done <- result{fd, err}
	}()
	r := <-done
	return r.fd, r.err
}

// attribute is one netlink attribute, padded.
func attribute(kind uint16, data []byte) []byte {
	b := make([]byte, 4, 4+len(data)+3)
	binary.NativeEndian.PutUint16(b, uint16(4+len(data)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// message is one netlink message to the queue.
func message(kind, flags uint16, attributes ...[]byte) []byte {
	b := make([]byte, 20)
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	binary.BigEndian.PutUint16(b[18:], queueNumber)
	for _, a := range attributes {
		b = append(b, a...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

func (q *Queue) send(b []byte) error {
	return unix.Sendto(q.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (q *Queue) configure() error {
	command := []byte{commandBind, 0, 0, 0}
	params := []byte{0, 0, 0, 0, copyMeta}
	for _, m := range [][]byte{
		message(msgConfig, unix.NLM_F_ACK, attribute(attrConfigCommand, command)),
		message(msgConfig, unix.NLM_F_ACK, attribute(attrConfigParams, params)),
		message(msgConfig, unix.NLM_F_ACK, attribute(attrConfigMaxLen, binary.BigEndian.AppendUint32(nil, queueMax))),
	} {
		if err := q.send(m); err != nil {
			return err
		}
		if err := q.acknowledged(); err != nil {
			return err
		}
	}
	// So that receive sees the stop soon.
	return unix.SetsockoptTimeval(q.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
}

// acknowledged reads the answer to one message of configure.
func (q *Queue) acknowledged() error {
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(q.fd, buf, 0)
	if err != nil {
		return err
	}
	if n < 20 || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
		return nil // a packet came first: the queue works
	}
	if code := int32(binary.NativeEndian.Uint32(buf[16:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// receive gives every packet its time, or its end.
func (q *Queue) receive(quality Quality, rng *rand.Rand) {
	defer close(q.held)
	buf := make([]byte, bufferBytes)
	for {
		select {
		case <-q.stop:
			return
		default:
		}
		n, _, err := unix.Recvfrom(q.fd, buf, 0)
		if errors.Is(err, unix.EBADF) {
			return
		}
		if err != nil {
			continue // nothing came in time, or the socket's buffer ran over
		}
		for _, id := range packets(buf[:n]) {
			if rng.IntN(100) < quality.Percent {
				q.verdict(id, drop)
				continue
			}
			wait := quality.Delay
			if quality.Jitter > 0 {
				wait += rand.N(quality.Jitter)
			}
			select {
			case q.held <- packet{id, time.Now().Add(wait)}:
			default:
				q.verdict(id, accept)
			}
		}
	}
}

// release lets packets go, in order.
func (q *Queue) release() {
	for p := range q.held {
		if wait := time.Until(p.due); wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-q.stop:
				timer.Stop()
			}
		}
		q.verdict(p.id, accept)
	}
}

func (q *Queue) verdict(id, what uint32) {
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, what), id)
	_ = q.send(message(msgVerdict, 0, attribute(attrVerdictHeader, header))) // the packet is lost otherwise, which is our trade
}

// packets returns the identifiers of the packets that a datagram of the kernel
// tells of. What it cannot read it passes over.
func packets(b []byte) []uint32 {
	var ids []uint32
	for len(b) >= 16 {
		size := int(binary.NativeEndian.Uint32(b))
		if size < 16 || size > len(b) {
			return ids
		}
		if binary.NativeEndian.Uint16(b[4:]) == msgPacket && size >= 20 {
			if id, ok := packetID(b[20:size]); ok {
				ids = append(ids, id)
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return ids
}

func packetID(attributes []byte) (uint32, bool) {
	for a := attributes; len(a) >= 4; {
		size := int(binary.NativeEndian.Uint16(a))
		if size < 4 || size > len(a) {
			return 0, false
		}
		if binary.NativeEndian.Uint16(a[2:])&0x3fff == attrPacketHeader && size >= 8 {
			return binary.BigEndian.Uint32(a[4:]), true
		}
		a = a[min(len(a), (size+3)&^3):]
	}
	return 0, false
}

// Close lets everything go that waits. Take the rules away first.
func (q *Queue) Close() {
	close(q.stop)
	q.wg.Wait()
	unix.Close(q.fd)
}
