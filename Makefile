# Spigot. `make help` lists what there is.
SHELL := /bin/bash
GO    ?= go
TOOL  := $(GO) tool -modfile=.ci/tools.mod
BENCHTIME ?= 100ms
BENCH     ?= .
COUNT     ?= 1
export CGO_ENABLED = 0
# The scripts use tools of root, whose folder not everybody has in the path.
export PATH := $(PATH):/usr/sbin:/sbin
# git refuses a clone that is somebody else's, and go build, which asks it, fails with it.
export GOFLAGS += $(shell git rev-parse HEAD >/dev/null 2>&1 || echo -buildvcs=false)

.PHONY: all build demo demo-ike test test-race test-tiers test-vectors test-matrix bench soak lint generate check-generated clean help deps-demo deps-test deps-generate

all: build ## build bin/spigot, bin/spigotctl and bin/spigen (the default)

build:
	@mkdir -p bin
	$(GO) build -trimpath -o bin/ ./cmd/...

demo: deps-demo build ## two gateways in network namespaces, real packets through ESP over AF_XDP, a live report
	examples/demo/demo.sh

demo-ike: deps-demo deps-test build ## no SA, a first packet, ACQUIRE, IKE between unmodified daemons, rekeying under load (PEER=iked)
	examples/demo-ike/demo.sh

test: deps-test build test-race test-tiers test-vectors ## all tests: race detector, independent peers, test vectors

# The race detector is the one thing that needs cgo, and so a C compiler.
test-race:
	@mkdir -p bin
	CGO_ENABLED=1 SPIGOT_TABLES=$(CURDIR)/bin/linux.txt $(GO) test -race -timeout 15m ./...
	@echo "Packets between the gateway and Linux's IPsec stack (TestLinuxAgrees):"; cat bin/linux.txt

# test-race has the best tier of crypto's kernels; here are all that this machine can run, and the builds without any.
test-tiers:
	@for tier in vaes512 vaes256 std; do \
	  export SPIGOT_CRYPTO_TIER=$$tier; \
	  if ! $(GO) test -count=1 -run '^TestChosenTier$$' ./crypto >/dev/null; then echo "tier $$tier: this machine cannot"; continue; fi; \
	  echo "tier $$tier:"; \
	  $(GO) test -count=1 ./crypto ./sad && (cd crypto/wycheproof && $(GO) test -count=1 ./...) || exit; done # no cache: it does not see the variable
	$(GO) test -tags purego ./crypto
	GOARCH=arm64 $(GO) vet ./crypto

# Each file of vectors tells how many of it ran; a file of which none runs fails.
test-vectors:
	$(GO) test -count=1 -v -run 'Vectors|NIST' ./crypto
	cd crypto/wycheproof && $(GO) test -count=1 -v -run . ./...

test-matrix: deps-test ## the whole matrix against a real Linux kernel's IPsec stack, of which test tries a part
	@mkdir -p bin && rm -f bin/matrix.txt
	@SPIGOT_MATRIX=full SPIGOT_TABLES=$(CURDIR)/bin/matrix.txt $(GO) test -count=1 -timeout 60m -v -run '^TestLinux' ./cmd/spigot; \
	status=$$?; echo "Packets between the gateway and Linux's IPsec stack (TestLinuxAgrees):"; cat bin/matrix.txt; exit $$status

bench: ## benchmarks with cycles/pkt, Mpps and Gbit/s (BENCH=regexp BENCHTIME=1s COUNT=5)
	@# One run after the other: -count would repeat each benchmark in place, and drivers are compared side by side.
	@for i in $$(seq $(COUNT)); do \
	  $(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -timeout 60m ./bench/... || exit; done

soak: deps-demo build ## ten minutes at full rate over veth with the fault wrapper on (DURATION=600)
	DURATION=$(or $(DURATION),600) examples/demo/soak.sh

lint: check-generated ## gofmt, go vet, staticcheck, shellcheck where there is one, freshness of generated files
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "not gofmt-clean:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	@! command -v shellcheck >/dev/null || shellcheck -x .ci/deps .ci/fresh .ci/run examples/demo/*.sh

generate: deps-generate ## generate committed code anew (the XDP programs)
	$(GO) generate ./...

check-generated: deps-generate ## fail when committed generated files are stale
	.ci/fresh

clean: ## remove what was built
	rm -rf bin demo.out

deps-demo deps-test deps-generate:
	@.ci/deps $(@:deps-%=%)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
