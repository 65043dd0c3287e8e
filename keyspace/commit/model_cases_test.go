package commit

import (
	"errors"
	"os"
	"testing"

	"github.com/anchormesh/anchormesh/internal/explore"
	"github.com/anchormesh/anchormesh/keyspace/codec"
)

func put(key string) codec.RequestOp {
	return codec.RequestOp{Kind: codec.KindPut, Put: codec.PutRequest{Key: []byte(key), Value: []byte("1")}}
}

// both writes both keys.
func both() *codec.TxnRequest {
	return &codec.TxnRequest{Success: []codec.RequestOp{put(keyA), put(keyN)}}
}

// skew writes one key if the other does not exist.
func skew(read, write string) *codec.TxnRequest {
	return &codec.TxnRequest{
		Compare: []codec.Compare{{Key: []byte(read), Target: codec.CompareVersion, Union: codec.UnionVersion}},
		Success: []codec.RequestOp{put(write)},
	}
}

// leased writes both keys, the second under lease 5.
func leased() *codec.TxnRequest {
	t := both()
	t.Success[1].Put.Lease = 5
	return t
}

func one(t *codec.TxnRequest) []*codec.TxnRequest { return []*codec.TxnRequest{t} }

func exhaust(cfg config) explore.Report {
	if cfg.most == 0 {
		cfg.most = 5_000_000
	}
	return explore.Run(newWorld(&cfg).model())
}

// TestModel: two participants, whatever happens within the budgets. The larger ones
// take minutes and run with ANCHORMESH_EXPLORE=1.
func TestModel(t *testing.T) {
	cases := []struct {
		name string
		long bool
		cfg  config
	}{
		{"barrier", false, config{txns: one(both()), reader: true}},
		{"crash", false, config{txns: one(both()), budget: budget{crashes: 1}}},
		{"leader of the decision", false, config{txns: one(both()), budget: budget{leaders: [3]int{1, 0}}}},
		{"leader of the other", false, config{txns: one(both()), budget: budget{leaders: [3]int{0, 1}}}},
		{"given up early", false, config{txns: one(both()), budget: budget{early: 1}}},
		{"requests twice", false, config{txns: one(both()), budget: budget{dups: 1}}},
		{"plain write", false, config{txns: one(skew(keyA, keyN)), put: keyA}},
		{"end of a lease", false, config{txns: one(leased()), lease: true}},
		{"two transactions", false, config{txns: []*codec.TxnRequest{skew(keyA, keyN), skew(keyN, keyA)}, calm: true}},
		{"two transactions in key order", false, config{txns: []*codec.TxnRequest{both(), both()}, calm: true, order: true}},
		{"split", false, config{txns: one(both()), budget: budget{splits: 1}}},
		{"plain write and leader", true, config{txns: one(skew(keyA, keyN)), put: keyA, budget: budget{leaders: [3]int{1, 0}}}},
		{"both leaders and crash", true, config{txns: one(both()), budget: budget{leaders: [3]int{1, 1}, crashes: 1}}},
		{"both leaders and barrier", true, config{txns: one(both()), reader: true, budget: budget{leaders: [3]int{1, 1}}}},
		{"leader, early and barrier", true, config{txns: one(both()), reader: true, budget: budget{leaders: [3]int{1, 0}, early: 1}}},
		{"early, twice and leader", true, config{txns: one(both()), budget: budget{leaders: [3]int{1, 0}, early: 1, dups: 1}}},
		{"two transactions and leaders", true, config{txns: []*codec.TxnRequest{skew(keyA, keyN), skew(keyN, keyA)}, calm: true, budget: budget{leaders: [3]int{1, 1}}}},
		{"two transactions and barrier", true, config{txns: []*codec.TxnRequest{both(), skew(keyN, keyA)}, calm: true, reader: true}},
		{"split and crash", true, config{txns: one(both()), budget: budget{splits: 1, crashes: 1}}},
		{"split and leader", true, config{txns: one(both()), budget: budget{splits: 1, leaders: [3]int{0, 1, 1}}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.long && os.Getenv("ANCHORMESH_EXPLORE") == "" {
				t.Skip("takes long; set ANCHORMESH_EXPLORE=1")
			}
			r := exhaust(c.cfg)
			if r.Err != nil {
				t.Fatal(r)
			}
			t.Log(r)
		})
	}
}

// finds demands that a planted defect is found.
func finds(t *testing.T, want error, cfg config) {
	t.Helper()
	r := exhaust(cfg)
	if !errors.Is(r.Err, want) {
		t.Fatalf("want %v, got %v", want, r)
	}
	t.Log(r)
}

// Each of the following plants what an earlier draft did; TestModel holds without.

func TestCounterexample2aCommitAgainstGrowth(t *testing.T) {
	finds(t, errBroken, config{txns: one(both()), put: "z", plant: plant{growth: true}})
}

func TestCounterexample2bBarrierIgnoresThePrepared(t *testing.T) {
	finds(t, errBroken, config{txns: one(both()), reader: true, plant: plant{barrier: true}})
}

func TestCounterexample2cLateRefusal(t *testing.T) {
	finds(t, errBroken, config{txns: one(leased()), lease: true, plant: plant{lateRefusal: true}})
}

func TestCounterexample2dTheDecisionIsForgotten(t *testing.T) {
	finds(t, errBroken, config{txns: one(both()), plant: plant{amnesia: true}})
}

func TestCounterexample2eTheDecisionIsFoundByID(t *testing.T) {
	finds(t, errBroken, config{txns: one(both()), budget: budget{splits: 1, crashes: 1}, plant: plant{byID: true}})
}

func TestCounterexample2fWaitingForLocks(t *testing.T) {
	finds(t, explore.ErrStuck, config{txns: []*codec.TxnRequest{both(), both()}, calm: true, plant: plant{wait: true}})
}

func TestCounterexample22aThePrepareOutlivesItsLock(t *testing.T) {
	finds(t, errBroken, config{txns: one(skew(keyA, keyN)), put: keyA, budget: budget{leaders: [3]int{1, 0}}, plant: plant{anyTerm: true}})
}

func TestCounterexample22aTheRevisionIsChosenFirst(t *testing.T) {
	finds(t, errBroken, config{txns: one(both()), reader: true, plant: plant{earlyC: true}})
}

func TestCounterexample22dCommitBelowAnotherWrite(t *testing.T) {
	finds(t, errBroken, config{txns: one(skew(keyA, keyN)), put: "z", budget: budget{crashes: 1}, plant: plant{growth: true}})
}

// A coordinator that was thought dead decides what was aborted and forgotten.
func TestPlantedDecisionWithoutPrepare(t *testing.T) {
	finds(t, errBroken, config{txns: one(both()), plant: plant{blindDecide: true}})
}

// A new leader that has not applied what it inherited confirms a commit from its
// memory instead of its log.
func TestPlantedConfirmationFromMemory(t *testing.T) {
	finds(t, errBroken, config{txns: one(both()), budget: budget{leaders: [3]int{0, 1}}, plant: plant{blindTell: true}})
}
