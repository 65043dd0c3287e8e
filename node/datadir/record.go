package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

// format of node.json; a newer one is refused.
const format = 2

// recordBytesMax bounds node.json: a segment that left costs about 50 bytes.
const recordBytesMax = 16 << 20

// Record is what a node knows about itself outside of any segment.
type Record struct {
	// Mesh is zero until the node belongs to one.
	Mesh anchormesh.MeshID
	// Node is who this directory belongs to; empty until it is known.
	Node anchormesh.NodeID
	// Genesis is the segment this node created with the mesh, if it did.
	Genesis anchormesh.SegmentID
	// Founded: that segment was created. It is not created again, whatever became of the
	// replica here.
	Founded bool
	// Retired holds, per segment, the highest replica ID that this node gave
	// up. It must not come back: it has forgotten its votes.
	Retired map[anchormesh.SegmentID]anchormesh.ReplicaID
	// Dropping names the segments whose log and state here are those of a retired replica,
	// and are to go. What is here of the others is of a replica that was not retired.
	Dropping map[anchormesh.SegmentID]bool
	// Leaving: the node is being drained, and takes no replica.
	Leaving bool
	// Installed holds, per segment held here, the log index of the snapshot that
	// its state came as. What lies at or below it this node did not apply itself.
	Installed map[anchormesh.SegmentID]uint64
	// Frozen holds the replicas here that another segment may have absorbed: a log of
	// theirs without a state is no loss.
	Frozen map[anchormesh.SegmentID]anchormesh.ReplicaID
	// Boot is the run of the machine that the node was last started in; empty: not known.
	Boot string
	// Forgotten holds, per segment, the replica here that may have forgotten what it
	// acknowledged from memory, because the machine stopped; 0: whichever it is that the
	// segment names on this node. It must not vote or acknowledge any more.
	Forgotten map[anchormesh.SegmentID]anchormesh.ReplicaID
	// Keepers holds, per segment whose replica here is forgotten, the segment that it was
	// reported to: no other one may hear of it.
	Keepers map[anchormesh.SegmentID]anchormesh.SegmentID
	// Scopes are the prefixes of the scopes whose store files this directory
	// must hold: one that is gone took acknowledged writes with it.
	Scopes []string
}

// stored is the JSON form of a Record.
type stored struct {
	Format  int               `json:"format"`
	Mesh    string            `json:"mesh,omitempty"`
	Node    string            `json:"node,omitempty"`
	Genesis string            `json:"genesis_segment,omitempty"`
	Founded bool              `json:"founded,omitempty"`
	Leaving bool              `json:"leaving,omitempty"`
	Scopes  []string          `json:"stores,omitempty"` // names without .db
	Retired map[string]uint64 `json:"retired_replicas,omitempty"`
	Snaps   map[string]uint64 `json:"installed_at,omitempty"`
	Frozen  map[string]uint64 `json:"frozen_replicas,omitempty"`
	Boot    string            `json:"boot,omitempty"`
	Forgot  map[string]uint64 `json:"forgotten_replicas,omitempty"`
	Keepers map[string]string `json:"reported_to,omitempty"`
	Drops   []string          `json:"dropping,omitempty"` // ascending
	Sum     string            `json:"sum,omitempty"`      // of all the others: see encode
}

