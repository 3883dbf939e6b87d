# Everything a fresh machine needs: `make demo`, `make test`. Needs Python 3.11+ with venv, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
TORCH ?= torch==2.13.0
CONSTRAINTS = constraints.txt

.PHONY: demo bench test test-slow test-gpu lint proto proto-check constraints image clean help

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

# torch first and pinned: an unpinned one would bring gigabytes of CUDA packages.
$(VENV)/.installed: pyproject.toml cloud_server/pyproject.toml $(CONSTRAINTS)
	@echo "installing into $(VENV); the first time this takes a few minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable . --editable './cloud_server[dev]'
	touch $@

demo: $(VENV)/.installed ## Cloud and device as two processes, on the embedded bundle: out/demo.png and a table
	$(BIN)/python -m ciar.benchmarks.demo

BENCH_FLAGS ?=
bench: $(VENV)/.installed ## Every method through every network: out/bench.md, bench.png, bench.jsonl; BENCH_FLAGS=--quick
	$(BIN)/ciar bench $(BENCH_FLAGS)

test: lint $(VENV)/.installed ## Everything but slow and gpu tests
	$(BIN)/python -m pytest -m 'not slow and not gpu'

test-slow: $(VENV)/.installed ## The tests that take minutes
	$(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/.installed ## The tests that need CUDA
	$(BIN)/python -m pytest -m gpu

lint: $(VENV)/.installed proto-check ## Formatters, linters, types, import rules, contract, Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/hadolint deploy/*.Dockerfile

PROTO = ciar/v1/service.proto
PROTOC = $(BIN)/python -m grpc_tools.protoc -Iprotos

proto: $(VENV)/.installed ## Generate the stubs from protos/
	$(PROTOC) --python_out=shared --pyi_out=shared --grpc_python_out=shared protos/$(PROTO)

proto-check: $(VENV)/.installed
	@rm -rf build/proto && mkdir -p build/proto
	@$(PROTOC) --python_out=build/proto --pyi_out=build/proto --grpc_python_out=build/proto protos/$(PROTO)
	@diff -r --exclude=__pycache__ build/proto/ciar/v1 shared/ciar/v1 || (echo "stubs are stale: run make proto"; exit 1)

constraints: ## Resolve every dependency but torch anew, and pin what comes out in constraints.txt
	$(PYTHON) -m venv --clear build/newest
	build/newest/bin/pip install --quiet "$(TORCH)"
	build/newest/bin/pip install --quiet --editable . --editable './cloud_server[dev]'
	head -2 $(CONSTRAINTS) > build/constraints.txt
	build/newest/bin/pip freeze --exclude-editable | grep -vE '^(torch|triton|nvidia-|cuda-)' >> build/constraints.txt
	mv build/constraints.txt $(CONSTRAINTS)

IMAGE ?= ciar-cloud:latest
# More flags of the build, such as --build-arg BASE=… or TORCH_INDEX=….
IMAGE_FLAGS ?=
# Docker if its engine answers, else podman, else buildah; `make image BUILDER=podman` chooses.
BUILDER ?= $(shell for tool in docker podman buildah; do $$tool info >/dev/null 2>&1 && echo $$tool && break; done)
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

image: ## The cloud's container image, with docker, podman or buildah
	@test -n "$(BUILDER)" || (echo "make image needs a running docker, podman or buildah"; exit 1)
	BUILDAH_FORMAT=docker $(BUILDER) build --file deploy/cloud.Dockerfile --tag $(IMAGE) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse --short HEAD) $(IMAGE_FLAGS) .

clean: ## Remove what the targets made
	rm -rf $(VENV) build out
