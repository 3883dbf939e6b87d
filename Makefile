# Everything a fresh machine needs: `make demo`, `make test`. Needs Python 3.11+ with venv, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
TORCH ?= torch==2.13.0
CONSTRAINTS = constraints.txt

.PHONY: demo test test-slow test-gpu lint proto proto-check image clean help

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

# torch first and pinned: an unpinned one would bring gigabytes of CUDA packages.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed ## Cloud and device as two processes, on the embedded bundle: out/demo.png and a table
	$(BIN)/python -m benchmarks.demo

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

PROTO = shared/wire/ciar/v1/service.proto
PROTOC = $(BIN)/python -m grpc_tools.protoc -Iprotos

proto: $(VENV)/.installed ## Generate the stubs from protos/
	$(PROTOC) --python_out=. --pyi_out=. --grpc_python_out=. protos/$(PROTO)

proto-check: $(VENV)/.installed
	@rm -rf build/proto && mkdir -p build/proto
	@$(PROTOC) --python_out=build/proto --pyi_out=build/proto --grpc_python_out=build/proto protos/$(PROTO)
	@diff -r --exclude=__pycache__ build/proto/shared/wire shared/wire || (echo "stubs are stale: run make proto"; exit 1)

clean: ## Remove what the targets made
	rm -rf $(VENV) build out
