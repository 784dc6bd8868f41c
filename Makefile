SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# A checkout may belong to somebody else than the one who builds, which git refuses to describe.
export GOFLAGS := $(filter-out -buildvcs%,$(GOFLAGS)) -buildvcs=false

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LINT      = v2.15.0
VULN      = v1.9.0
FUZZTIME ?= 30s
SEEDS    ?= 10000
BENCH    ?= .
ROWS     ?=
IMAGE    ?= owr:local
SOAK     ?= 1h
MUTANTS  ?=
CHAOS    ?= 2
COMPOSE   = $(shell if docker compose version >/dev/null 2>&1; then echo docker compose; else echo docker-compose; fi)

.PHONY: help build test secure race simulate wire fuzz bench bench-quick bench-tools gobench e2e faults faults-quick mutants soak lint fmt cover image up down ci compose-test accept tools abuse abuse-quick verify vuln sbom

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the binary, ./bin/owr
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/owr ./cmd/owr

tools: ## what the tests need beside Go: redis-server, chromium, a C compiler for -race
	@scripts/need redis-server chromium gcc haproxy

test: tools ## every test: packages, three real nodes with Redis, a real browser
	go test ./...
	go test ./proxy -goroutines

secure: tools ## the tests of the proxy once more, with clients that speak TLS
	go test ./proxy -secure

race: tools ## every test under the race detector, the nodes of the end-to-end tests too; the proxy's with clients that speak TLS as well
	go test -race -timeout 20m ./...
	go test -race ./proxy -secure

wire: ## owr byte by byte, then the same bytes to nginx and HAProxy: what differs must be explained in test/wire/testdata
	@scripts/need nginx haproxy curl python3
	go test -count 1 -timeout 10m ./test/wire -compare

fuzz: ## every fuzz target for FUZZTIME (30s)
	@for package in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "fuzz $$package $$target"; \
	    scripts/fuzz $$package $$target $(FUZZTIME); \
	  done; \
	done

simulate: ## the cluster's logic under SEEDS (10000) seeded mixtures of delays, losses, pauses, crashes and clocks, the mirror under a twentieth of them
	go test ./cluster -run '^TestSimulation$$' -count 1 -v -timeout 30m -sim-seeds $(SEEDS)
	go test ./mirror -run '^TestSimulation$$' -count 1 -v -timeout 30m -sim-seeds $$(($(SEEDS) / 20))

bench: bench-tools ## owr next to its baselines: table, bench/results, docs/img; ROWS picks some
	go build -o bin/bench ./bench
	bin/bench -rows '$(ROWS)'

bench-quick: bench-tools ## what a busy machine can answer of it, in under three minutes
	go build -o bin/bench ./bench
	bin/bench -quick

bench-tools:
	@scripts/need nginx wrk redis-server
	@[ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ] || scripts/need libnginx-mod-http-lua

gobench: ## benchmarks of the packages; BENCH picks some
	go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

e2e: tools ## the end-to-end tests alone, with their log
	go test -count 1 -v ./test/...

faults: tools ## harm of every kind to real nodes under visitors, audited: up to 20 minutes, figures in bin/faults
	@scripts/need strace ip nft
	go test -count 1 -v -timeout 40m ./test/faults -faults -reports $(CURDIR)/bin/faults

faults-quick: tools ## the most telling of it, in under two minutes
	go test -count 1 -v -timeout 10m ./test/faults -faults -quick

abuse: tools ## floods, slow and aborted connections against a real node: minutes, figures in its log
	ulimit -n $$(ulimit -Hn); go test -count 1 -v -timeout 30m ./test/abuse -abuse

abuse-quick: tools ## the same with fewer of them
	go test -count 1 -v -timeout 10m ./test/abuse -quick

mutants: ## seeded faults, one after the other, and which test catches which; MUTANTS=-quick leaves out slow ones
	@scripts/need redis-server
	go run ./test/mutants $(MUTANTS)

soak: tools ## harm at random to one cluster for SOAK (1h), with a leak check; the summary is the end of its log
	go test -count 1 -v -timeout 0 -run TestSoak ./test/faults -soak $(SOAK) -reports $(CURDIR)/bin/soak

lint: bin/golangci-lint-$(LINT) ## golangci-lint and the formatters
	$< run
	$< fmt --diff

fmt: bin/golangci-lint-$(LINT) ## format every file
	$< fmt

bin/golangci-lint-$(LINT):
	GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT)
	mv bin/golangci-lint $@

verify: ## the modules are what go.sum says
	go mod verify

vuln: bin/govulncheck-$(VULN) build ## known vulnerabilities in what the binary holds; skipped where the database does not answer
	@scripts/vuln $< bin/owr

bin/govulncheck-$(VULN):
	GOBIN=$(CURDIR)/bin go install golang.org/x/vuln/cmd/govulncheck@$(VULN)
	mv bin/govulncheck $@

sbom: build ## what the binary is made of, as CycloneDX: bin/owr.cdx.json; the image has it as /sbom.json
	go run ./cmd/sbom bin/owr $(VERSION) >bin/owr.cdx.json

cover: tools ## statement coverage of all tests, in cover.out
	go test -coverpkg ./... -coverprofile cover.out ./...
	go tool cover -func cover.out | tail -n 1

image: ## the container image, owr:local
	docker build --build-arg VERSION=$(VERSION) -t $(IMAGE) .

up: ## three nodes, Redis and an origin in containers: http://localhost:8080
	$(COMPOSE) up --build --detach

down: ## end what `make up` started, and its volumes
	$(COMPOSE) down --volumes

compose-test: ## run docker-compose.yml for real and kill its leader; skipped where no engine answers
	@if docker version >/dev/null 2>&1; then \
	  OWR_COMPOSE_TEST=1 go test -count 1 -v -timeout 15m ./test/compose; \
	else \
	  echo "SKIP compose-test: no container engine answers (docker version fails)"; \
	fi

accept: build ## the acceptance kit beside the checkout, where there is one
	@if [ -d ../shared/accept ]; then \
	  scripts/need redis-server python3; \
	  scripts/accept bin/owr ../shared/accept/01_main_job.py ../shared/accept/02_cluster.py ../shared/accept/04_http.py; \
	  MINUTES=$(CHAOS) scripts/accept bin/owr ../shared/accept/03_chaos.py; \
	else \
	  echo "SKIP accept: there is no acceptance kit beside this checkout"; \
	fi

# One step of ci: its name, then how long it took.
step = @echo "== $@: $(1)"; begun=$$SECONDS; $(MAKE) --no-print-directory $(1) $(2) && echo "== $@: $(1) took $$((SECONDS - begun)) s"

ci: ## what CI runs
	$(call step,build)
	$(call step,verify)
	$(call step,vuln)
	$(call step,sbom)
	$(call step,lint)
	$(call step,test)
	$(call step,secure)
	$(call step,wire)
	$(call step,race)
	$(call step,fuzz,FUZZTIME=4s)
	$(call step,faults-quick)
	$(call step,mutants,MUTANTS=-quick)
	$(call step,abuse-quick)
	$(call step,bench-quick)
	$(call step,compose-test)
	$(call step,accept)
