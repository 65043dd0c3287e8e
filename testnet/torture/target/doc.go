// Package target is what torture is done to: containers (testnet/compose) or local
// processes (testnet/cluster). Nodes are numbered from 0; n1 is node 0.
//
// A Target offers what the machine allows. What it does not is in Missing with the
// reason, so that a run can say plainly what it left out: a network of its own
// needs containers and root; delay and loss need netem or packet queues; disks that
// can be filled need root and loop devices.
//
// Every harm has its cure; cures may be called when there is nothing to cure. All of
// it stays inside the containers' network namespaces and our own directories.
package target
