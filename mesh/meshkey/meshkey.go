// Package meshkey is the secret that makes strangers a mesh.
//
// A mesh key is 32 random bytes. Whoever holds it can gossip with the nodes of
// the mesh, open streams to them and read what they gossip; whoever does not
// gets nothing, not even a handshake. It is not used as it is: every use gets
// its own key, derived with HKDF-SHA256 (RFC 5869), so that the gossip key
// tells nothing about the key of the private network, and neither about the
// mesh key.
//
// File form, one line:
//
//	anchormesh-key-v1:<base64, standard alphabet, padded, 44 characters>
//
// Space around the line is ignored. Nothing else may be in the file.
//
// The package does not decide where the key is kept and never logs it: the
// text form of a Key is its fingerprint.
package meshkey

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Size is the length of a mesh key in bytes.
const Size = 32

const (
	prefix        = "anchormesh-key-v1:"
	fileBytesMax  = 4096
	derivePurpose = "anchormesh/v1/"
)

var (
	// ErrMalformed is returned when a text is no mesh key.
	ErrMalformed = errors.New("not a mesh key")
	// ErrZero is returned when a mesh key is all zero, as an unset one is.
	ErrZero = errors.New("the mesh key is not set")
)

// Key is a mesh key. The zero value is not a valid key.
type Key [Size]byte

// Generate draws a new key.
func Generate() Key {
	var k Key
	rand.Read(k[:]) // never fails: the process ends without randomness
	return k
}

// Parse reads the file form.
func Parse(text string) (Key, error) {
	var k Key
	body, ok := strings.CutPrefix(strings.TrimSpace(text), prefix)
	if !ok {
		return k, fmt.Errorf("%w: want one line that begins with %q", ErrMalformed, prefix)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(body)
	if err != nil {
		return k, fmt.Errorf("%w: what follows %q is not base64", ErrMalformed, prefix)
	}
	if len(raw) != Size {
		return k, fmt.Errorf("%w: want %d bytes after %q, have %d", ErrMalformed, Size, prefix, len(raw))
	}
	copy(k[:], raw)
	return k, k.Validate()
}

// Read reads the key kept in a file. A file that others may read is not
// refused, a secret mounted by an orchestrator often is; the caller may warn.
func Read(path string) (Key, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Key{}, fmt.Errorf("mesh key file %s does not exist: %w", path, err)
	case err != nil:
		return Key{}, fmt.Errorf("mesh key file %s cannot be read: %w", path, err)
	case info.Size() > fileBytesMax:
		return Key{}, fmt.Errorf("mesh key file %s: %w: it has %d bytes", path, ErrMalformed, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Key{}, fmt.Errorf("mesh key file %s cannot be read: %w", path, err)
	}
	k, err := Parse(string(text))
	if err != nil {
		return Key{}, fmt.Errorf("mesh key file %s: %w", path, err)
	}
	return k, nil
}

// Encode returns the file form, with the newline.
func (k Key) Encode() string {
	return prefix + base64.StdEncoding.EncodeToString(k[:]) + "\n"
}

// Validate refuses the zero key.
func (k Key) Validate() error {
	if k == (Key{}) {
		return ErrZero
	}
	return nil
}

// Derive returns the key for one use. Different uses give unrelated keys.
func (k Key) Derive(use string) [32]byte {
	out, err := hkdf.Key(sha256.New, k[:], nil, derivePurpose+use, 32)
	if err != nil {
		panic("meshkey: HKDF refused 32 bytes: " + err.Error())
	}
	return [32]byte(out)
}

// String is the key's fingerprint, safe to log: 16 hex digits derived from the
// key, from which it cannot be found.
func (k Key) String() string {
	fp := k.Derive("fingerprint")
	return hex.EncodeToString(fp[:8])
}

// GoString keeps %#v from printing the key.
func (k Key) GoString() string { return "meshkey.Key(" + k.String() + ")" }
