package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/spf13/cobra"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

func newInspect() *cobra.Command {
	var in inspector
	cmd := &cobra.Command{
		Use:   "inspect PATH...",
		Short: "Print what is in log and store files",
		Long: `Print what is in log files and store files. A directory stands for all of them
below it, so the argument can be a node's whole data directory. Nothing is
changed, but stop the node first: a running one holds its store.

Log files are checked record by record; damage is shown with its file and
offset, and ends the command with status 1.`,
		Example: "  anchormesh inspect default.anchormesh\n  anchormesh inspect --keys default.anchormesh",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return ask.Usage(errors.New("inspect needs the path of a file or directory"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&in.keys, "keys", false, "print every key of store files with the size of its value")
	in.out.Bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in.w = cmd.OutOrStdout()
		var problems []error
		for _, path := range args {
			problems = append(problems, in.path(path))
		}
		return errors.Join(problems...)
	}
	return cmd
}

type inspector struct {
	w    io.Writer
	out  ask.Output
	keys bool
}

// path inspects a file, or every log and store file below a directory. In a
// directory other files are passed over; a file that was named must be one.
func (in *inspector) path(root string) error {
	info, err := os.Stat(root)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return in.file(root)
	}
	found := 0
	var problems []error
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		err = in.file(path)
		if errors.Is(err, wal.ErrForeign) {
			return nil
		}
		found++
		problems = append(problems, err)
		return nil
	})
	if err == nil && found == 0 {
		err = fmt.Errorf("%s holds no log or store file", root)
	}
	return errors.Join(append(problems, err)...)
}

func (in *inspector) file(path string) error {
	if isStore(path) {
		return in.store(path)
	}
	dump := wal.Dump
	if !in.out.ForPeople() {
		dump = wal.DumpJSON
	}
	return dump(fsys.OS, path, in.w)
}

// isStore looks for bbolt's magic number in the first page.
func isStore(path string) bool {
	const pageHeader, magic = 16, 0xED0CDAED
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var head [pageHeader + 4]byte
	_, err = io.ReadFull(f, head[:])
	return err == nil && binary.NativeEndian.Uint32(head[pageHeader:]) == magic
}

// storeOpenTimeout is how long a running node is given to let its store go.
const storeOpenTimeout = time.Second

// bucketView is one bucket of a store file.
type bucketView struct {
	File   string `json:"file"`
	Bucket string `json:"bucket"`
	Keys   int    `json:"keys"`
	Bytes  int64  `json:"bytes"` // of keys and values
}

// keyView is one key of a bucket. Key is base64 in JSON.
type keyView struct {
	File       string `json:"file"`
	Bucket     string `json:"bucket"`
	Key        []byte `json:"key"`
	ValueBytes int    `json:"value_bytes"`
}

// store prints the buckets of a store file, below its own rules of layout: what
// they mean is drawn in the documentation of keyspace/mvcc.
func (in *inspector) store(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: storeOpenTimeout})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%s is in use by a running node; stop it first", path)
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		if in.out.ForPeople() {
			fmt.Fprintf(in.w, "store %s: %s\n", path, ask.Bytes(tx.Size()))
		}
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error { return in.bucket(path, string(name), b) })
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (in *inspector) bucket(path, name string, b *bbolt.Bucket) error {
	view := bucketView{File: path, Bucket: name}
	err := b.ForEach(func(k, v []byte) error {
		view.Keys++
		view.Bytes += int64(len(k) + len(v))
		if !in.keys {
			return nil
		}
		if !in.out.ForPeople() {
			return json.NewEncoder(in.w).Encode(keyView{File: path, Bucket: name, Key: k, ValueBytes: len(v)})
		}
		_, err := fmt.Fprintf(in.w, "    %q %d bytes\n", k, len(v))
		return err
	})
	if err != nil {
		return err
	}
	if !in.out.ForPeople() {
		return json.NewEncoder(in.w).Encode(view)
	}
	_, err = fmt.Fprintf(in.w, "  bucket %q: %d keys, %s\n", name, view.Keys, ask.Bytes(view.Bytes))
	return err
}
