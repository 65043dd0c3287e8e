package machine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/keeper"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// stateVersion is the first byte of an encoded State.
const stateVersion = 4

// Parts of an encoded State, which is
//
//	version byte | uvarint count of parts | parts, ascending: uvarint kind, uvarint length, bytes
//
// A part whose value is the zero one is left out. A kind that is not known here was
// written by a newer program: it is refused, for what it says would be lost.
const (
	partNumbers    = iota + 1 // uvarints: wanted anchors, line, window
	partDescriptor            // canonical
	partLeaving               // anchors of a descriptor, canonical
	partConf                  // raftpb.ConfState, deterministic
	partChain                 // package lineage
	partMerge                 // see encodeMerge
	partPolicy                // canonical JSON
	partScope                 // package scope
	partTrust                 // package trust

	partTurn = 26 // see Turn
	partSoft = 31 // uvarints: replicas, ascending

	partKeeper = 32 // package keeper
	partSeats  = 36 // uvarint: index
)

type part struct {
	kind  uint64
	bytes []byte
}

// Encode returns the stored form.
func (s *State) Encode() []byte {
	parts := s.parts()
	out := fields.AppendNumbers([]byte{stateVersion}, uint64(len(parts)))
	for _, p := range parts {
		out = fields.AppendBytes(fields.AppendNumbers(out, p.kind), p.bytes)
	}
	return bytes.Clone(out) // each of thousands of segments keeps it: without room to grow
}

// store writes a new state with an entry. Afterwards lineage and ledger, which are most
// of it, are kept once: as the stored bytes have them.
func (s *State) store(b *mvcc.Batch) {
	stored := s.Encode()
	b.SetState(stored)
	r := fields.Reader{Rest: stored[1:]}
	for range r.Number() {
		switch kind, body := r.Number(), r.Bytes(); kind {
		case partChain:
			s.Chain = s.Chain.In(body)
		case partTrust:
			s.Trust = s.Trust.In(body)
		}
	}
}

func (s *State) parts() []part {
	conf, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.Conf)
	if err != nil {
		panic("machine: configuration cannot be encoded: " + err.Error())
	}
	leaving := anchormesh.Descriptor{Anchors: s.Leaving}
	all := []part{
		{partNumbers, fields.AppendNumbers(nil, uint64(s.Want), s.Line, uint64(s.Window))},
		{partDescriptor, meshpb.EncodeDescriptor(s.Descriptor)},
		{partLeaving, meshpb.EncodeDescriptor(&leaving)},
		{partConf, conf},
		{partChain, s.Chain.Encode()},
		{partMerge, s.encodeMerge()},
		{partPolicy, scope.EncodePolicy(s.Policy)},
		{partTrust, s.Trust.Encode()},
		{partTurn, s.Turn.encode()},
		{partSoft, appendReplicas(nil, s.Soft)},
		{partKeeper, s.Keeper.Encode()},
		{partSeats, s.encodeSeats()},
	}
	if s.Scope != nil {
		all = slices.Insert(all, partScope-1, part{partScope, s.Scope.Encode()})
	}
	return slices.DeleteFunc(all, func(p part) bool { return len(p.bytes) == 0 })
}

// DecodeState reads what Encode wrote.
func DecodeState(b []byte) (*State, error) {
	if len(b) == 0 || b[0] != stateVersion {
		return nil, fmt.Errorf("%w: unknown version", ErrState)
	}
	r := reader{fields.Reader{Rest: b[1:]}}
	s := &State{Conf: &raftpb.ConfState{}}
	last := uint64(0)
	for range r.AtMost(math.MaxUint8) {
		kind, body := r.AtMost(math.MaxUint16), r.Bytes()
		if r.Bad || kind <= last {
			return nil, fmt.Errorf("%w: cut short, or its parts are out of order", ErrState)
		}
		last = kind
		if err := s.decodePart(kind, body); err != nil {
			return nil, fmt.Errorf("%w: part %d: %w", ErrState, kind, err)
		}
	}
	if r.end() != nil || s.Descriptor == nil || s.Chain == nil {
		return nil, fmt.Errorf("%w: cut short", ErrState)
	}
	return s, nil
}

func (s *State) decodePart(kind uint64, b []byte) (err error) {
	switch kind {
	case partNumbers:
		r := reader{fields.Reader{Rest: b}}
		s.Want, s.Line, s.Window = int(r.AtMost(1<<10)), r.AtMost(math.MaxUint64), anchormesh.Revision(r.AtMost(math.MaxInt64))
		return r.end()
	case partDescriptor:
		s.Descriptor, err = meshpb.DecodeDescriptor(b)
	case partLeaving:
		s.Leaving, err = decodeLeaving(b)
	case partConf:
		err = proto.Unmarshal(b, s.Conf)
	case partChain:
		s.Chain, err = lineage.DecodeChain(b)
	case partMerge:
		err = s.decodeMerge(b)
	case partPolicy:
		s.Policy, err = scope.DecodePolicy(b)
	case partScope:
		s.Scope, err = scope.Decode(b)
	case partTrust:
		s.Trust, err = trust.Decode(b)
	case partSoft:
		s.Soft, err = replicas(b)
	case partKeeper:
		s.Keeper, err = keeper.Decode(b)
	case partTurn:
		err = s.Turn.decode(b)
	case partSeats:
		r := reader{fields.Reader{Rest: b}}
		s.Seats = r.AtMost(math.MaxUint64)
		return r.end()
	default:
		err = fmt.Errorf("it was written by a newer program")
	}
	return err
}

func (s *State) encodeSeats() []byte {
	if s.Seats == 0 {
		return nil
	}
	return fields.AppendNumbers(nil, s.Seats)
}

func appendReplicas(b []byte, ids []anchormesh.ReplicaID) []byte {
	for _, id := range ids {
		b = binary.AppendUvarint(b, uint64(id))
	}
	return b
}

func replicas(b []byte) (out []anchormesh.ReplicaID, err error) {
	for r := (reader{fields.Reader{Rest: b}}); len(r.Rest) > 0; {
		id := anchormesh.ReplicaID(r.AtMost(math.MaxUint64))
		if r.Bad || len(out) > 0 && id <= out[len(out)-1] {
			return nil, ErrState
		}
		out = append(out, id)
	}
	return out, nil
}
