# Everything a person or CI calls. `make` alone lists the targets.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

GO      ?= go
BIN     := bin
TOOLS   := cmd/internal/tools/go.mod
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
BUILD   := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
# The packages in which goroutines share memory.
RACY    := ./drivers/... ./protocols/... ./hub/... ./hil/... ./cmd/...
FUZZTIME ?= 5s
# The packages whose tests have a long form.
LONG    := ./protocols/modbus ./hub/journal ./cmd/holdfast
# 1 where every peer is installed: a test that misses one then fails.
PEERS    = $$(sh hil/setup.sh --check >/dev/null 2>&1 && echo 1)

.PHONY: help build demo test setup check format vet lint vulns race fuzz acceptance bench cross clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

build: ## build the programs into bin/
	@mkdir -p $(BIN)
	$(BUILD) -o $(BIN)/ ./cmd/holdfast ./cmd/holdfast-hil

demo: build ## watch plant, gateway and upstream work, with a link cut and a power cut; needs only Go
	$(BIN)/holdfast-hil demo --cut

test: setup ## run every test against real peers; installs them when it can
	HOLDFAST_REQUIRE_PEERS=$(PEERS) $(GO) test ./...

setup: ## install the peers that the tests talk to (apt, npm)
	@sh hil/setup.sh

check: format vet lint vulns ## formatting and static checks

format:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

vet:
	$(GO) vet ./...

lint:
	$(GO) tool -modfile=$(TOOLS) staticcheck ./...

vulns:
	@sh cmd/internal/tools/vulns.sh

race: ## run the concurrent packages under the race detector
	$(GO) test -race -short $(RACY)

fuzz: ## run every fuzz target for FUZZTIME each
	@sh cmd/internal/tools/fuzz.sh $(FUZZTIME)

acceptance: setup ## the long runs: 10,000 late answers, 10,000 power cuts, 100 kills
	@export HOLDFAST_REQUIRE_PEERS=$(PEERS) HOLDFAST_LONG=1 HOLDFAST_CRASH_CUTS=10000 HOLDFAST_KILLS=100; \
	quiet() { grep -v '^=== \|^ *--- SKIP\|no test files'; }; \
	$(GO) test -v -count=1 -timeout 30m $(LONG) | quiet; \
	$(GO) test -v -count=1 -timeout 30m -run PowerCuts ./hub/session -crashes 600 | quiet; \
	$(GO) test -v -count=1 -timeout 30m -run Sweep ./hub/forward -sweeps 40 | quiet

bench: build setup ## measure against the peers and rewrite the table in BENCHMARKS.md
	$(BIN)/holdfast-hil bench --write BENCHMARKS.md

cross: ## static binaries for linux on amd64, arm64 and arm/v7 into dist/
	@for a in amd64 arm64 arm; do \
	  echo "linux/$$a"; mkdir -p dist/linux-$$a; \
	  GOOS=linux GOARCH=$$a GOARM=7 $(BUILD) -o dist/linux-$$a/ ./cmd/holdfast ./cmd/holdfast-hil || exit 1; \
	done

clean: ## remove what the targets above made
	rm -rf $(BIN) dist
