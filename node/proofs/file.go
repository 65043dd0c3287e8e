package proofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

// File is the name of the file in a data directory: a line that names the format,
// proofs with their lengths in front, CRC-32C of all that.
const File = "lineage.proofs"

// FileBytesMax bounds the file. The newest proofs of each lineage come first, so that
// the oldest are left out.
const FileBytesMax = 16 << 20

const fileHead = "anchormesh-proofs-v1\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("the file is damaged")

// load reads the file; one that is not there holds nothing.
func load(files fsys.FS, dir string) ([]*lineage.Proof, error) {
	text, err := fsys.ReadSmall(files, filepath.Join(dir, File), FileBytesMax)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return parse(text)
}

func parse(text []byte) (out []*lineage.Proof, err error) {
	if len(text) < len(fileHead)+4 || string(text[:len(fileHead)]) != fileHead {
		return nil, errDamaged
	}
	body, sum := text[:len(text)-4], text[len(text)-4:]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(sum) {
		return nil, errDamaged
	}
	for body = body[len(fileHead):]; len(body) > 0; {
		size, n := binary.Uvarint(body)
		if n <= 0 || size > uint64(len(body)-n) {
			return nil, errDamaged
		}
		p, err := lineage.DecodeProof(body[n : n+int(size)])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
		out, body = append(out, p), body[n+int(size):]
	}
	return out, nil
}

// render returns what the file shall hold. The caller holds mu.
func (k *Keeper) render() []byte {
	text := []byte(fileHead)
	for _, id := range k.core.Segments() {
		for _, b := range slices.Backward(k.core.Of(id)) {
			if len(text)+len(b)+14 > FileBytesMax {
				break
			}
			text = append(binary.AppendUvarint(text, uint64(len(b))), b...)
		}
	}
	return binary.BigEndian.AppendUint32(text, crc32.Checksum(text, castagnoli))
}

// save writes the file if something changed and the last time is long enough ago.
// A failure is told and tried again: nothing is lost with the file that cannot be
// gathered as long as the voters are there.
func (k *Keeper) save(now time.Time, wait time.Duration) {
	k.mu.Lock()
	changes := k.core.changes
	if changes == k.saved || now.Sub(k.last) < wait {
		k.mu.Unlock()
		return
	}
	begin := time.Now()
	text := k.render()
	k.mu.Unlock()
	k.last = now
	defer func() { k.saving = time.Since(begin) }()
	if err := fsys.WriteSmall(k.cfg.Files, k.cfg.Dir, File, text); err != nil {
		k.cfg.Logger.Warn("proofs were not written", "err", err)
		return
	}
	k.saved = changes
}