// summed returns the record with its checksum, the CRC-32C of its text without one. What a
// changed bit makes of a name or a number is JSON all the same, and a node that forgot what
// it gave up would vote again.
func (s stored) summed() (stored, error) {
	s.Sum = ""
	text, err := json.Marshal(&s)
	s.Sum = fmt.Sprintf("%08x", crc32.Checksum(text, castagnoli))
	return s, err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record returns a copy of the record.
func (d *Dir) Record() Record {
	r := d.record
	r.Scopes = slices.Clone(r.Scopes)
	r.Retired = make(map[anchormesh.SegmentID]anchormesh.ReplicaID, len(d.record.Retired))
	maps.Copy(r.Retired, d.record.Retired)
	r.Installed = make(map[anchormesh.SegmentID]uint64, len(d.record.Installed))
	maps.Copy(r.Installed, d.record.Installed)
	r.Frozen = make(map[anchormesh.SegmentID]anchormesh.ReplicaID, len(d.record.Frozen))
	maps.Copy(r.Frozen, d.record.Frozen)
	r.Forgotten = make(map[anchormesh.SegmentID]anchormesh.ReplicaID, len(d.record.Forgotten))
	maps.Copy(r.Forgotten, d.record.Forgotten)
	r.Keepers = make(map[anchormesh.SegmentID]anchormesh.SegmentID, len(d.record.Keepers))
	maps.Copy(r.Keepers, d.record.Keepers)
	r.Dropping = make(map[anchormesh.SegmentID]bool, len(d.record.Dropping))
	maps.Copy(r.Dropping, d.record.Dropping)
	return r
}

// Save makes a new record durable.
func (d *Dir) Save(r Record) error {
	s := stored{
		Format: format, Node: string(r.Node), Leaving: r.Leaving, Founded: r.Founded,
		Retired: make(map[string]uint64, len(r.Retired)), Snaps: make(map[string]uint64, len(r.Installed)),
		Frozen: make(map[string]uint64, len(r.Frozen)), Boot: r.Boot, Forgot: make(map[string]uint64, len(r.Forgotten)),
		Keepers: make(map[string]string, len(r.Keepers)),
	}
	if r.Mesh != 0 {
		s.Mesh = r.Mesh.String()
	}
	if r.Genesis != 0 {
		s.Genesis = r.Genesis.String()
	}
	for _, prefix := range r.Scopes {
		s.Scopes = append(s.Scopes, scopeName([]byte(prefix)))
	}
	for segment, id := range r.Retired {
		s.Retired[segment.String()] = uint64(id)
	}
	for segment, index := range r.Installed {
		s.Snaps[segment.String()] = index
	}
	for segment, id := range r.Frozen {
		s.Frozen[segment.String()] = uint64(id)
	}
	for segment, id := range r.Forgotten {
		s.Forgot[segment.String()] = uint64(id)
	}
	for segment, keeper := range r.Keepers {
		s.Keepers[segment.String()] = keeper.String()
	}
	for segment := range r.Dropping {
		s.Drops = append(s.Drops, segment.String())
	}
	slices.Sort(s.Drops)
	s, err := s.summed()
	if err != nil {
		return fmt.Errorf("node record: %w", err)
	}
	data, err := json.MarshalIndent(&s, "", "  ")
	if err != nil {
		return fmt.Errorf("node record: %w", err)
	}
	if err := fsys.WriteSmall(d.fs, d.path, recordName, append(data, '\n')); err != nil {
		return fmt.Errorf("node record %s cannot be written: %w", d.file(recordName), err)
	}
	d.record = r
	return nil
}

// load reads the record, or begins one: it is the first file of a directory.
func (d *Dir) load() error {
	name := d.file(recordName)
	data, err := fsys.ReadSmall(d.fs, name, recordBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return d.begin()
	}
	if err != nil {
		return fmt.Errorf("node record %s cannot be read: %w", name, err)
	}
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
	}
	if s.Format > format {
		return fmt.Errorf("%w: %s has format %d, this program knows %d", ErrNewer, name, s.Format, format)
	}
	if whole, err := s.summed(); err != nil || s.Sum != whole.Sum {
		return fmt.Errorf("%w: %s does not add up to its checksum; %s", ErrDamaged, name, remedy)
	}
	return d.parse(name, &s)
}

// begin makes the record of a new directory. Where there is more than a record
// would have come before, the record was lost.
func (d *Dir) begin() error {
	names, err := d.fs.List(d.path)
	if err != nil {
		return fmt.Errorf("data directory %s cannot be read: %w", d.path, err)
	}
	if slices.Contains(names, identityName) {
		return fmt.Errorf("%w: %s has no %s, but %s; %s", ErrIncomplete, d.path, recordName, identityName, remedy)
	}
	for _, sub := range []string{logName, scopesName} {
		if names, err := d.fs.List(d.file(sub)); err == nil && len(names) > 0 {
			return fmt.Errorf("%w: %s has no %s, but %s is not empty; %s", ErrIncomplete, d.path, recordName, sub, remedy)
		}
	}
	return d.Save(Record{})
}

// remedy is what helps a directory that lacks something.
const remedy = "put back what is missing, or, if the mesh has its majority without this node, start with an empty directory"

