// Package netq delays and drops the packets that a network namespace receives and
// sends. It is for kernels without netem: iptables hands the packets to a queue
// (NFQUEUE), and a process in front of the queue lets each go when its time has
// come, in order, or never.
//
// Packets that find the queue full, or nobody in front of it, pass at once
// (--queue-bypass, fail-open), so that a dead tool harms nobody.
//
// It needs root, Linux and iptables. Protocol: linux/netfilter/nfnetlink_queue.h.
package netq
