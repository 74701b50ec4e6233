# Targets carry "## help"; `make` alone lists them.
SHELL := /bin/bash
GO ?= go
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
# blst built portably: its default build dies of SIGILL on CPUs without ADX, and is no faster here.
export CGO_CFLAGS ?= -O2 -D__BLST_PORTABLE__
LDFLAGS := -X main.commit=$(COMMIT)

# The CPU-heavy packages are tested with the race detector as well, for they have goroutines.
TEST_TIMEOUT ?= 12m
# Tools, pinned, run from the module cache so that their dependencies stay out of go.mod.
GOFUMPT := $(GO) run mvdan.cc/gofumpt@v0.9.2
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.7.0

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/tutti
	@mkdir -p bin
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/tutti ./appliance/cmd/tutti

.PHONY: run
run: build ## start the demo network: 2 shards of 4 validators, a steady signed load, the dashboard
	@exec bin/tutti localnet

.PHONY: test
test: build ## run the whole test suite, race detector on; the real binary's faults last and alone
	$(GO) vet ./...
	$(GO) test -race -timeout $(TEST_TIMEOUT) $$($(GO) list ./... | grep -v /bench/faults)
	$(GO) test -race -timeout $(TEST_TIMEOUT) ./bench/faults

.PHONY: verify
verify: ## what consensus rests on at CI sizes: proofs (z3), models (spin), search, simulation, Twins, traces, each with its broken twins
	$(GO) test -count=1 -timeout $(TEST_TIMEOUT) -run '^TestVerify' $$($(GO) list ./consensus/... | grep -v /consensus/sim$$)
	$(GO) test -count=1 -timeout $(TEST_TIMEOUT) -run '^TestVerify' -v ./consensus/sim -args -seeds 1000 -schedules 1000

.PHONY: verify-long
verify-long: ## N seeds of the simulator and Twins schedules (default 100,000) and two hours of the explorer, added to bench/results/sim.tsv, twins.tsv and explore.tsv
	bench/scripts/verify.sh $(or $(N),100000)
	$(GO) test ./consensus/explore -run '^TestCampaign$$' -count=1 -timeout 0 -v -args -views 3 -budget 2h -memory 16 -results $(CURDIR)/bench/results/explore.tsv

