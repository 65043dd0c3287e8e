package check

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// Kind of an operation.
type Kind string

// Kinds of operations. Expire is the end of a lease by time: nobody's request, but
// it changes keys like Revoke.
const (
	Put    Kind = "put"
	Delete Kind = "delete"
	Range  Kind = "range"
	Txn    Kind = "txn"
	Grant  Kind = "grant"
	Revoke Kind = "revoke"
	Expire Kind = "expire"
)

// KV is one version of a key.
type KV struct {
	Key     string `json:"k"`
	Value   string `json:"v,omitempty"`
	Create  int64  `json:"c"`
	Mod     int64  `json:"m"`
	Version int64  `json:"n"`
	Lease   int64  `json:"l,omitempty"`
}

// Compare is one condition of a transaction. Target is create, mod, version, lease
// or value; Result is =, !=, < or >.
type Compare struct {
	Key    string `json:"k"`
	Target string `json:"t"`
	Result string `json:"r"`
	Int    int64  `json:"i,omitempty"`
	Str    string `json:"s,omitempty"`
}

// Request is what was asked for. Key and End are etcd's key and range_end.
type Request struct {
	Kind  Kind   `json:"kind"`
	Key   string `json:"k,omitempty"`
	End   string `json:"e,omitempty"`
	Value string `json:"v,omitempty"`
	Lease int64  `json:"l,omitempty"`
	Prev  bool   `json:"p,omitempty"` // put and delete: answer with what was there
	// Rev of a range is the revision to read at, zero is the newest; Limit bounds it.
	Rev          int64     `json:"rev,omitempty"`
	Limit        int64     `json:"limit,omitempty"`
	Serializable bool      `json:"ser,omitempty"`
	If           []Compare `json:"if,omitempty"`
	Then         []Request `json:"then,omitempty"`
	Else         []Request `json:"else,omitempty"`
}

// Result is what was answered. NoLease is etcd's "requested lease not found".
type Result struct {
	Rev       int64    `json:"rev,omitempty"` // of the header
	KVs       []KV     `json:"kvs,omitempty"` // range, and previous ones of put and delete
	Count     int64    `json:"n,omitempty"`   // range: all keys; delete: deleted ones
	Succeeded bool     `json:"ok,omitempty"`
	NoLease   bool     `json:"nolease,omitempty"`
	Sub       []Result `json:"sub,omitempty"`
}

// Op is one operation of a client; see the package comment for Return.
type Op struct {
	Client int    `json:"client"`
	Line   string `json:"line,omitempty"`
	Request
	// RevMin and RevMax, if set, bound the revision of the line just before the
	// operation took effect, where that is known from elsewhere.
	RevMin int64 `json:"min,omitempty"`
	RevMax int64 `json:"max,omitempty"`
	// Place, if set, is where the operation stands in the order in which those of its
	// line took effect, as somebody saw it who need not be trusted.
	Place  int64   `json:"place,omitempty"`
	Call   int64   `json:"call"`
	Return int64   `json:"return,omitempty"`
	Result *Result `json:"result,omitempty"`
}

// Event is one change of a key, as a watch shows it.
type Event struct {
	Line   string `json:"line,omitempty"`
	Rev    int64  `json:"rev"`
	Delete bool   `json:"del,omitempty"`
	KV     KV     `json:"kv"`
	Prev   *KV    `json:"prev,omitempty"`
}

// Response is one message of a watch.
type Response struct {
	Rev      int64   `json:"rev"`
	Created  bool    `json:"created,omitempty"`
	Progress bool    `json:"progress,omitempty"`
	Canceled bool    `json:"canceled,omitempty"`
	Compact  int64   `json:"compact,omitempty"`
	Events   []Event `json:"events,omitempty"`
}

// Watch is one watch from its creation to its end.
type Watch struct {
	Line      string     `json:"line,omitempty"`
	Key       string     `json:"k"`
	End       string     `json:"e,omitempty"`
	Start     int64      `json:"start,omitempty"` // as asked for; 0: from now
	Prev      bool       `json:"prev,omitempty"`
	NoPut     bool       `json:"noput,omitempty"`
	NoDelete  bool       `json:"nodel,omitempty"`
	Responses []Response `json:"responses,omitempty"`
	// Through is the revision up to which the watch must have shown everything,
	// because it was still open and served then; 0: nothing is known.
	Through int64 `json:"through,omitempty"`
}

// Lease is one thing that happened to a lease. Sent is when the client asked, At
// when the answer came or the end was applied.
type Lease struct {
	What Kind  `json:"what"` // Grant, Renew, Revoke, Expire
	ID   int64 `json:"id"`
	TTL  int64 `json:"ttl,omitempty"` // seconds
	Sent int64 `json:"sent,omitempty"`
	At   int64 `json:"at"`
}

// Renew is a keep-alive that was answered with a TTL.
const Renew Kind = "renew"

// History is everything that one run saw.
type History struct {
	Ops     []Op
	Events  []Event
	Watches []Watch
	Leases  []Lease
}

// record is one line of the file form; one field is set.
type record struct {
	Op    *Op    `json:"op,omitempty"`
	Event *Event `json:"event,omitempty"`
	Watch *Watch `json:"watch,omitempty"`
	Lease *Lease `json:"lease,omitempty"`
}

// Write writes a history as JSON lines.
func (h *History) Write(w io.Writer) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	var err error
	put := func(r record) {
		if err == nil {
			err = enc.Encode(r)
		}
	}
	for i := range h.Ops {
		put(record{Op: &h.Ops[i]})
	}
	for i := range h.Events {
		put(record{Event: &h.Events[i]})
	}
	for i := range h.Watches {
		put(record{Watch: &h.Watches[i]})
	}
	for i := range h.Leases {
		put(record{Lease: &h.Leases[i]})
	}
	if err != nil {
		return fmt.Errorf("writing a history: %w", err)
	}
	return out.Flush()
}

// Read reads what Write wrote; several files of one run may be read one after the
// other into the same history.
func (h *History) Read(r io.Reader) error {
	dec := json.NewDecoder(bufio.NewReader(r))
	for n := 1; ; n++ {
		var rec record
		err := dec.Decode(&rec)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("record %d of a history: %w", n, err)
		}
		switch {
		case rec.Op != nil:
			h.Ops = append(h.Ops, *rec.Op)
		case rec.Event != nil:
			h.Events = append(h.Events, *rec.Event)
		case rec.Watch != nil:
			h.Watches = append(h.Watches, *rec.Watch)
		case rec.Lease != nil:
			h.Leases = append(h.Leases, *rec.Lease)
		}
	}
}
