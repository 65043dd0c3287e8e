package keyspace

import "github.com/anchormesh/anchormesh/keyspace/codec"

// HashKV is the hash of all kept revisions up to one, equal on all replicas that
// hold the same history and compacted at the same revision.
type HashKV struct {
	Hash      uint32
	Revision  int64 // hashed up to here
	Compacted int64 // when the hash was taken; -1 for never
}

// HashKV hashes the history up to rev; 0 is the newest, and below it there is
// nothing to hash, as in etcd. The errors are ErrCompacted
// and ErrFutureRev.
func (s *Space) HashKV(rev int64) (HashKV, error) {
	hash, compacted, at, err := s.seg.Hash(rev)
	if err != nil {
		return HashKV{}, err
	}
	return HashKV{Hash: hash, Revision: at, Compacted: compacted}, nil
}

// Response encodes the hash as a HashKVResponse.
func (h HashKV) Response(header codec.Header) []byte {
	return codec.AppendHashKVResponse(nil, header, h.Hash, h.Compacted, h.Revision)
}
