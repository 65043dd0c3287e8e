package codec

import "google.golang.org/protobuf/encoding/protowire"

// HeaderRevision returns the revision in the header of an encoded response of etcd's, which
// is its first field, or zero if there is none.
func HeaderRevision(response []byte) int64 {
	num, typ, n := protowire.ConsumeTag(response)
	if n < 0 || num != 1 || typ != protowire.BytesType {
		return 0
	}
	header, m := protowire.ConsumeBytes(response[n:])
	if m < 0 {
		return 0
	}
	for len(header) > 0 {
		num, typ, n := protowire.ConsumeTag(header)
		if n < 0 {
			return 0
		}
		if num == 3 && typ == protowire.VarintType {
			revision, m := protowire.ConsumeVarint(header[n:])
			if m < 0 {
				return 0
			}
			return int64(revision)
		}
		skip := protowire.ConsumeFieldValue(num, typ, header[n:])
		if skip < 0 {
			return 0
		}
		header = header[n+skip:]
	}
	return 0
}
