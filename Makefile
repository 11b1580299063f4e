# The commands a person needs. Everything a target wants it installs itself.
#
#   make quickstart   the main job on a real model, from download to answers (about 6 minutes)
#   make test         every test, with the race detector; downloads libonnxruntime once
#   make bench        Graft, and its peers where GRAFT_PEERS names their scripts, at the same work; then the kernels
#   make bench-gemm   the matrix products beside PyTorch's; GRAFT_PEERS_PYTHON has PyTorch
#   make bench-scaling  tokens/s and memory by sequence length and batch
#   make bench-large  converting, quantizing and merging a sparse model of 8 GB (ARGS='--gigabytes 40'): time and memory
#   make bench-7b     QLoRA on a random checkpoint of a 7B llama's shape (8 GB of disk, 7 GB of memory)
#   make lint         gofmt, vet, staticcheck
#   make build        bin/graft

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
ORT_DIR := .tools/ort

.PHONY: build quickstart test bench bench-gemm bench-scaling bench-7b bench-large lint generate fuzz

build:
	go build -o bin/graft ./cmd/graft

quickstart: build
	./testdata/quickstart/quickstart.sh

# libonnxruntime for the tests that run exported models, out of its wheel.
$(ORT_DIR)/.done:
	./testdata/quickstart/fetch.sh ort $(ORT_DIR)
	@touch $@

test: $(ORT_DIR)/.done
	CGO_ENABLED=0 go build ./...
	GOARCH=arm64 CGO_ENABLED=0 go vet ./...
	GRAFT_ORT_LIB="$$(ls $(CURDIR)/$(ORT_DIR)/libonnxruntime.so* | head -n 1)" go test ./...
	go test -tags purego ./...
	@if [ "$$(go env CGO_ENABLED)" = 1 ] && grep -qsw avx512_bf16 /proc/cpuinfo; then set -x; \
	  go test -short -tags amxemulator ./internal/kernel/... ./internal/autograd ./internal/engine ./train/...; \
	else echo "AMX is not emulated here, which takes Linux, cgo and AVX512-BF16: its kernels are tested where the processor has it"; fi
	GRAFT_ORT_LIB="$$(ls $(CURDIR)/$(ORT_DIR)/libonnxruntime.so* | head -n 1)" go test -race -short ./...

bench: build
	$(PYTHON) testdata/bench/bench.py
	go test -run '^$$' -bench . -benchtime 300ms ./internal/kernel ./quantize

# ARGS is passed on; each script's --help says what it takes.
bench-gemm:
	$(PYTHON) internal/kernel/testdata/compare_torch.py $(ARGS)

bench-scaling: build
	$(PYTHON) testdata/bench/scaling.py $(ARGS)

bench-7b: build
	$(PYTHON) testdata/bench/sevenb.py $(ARGS)

bench-large: build
	$(PYTHON) testdata/bench/large.py $(ARGS)

lint:
	@unformatted="$$(gofmt -l $$(git ls-files '*.go'))"; if [ -n "$$unformatted" ]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags purego ./...
	go vet -tags amxemulator ./internal/kernel/...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 -tags amxemulator ./internal/kernel/...

generate:
	go generate ./...

# 15 seconds of every fuzz target.
fuzz:
	@for pkg in $$(go list ./...); do \
	  dir="$${pkg#github.com/graftml/graft/}"; \
	  for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$$dir"/*_test.go 2>/dev/null | cut -c6-); do \
	    echo "fuzz $$dir $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $${FUZZTIME:-15s} -fuzzminimizetime 10x "./$$dir"; \
	  done; done
