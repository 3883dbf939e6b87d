# Everything a fresh machine needs: `make demo`, `make test`. Needs Python 3.11+ with venv, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
TORCH ?= torch==2.13.0
CONSTRAINTS = constraints.txt
LOCK = requirements.lock

.PHONY: demo bench test test-slow test-gpu test-lowest test-locked test-packaging coverage lint docs dist proto \
	proto-check constraints lock image clean help

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

coverage: $(VENV)/.installed ## Tests of what is shipped, and whether they run enough of it: build/coverage.xml
	@mkdir -p build
	$(BIN)/python -m pytest -m 'not slow and not gpu' --cov --cov-report=term --cov-report=xml:build/coverage.xml \
		tests/shared tests/device_client tests/cloud_server tests/contract

test-packaging: $(VENV)/.installed ## What the wheels hold, installed into empty environments
	$(BIN)/python -m pytest tests/packaging tests/test_device_install.py

# The products at the versions that pyproject.toml promises, in an environment of its own: the device alone, then both.
# Test tools are as ever, but for those that want newer numpy; warnings of old versions are nobody's business.
LOWEST = build/lowest/bin
LOWEST_TEST = $(LOWEST)/python -m pytest -m 'not slow and not gpu' -o filterwarnings=default
LOWEST_INSTALL = $(LOWEST)/pip install --quiet --constraint

test-lowest: ## Both products' tests with the lowest direct versions
	$(PYTHON) -m venv --clear build/lowest
	$(PYTHON) tests/packaging/floors.py both cli train bench > build/lowest.txt
	$(PYTHON) tests/packaging/floors.py device cli > build/lowest-device.txt
	grep -E '^(onnx|scipy)==' build/lowest.txt > build/lowest-tools.txt
	grep -iE '^(hypothesis|pytest|pytest-timeout|pyyaml)==' $(CONSTRAINTS) >> build/lowest-tools.txt
	$(LOWEST_INSTALL) build/lowest-device.txt --requirement build/lowest-tools.txt --editable '.[cli]'
	$(LOWEST)/pip check
	$(LOWEST_TEST) tests/device_client
	$(LOWEST_INSTALL) build/lowest.txt "$(TORCH)"
	$(LOWEST_INSTALL) build/lowest.txt --editable . --editable './cloud_server[train,bench]'
	$(LOWEST)/pip check
	$(LOWEST_TEST) tests/shared tests/device_client tests/cloud_server

test-locked: ## All but slow tests on exactly what requirements.lock names, as before a release
	$(PYTHON) -m venv --clear build/locked
	build/locked/bin/pip install --quiet --requirement $(LOCK)
	build/locked/bin/pip install --quiet --no-deps --editable . --editable ./cloud_server
	build/locked/bin/pip check
	build/locked/bin/python -m pytest -m 'not slow and not gpu'

lint: $(VENV)/.installed proto-check ## Formatters, linters, types, import rules, contract, Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/hadolint deploy/*.Dockerfile

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable . --editable './cloud_server[docs]'
	touch $@

docs: $(VENV)/.docs ## The site with the API's reference: build/site/index.html; a broken link is an error, and so is an asset from elsewhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@! grep -rnE '<(script|link|img)[^>]*(src|href)="?https?://' build/site --include='*.html'

# The cloud's wheel holds folders beside its own, so it has no source distribution: the repository is that.
dist: $(VENV)/.installed ## Both wheels and the device's source distribution, as a release has them: dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --wheel --outdir dist ./cloud_server

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
	build/newest/bin/pip install --quiet --editable . --editable './cloud_server[dev,docs]'
	head -2 $(CONSTRAINTS) > build/constraints.txt
	build/newest/bin/pip freeze --exclude-editable | grep -vE '^(torch|triton|nvidia-|cuda-)' >> build/constraints.txt
	mv build/constraints.txt $(CONSTRAINTS)
	$(MAKE) lock

# A local version such as 2.13.0+cpu is left out, and what only some builds of torch need: torch pins that itself.
lock: ## Write requirements.lock: what constraints.txt and the Makefile's torch come to, all of it
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/pip install --quiet --constraint $(CONSTRAINTS) "$(TORCH)"
	build/lock/bin/pip install --quiet --constraint $(CONSTRAINTS) --editable . --editable './cloud_server[dev,docs]'
	build/lock/bin/pip check
	grep '^#' $(LOCK) > build/requirements.lock
	build/lock/bin/pip freeze --exclude-editable | grep -vE '^(triton|nvidia-|cuda-)' | sed 's/^\(torch==[^+]*\)+.*/\1/' \
		>> build/requirements.lock
	mv build/requirements.lock $(LOCK)

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