func (d *Dir) parse(name string, s *stored) error {
	bad := func(err error) error { return fmt.Errorf("%w: %s: %w", ErrDamaged, name, err) }
	var err error
	if s.Mesh != "" {
		if d.record.Mesh, err = anchormesh.ParseMeshID(s.Mesh); err != nil {
			return bad(err)
		}
	}
	if s.Genesis != "" {
		if d.record.Genesis, err = anchormesh.ParseSegmentID(s.Genesis); err != nil {
			return bad(err)
		}
	}
	d.record.Node, d.record.Leaving, d.record.Founded, d.record.Boot = anchormesh.NodeID(s.Node), s.Leaving, s.Founded, s.Boot
	for _, name := range s.Scopes {
		prefix, ok := scopePrefix(name)
		if !ok {
			return bad(fmt.Errorf("%q is not the name of a store", name))
		}
		d.record.Scopes = append(d.record.Scopes, string(prefix))
	}
	if d.record.Retired, err = replicas(s.Retired); err != nil {
		return bad(err)
	}
	if d.record.Frozen, err = replicas(s.Frozen); err != nil {
		return bad(err)
	}
	if d.record.Forgotten, err = replicas(s.Forgot); err != nil {
		return bad(err)
	}
	if d.record.Keepers, err = keepers(s.Keepers); err != nil {
		return bad(err)
	}
	d.record.Dropping = make(map[anchormesh.SegmentID]bool, len(s.Drops))
	for _, name := range s.Drops {
		segment, err := anchormesh.ParseSegmentID(name)
		if err != nil {
			return bad(err)
		}
		d.record.Dropping[segment] = true
	}
	d.record.Installed = make(map[anchormesh.SegmentID]uint64, len(s.Snaps))
	for key, index := range s.Snaps {
		segment, err := anchormesh.ParseSegmentID(key)
		if err != nil {
			return bad(err)
		}
		d.record.Installed[segment] = index
	}
	return d.checkWhole()
}

func replicas(stored map[string]uint64) (map[anchormesh.SegmentID]anchormesh.ReplicaID, error) {
	out := make(map[anchormesh.SegmentID]anchormesh.ReplicaID, len(stored))
	for key, id := range stored {
		segment, err := anchormesh.ParseSegmentID(key)
		if err != nil {
			return nil, err
		}
		out[segment] = anchormesh.ReplicaID(id)
	}
	return out, nil
}

func keepers(stored map[string]string) (map[anchormesh.SegmentID]anchormesh.SegmentID, error) {
	out := make(map[anchormesh.SegmentID]anchormesh.SegmentID, len(stored))
	for key, value := range stored {
		segment, err := anchormesh.ParseSegmentID(key)
		if err != nil {
			return nil, err
		}
		if out[segment], err = anchormesh.ParseSegmentID(value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// checkWhole refuses a directory that lacks what the record tells of.
func (d *Dir) checkWhole() error {
	var want []string
	if d.record.Node != "" {
		want = append(want, identityName)
	}
	for _, prefix := range d.record.Scopes {
		want = append(want, filepath.Join(scopesName, scopeName([]byte(prefix))+storeSuffix))
	}
	for _, name := range want {
		f, err := d.fs.Open(d.file(name))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s is missing; %s", ErrIncomplete, d.file(name), remedy)
		}
		if err != nil {
			return fmt.Errorf("data directory %s: %w", d.path, err)
		}
		f.Close()
	}
	return nil
}

// Belongs notes whose directory this is, or refuses another node's identity.
func (d *Dir) Belongs(node anchormesh.NodeID) error {
	rec := d.Record()
	if rec.Node == "" {
		rec.Node = node
		return d.Save(rec)
	}
	if rec.Node != node {
		return fmt.Errorf("%w: %s is the key of another node (%s), the directory belongs to %s; put its key back, or start with an empty directory",
			ErrIncomplete, d.file(identityName), node, rec.Node)
	}
	return nil
}

// Holds notes that the scope's store file is there and must stay.
func (d *Dir) Holds(prefix []byte) error {
	rec := d.Record()
	if slices.Contains(rec.Scopes, string(prefix)) {
		return nil
	}
	rec.Scopes = append(rec.Scopes, string(prefix))
	return d.Save(rec)
}
