// Package frame puts checksummed, numbered, length-prefixed records on a file
// that was filled with zeros, and can later tell a record whose writing was cut
// short by a power failure from one that was damaged afterwards. It is pure:
// bytes in, bytes out.
//
// A frame begins at a multiple of Align and is padded with zeros to one, so that
// its header never crosses a sector:
//
//	 0  u32  checksum of the rest of the header, from Mix(file's seed, offset) on
//	 4  u32  payload length in bytes
//	 8  u64  sequence number, dense over all files of a log
//	16  u64  mark, a word of the caller's
//	24  u32  checksum of the payload
//	28  u32  blank sectors: how many sectors of the frame hold only zeros
//	32  payload
//
// Numbers are little-endian, checksums CRC-32C. The seed is different for every
// file, so a frame is valid only in the file and at the offset it was written
// to; copies of it, in a payload or by a misdirected write, are not.
//
// # Torn or damaged
//
// The writer writes one frame at a time and begins the next only when the disk
// has confirmed the last. Hence at most one frame, the newest, can be torn, and
// a valid header with a higher number proves that a frame was complete once.
// Where there is no such proof, the bytes themselves tell: a power cut leaves
// each 512-byte sector either written or zero, as it was before. So a torn frame
// has more blank sectors than its header counts, or its header's sector is blank
// from there on. A frame with all its sectors, but the wrong checksum, was
// changed after it was written.
//
// What no format can tell without a second write: damage to the newest frame
// that makes a whole sector zero looks like a torn write.
package frame
