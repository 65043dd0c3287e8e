package witness

import (
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/testnet/check"
)

// Order is in which order commands were applied first: what the checkers try before they
// search for one.
type Order struct {
	Commands map[int]string // index of a write in the history -> its command
	count    int64          // commands that were applied
	expiries map[int64]int  // leases whose end has no place yet -> its index in the history
}

func newOrder() Order {
	return Order{Commands: make(map[int]string), expiries: make(map[int64]int)}
}

// expired gives the end of a lease its place: LeaseEvents told of it while the entry was
// applied, and knows nothing of what else is in there.
func (o *Order) expired(h *check.History, raw []byte) error {
	var e codec.LeaseExpiry
	if err := codec.ParseLeaseExpiry(raw, &e); err != nil {
		return err
	}
	if i, open := o.expiries[e.ID]; open {
		h.Ops[i].Place = o.count
		delete(o.expiries, e.ID)
	}
	return nil
}