.PHONY: lint
lint: ## formatter in check mode, vet and staticcheck
	@out=$$($(GOFUMPT) -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not formatted (run make fmt):"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(STATICCHECK) ./...

.PHONY: fmt
fmt: ## format the Go code
	$(GOFUMPT) -w $$(git ls-files '*.go')

.PHONY: generate
generate: ## rewrite golden files and NOTICE; review the difference
	$(GO) test ./internal/tree -update
	$(GO) generate ./...

.PHONY: fuzz
fuzz: ## fuzz every decoder for FUZZCPU seconds of CPU each (default 600); goes on where it stopped
	bench/scripts/fuzz.sh $(or $(FUZZCPU),600)

.PHONY: soak-agree
soak-agree: ## CASES cases (default 10,000,000) for all backends of accel, added to bench/results/agree.tsv; goes on where it stopped
	bench/scripts/agree.sh $(or $(CASES),10000000)

.PHONY: test-portable
test-portable: ## accel's tests without cgo, on arm64 and on x86-64 without ADX, under qemu; PACKAGES narrows it
	accel/portability.sh $(PACKAGES)

.PHONY: bench
bench: build ## the standard benchmark: 1 shard of 4 validators, 100,000 accounts, 8,000 tx/s for 30 s
	bin/tutti bench --shards 1 --validators 4 --accounts 100000 --workload uniform --rate 8000 --duration 30s

.PHONY: bench-peers
bench-peers: build ## CometBFT, installed into bin/peers, and Tutti in turn, about 20 minutes: ratios; each trial to bench/results/peers.tsv; JSON=FILE, ARGS
	$(GO) run ./bench/peers/bench-peers -go '$(GO)' -commit $(COMMIT) -tsv bench/results/peers.tsv $(if $(JSON),-json $(JSON)) $(ARGS)

.PHONY: figures
figures: ## README's table and picture, from the reports in bench/results
	$(GO) run ./bench/summary/bench-summary

.PHONY: bench-scaling
bench-scaling: build ## how cost grows with shards, validators, accounts and cores, added to bench/results/scaling.tsv and drawn in scaling.svg; goes on where it stopped; ARGS
	$(GO) run ./bench/scaling/bench-scaling -commit $(COMMIT) -tsv bench/results/scaling.tsv -plot bench/results/scaling.svg $(ARGS)

.PHONY: bench-accel
bench-accel: ## time the cryptographic kernels beside other libraries, in CPU time; JSON=FILE, ROWS=regexp
	$(GO) run ./accel/internal/rows/bench-accel $(if $(JSON),-json $(JSON)) $(if $(ROWS),-rows '$(ROWS)')

.PHONY: bench-state
bench-state: ## time the state engine at 10 million accounts beside serial and naive ways, in CPU time; JSON=FILE, ARGS
	$(GO) test ./bench/state -run '^TestBench(State|Sync)$$' -count=1 -timeout 0 -v -args -full $(if $(JSON),-json $(abspath $(JSON))) $(ARGS)

.PHONY: bench-committee
bench-committee: ## simulate committees of 4 to 400 over a wide area network; table and plot to bench/results/committee.tsv and .svg; ARGS
	$(GO) test ./bench/committee -run '^TestBenchCommittee$$' -count=1 -timeout 0 -v -args -full -tsv $(CURDIR)/bench/results/committee.tsv \
	  -plot $(CURDIR)/bench/results/committee.svg -title "make bench-committee, commit $(COMMIT): 4,000 tx/s, ten regions" $(ARGS)

.PHONY: bench-away
bench-away: ## a validator that was away for a block, a minute, BLOCKS blocks (default 1,000,000), or was fed a fork, returns under load: times, added to bench/results/away.tsv
	$(GO) test ./bench/faults -run '^TestAway$$' -count=1 -timeout 0 -v -args -away $(or $(BLOCKS),1000000) -results $(CURDIR)/bench/results/away.tsv

.PHONY: deps
deps: ## install what the tests need beyond Go, gcc and make: Chromium for the page's test, z3 for the proof of the voting rule, spin for the models of propagation
	@missing=; for p in chromium z3 spin; do command -v $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  else echo "please install$$missing (Debian: apt-get install$$missing); the tests that need them are skipped without"; fi; fi
	$(GO) mod download

.PHONY: clean
clean: ## remove build outputs; the demo network's data in ./localnet stays (tutti localnet --reset clears it)
	rm -rf bin coverage.out

.PHONY: soak-faults
soak-faults: ## N runs of the fault test (default 20), added to bench/results/soak-faults.tsv; goes on where it stopped
	$(GO) test ./bench/faults -run '^TestFaults$$' -count=1 -timeout 0 -v -args -keep -runs $(or $(N),20) -results $(CURDIR)/bench/results/soak-faults.tsv

.PHONY: soak-crash
soak-crash: ## N crashes of everything (default 200) and the planted bug, added to bench/results/soak-crash.tsv; goes on where it stopped
	$(GO) test ./bench/faults -run '^TestCrashes(Catch)?$$' -count=1 -timeout 0 -v -args -keep -runs $(or $(N),200) -results $(CURDIR)/bench/results/soak-crash.tsv

.PHONY: soak-kills
soak-kills: ## validators killed while they send: N kills of each kind (default 500) in one process and PROCESS (default 25) of the real binary, and planted bugs, added to bench/results/soak-kills.tsv; goes on where it stopped
	$(GO) test ./consensus/engine -run '^TestKills(Catch)?$$' -count=1 -timeout 0 -v -args -kills $(or $(N),500) -commit $(COMMIT) -results $(CURDIR)/bench/results/soak-kills.tsv
	$(GO) test ./bench/faults -run '^TestProcessKills(Catch)?$$' -count=1 -timeout 0 -v -args -keep -kills $(or $(PROCESS),25) -results $(CURDIR)/bench/results/soak-kills.tsv

.PHONY: soak-blackbox
soak-blackbox: ## DURATION of black-box runs (default 3h of their time, PARALLEL at once) and the planted bugs, added to bench/results/blackbox.tsv; needs root; goes on where it stopped; SEED=S runs one alone
	$(GO) test ./bench/faults -run '^TestBlackBox$(if $(SEED),,(Catches)?)$$' -count=1 -timeout 0 -v -args -keep $(if $(SEED),-seed $(SEED),-duration $(or $(DURATION),3h)) -parallel $(or $(PARALLEL),1) -results $(CURDIR)/bench/results/blackbox.tsv

.PHONY: soak-state-crash
soak-state-crash: ## N recoveries of the ledger (default 10,000) from power cuts and failing disks, added to bench/results/state-crash.tsv; goes on where it stopped; SEED=S runs one alone
	bench/scripts/state-crash.sh $(or $(N),10000) $(SEED)

.PHONY: soak-million
soak-million: ## BLOCKS small blocks (default 1,000,000) on a simulated clock in DIR; sizes to bench/results/million.tsv and .svg; fails if they grow; goes on where it stopped
	$(GO) run ./bench/endless/bench-endless -dir $(or $(DIR),localnet/million) -blocks $(or $(BLOCKS),1000000) -every $(or $(EVERY),10000) \
	  -results bench/results/million.tsv -plot bench/results/million.svg -title "make soak-million, commit $(COMMIT): one validator, 10,000 accounts, blocks of 1 s"
