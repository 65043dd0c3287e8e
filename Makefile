# Every target needs Go 1.26 and nothing else, but for: proto (protoc) and, if it
# is there, golangci-lint.

GO       ?= go
BIN      := bin/anchormesh
VERSION  ?= $(shell git describe --tags --match 'v*' 2>/dev/null | sed 's/^v//')
COMMIT   ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.commit=$(COMMIT) $(if $(VERSION),-X main.version=$(VERSION))
# Race runs of what has goroutines and shared memory; the rest is values.
CORE     := ./client/... ./cmd/... ./consensus/... ./internal/... ./keyspace/... ./mesh/... ./node/*/
FUZZTIME ?= 30s
TIMEOUT  ?= 10m
SEEDS    ?= 100
SOAK     ?= 1h

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## Use

.PHONY: run
run: build ## build and run a mesh of three nodes in one process; ARGS="--nodes 5"
	$(BIN) dev $(ARGS)

.PHONY: build
build: ## build the static program bin/anchormesh
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/anchormesh

.PHONY: etcdctl
etcdctl: ## build etcd's own etcdctl as testnet/etcd/bin/etcdctl
	$(MAKE) -C testnet/etcd

## Check

.PHONY: test
test: ## run all tests
	$(GO) test -timeout $(TIMEOUT) ./...

.PHONY: race
race: ## run the tests of the core packages under the race detector, costly checks on
	$(GO) test -race -short -tags invariants -timeout $(TIMEOUT) $(CORE)

.PHONY: race-mesh
race-mesh: ## the same with whole meshes in one process; minutes
	$(GO) test -race -tags invariants -timeout $(TIMEOUT) ./node

.PHONY: lint
lint: ## vet, the house rules as tests, and golangci-lint if it is installed
	$(GO) vet ./...
	$(GO) test -count=1 ./internal/lint
	@if command -v golangci-lint >/dev/null; then golangci-lint run; else echo "golangci-lint is not installed: skipped"; fi

.PHONY: check
check: lint test ## what a commit must pass

.PHONY: golden
golden: ## rewrite golden files; commit the difference only if you understand it
	$(GO) test -count=1 $$(grep -rl --include='*_test.go' -e '^	"github.com/cockroachdb/datadriven"' -e '"rewrite"' . | xargs -n1 dirname | sort -u) -rewrite

# The second try is for go test, which now and then takes the end of the time for
# a failure. A real one has left its input in testdata and fails again.
.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (30s)
	@set -e; for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for target in $$($(GO) test -list '^Fuzz' $$dir | grep '^Fuzz'); do \
			echo "== $$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$dir || \
			$(GO) test -run "^$$target\$$" -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$dir; \
		done; \
	done

.PHONY: sim
sim: ## run SEEDS (100) whole meshes on virtual time; SEED=17 runs one, ARGS=-shrink looks for a smaller one that fails
	$(GO) run ./testnet/sim/cmd/sim $(if $(SEED),-seed $(SEED) -seeds 1,-quiet -seeds $(SEEDS)) $(ARGS)

.PHONY: soak
soak: ## simulate for SOAK (1h), then kill at every durable step and compare with etcd at length
	$(GO) run ./testnet/sim/cmd/sim -quiet -seed $$(date +%s) -seeds 0 -for $(SOAK)
	$(GO) test -count=1 -tags failpoints -timeout 30m ./consensus/wal ./internal/failpoint
	$(GO) test -count=1 -tags failpoints -timeout 30m ./testnet/sim -run TestPowerCutAtEveryFailpoint
	$(GO) test -count=1 -timeout 1h ./testnet/e2e -run 'TestCrashAtEvery|TestPartitionAtEveryPhase|TestOnlyLoadThat|TestALightScope|TestNoScopeWhile' -args -every-step -every-phase -own-load
	$(GO) test -count=1 -timeout 1h ./testnet/e2e -run TestScopesWhileNodesAreKilled -args -scope-rounds 200
	$(GO) test -count=1 -timeout 1h ./testnet/e2e -run TestAScopeChangesWhileNodesAreKilled -args -live-steps 60
	$(GO) test -count=1 -timeout 2h ./testnet/differential -args -seed $$(date +%s) -seeds 1000

.PHONY: soak-structure
soak-structure: ## 200 splits, merges and moves of real processes, 60 by themselves, under traffic and kills, then the checkers; ARGS="-seed 7"
	$(GO) run ./testnet/cmd/torture run -target process -nodes 4 -minutes 15 -faults 16 -changes 200 -automatic 60 -policies 0 \
		-kinds kill,pause,restart,kill-all -out .cache/testnet/structure $(ARGS)

## Testnet

.PHONY: testnet-up
testnet-up: ## run a mesh of five nodes in three zones as containers (needs Docker)
	$(GO) run ./testnet/cmd/torture up $(ARGS)

.PHONY: testnet-down
testnet-down: ## remove the containers and their volumes
	$(GO) run ./testnet/cmd/torture down

.PHONY: testnet-torture
testnet-torture: ## faults under traffic, then the checkers; ARGS="-target process" needs no Docker
	$(GO) run ./testnet/cmd/torture run $(ARGS)

## Measure

.PHONY: bench-etcd
bench-etcd: ## compare a mesh of 3 with an etcd of 3 on this machine; ARGS="--cases put:100"
	$(GO) run ./testnet/cmd/bench $(ARGS)

.PHONY: bench-scale
bench-scale: ## puts on meshes of 3, 6 and 9 nodes at the same CPU share per node, beside etcd (needs root on Linux)
	$(GO) run ./testnet/cmd/bench scale $(ARGS)

.PHONY: bench-neighbour
bench-neighbour: ## what a probe of one prefix feels of a flood of another, beside etcd
	$(GO) run ./testnet/cmd/bench neighbour $(ARGS)

.PHONY: bench-split
bench-split: ## how long writers stall when the segment under them is split
	$(GO) run ./testnet/cmd/bench split $(ARGS)

.PHONY: bench-watch-segments
bench-watch-segments: ## delay of a watch over four segments beside one over one
	$(GO) run ./testnet/cmd/bench watch-segments $(ARGS)

.PHONY: bench-failover
bench-failover: ## kill nodes under 300 active segments; ARGS="--segments 50 --stop"
	$(GO) run ./testnet/cmd/bench failover $(ARGS)

.PHONY: bench-idle
bench-idle: ## what 1000 idle segments cost; ARGS="--segments 10000"
	$(GO) run ./testnet/cmd/bench idle $(ARGS)

.PHONY: bench-classes
bench-classes: ## a light, a normal and a strong scope of one mesh under the same load, beside etcd
	$(GO) run ./testnet/cmd/bench classes $(ARGS)

.PHONY: bench-approvals
bench-approvals: ## CPU per write of a scope with approvals beside a normal one of the same mesh
	$(GO) run ./testnet/cmd/bench approvals $(ARGS)

.PHONY: testnet-load
testnet-load: ## put load on running endpoints; ARGS="-h" lists what it can do
	$(GO) run ./testnet/cmd/load $(ARGS)

## Maintain

# Pinned: the generated code is committed, and another version would be a diff.
PROTOC_GEN_GO      := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_GO_GRPC := google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0

.PHONY: proto
proto: ## generate the code of internal/meshpb (needs protoc 3.21 or later)
	GOBIN=$(CURDIR)/.cache/bin $(GO) install $(PROTOC_GEN_GO)
	GOBIN=$(CURDIR)/.cache/bin $(GO) install $(PROTOC_GEN_GO_GRPC)
	PATH=$(CURDIR)/.cache/bin:$$PATH protoc -I . \
		--go_out=. --go_opt=module=github.com/anchormesh/anchormesh \
		--go-grpc_out=. --go-grpc_opt=module=github.com/anchormesh/anchormesh \
		internal/meshpb/*.proto

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .cache
	$(MAKE) -C testnet/etcd clean
