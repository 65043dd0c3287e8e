package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

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
		if in.out == outputTable {
			fmt.Fprintf(in.w, "store %s: %s\n", path, bytesText(tx.Size()))
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
		if in.out == outputJSON {
			return json.NewEncoder(in.w).Encode(keyView{File: path, Bucket: name, Key: k, ValueBytes: len(v)})
		}
		_, err := fmt.Fprintf(in.w, "    %q %d bytes\n", k, len(v))
		return err
	})
	if err != nil {
		return err
	}
	if in.out == outputJSON {
		return json.NewEncoder(in.w).Encode(view)
	}
	_, err = fmt.Fprintf(in.w, "  bucket %q: %d keys, %s\n", name, view.Keys, bytesText(view.Bytes))
	return err
}
