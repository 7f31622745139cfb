# All that a fresh machine needs is Python 3.11 or later and make. Every target sets up what it uses.

# The Python of the environment. If it is not given, the fastest of this machine's builds.
PYTHON ?=
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3
# What runs the setup itself. Some shells look for no more than one name at once.
ANY_PYTHON := $(or $(PYTHON),$(firstword $(foreach name,$(PYTHONS),$(shell command -v $(name)))))
UV_VERSION := 0.13.9
SEEDS ?= 100
JOBS ?= $(shell nproc)
# Tests wait as much as they work.
TEST_JOBS ?= $(shell expr $$(nproc) + 1)
EACH_STEP_SEEDS ?= 100
RUNS ?= 1
BIN := .venv/bin
UV := .venv/.uv/bin/uv
# Some networks need the system's certificates, and some machines have none: uv's own are tried first.
SYNC = VIRTUAL_ENV= $(UV) sync --quiet --locked --all-extras --python $(BIN)/python
PROTOS := $(wildcard proto/pincex/tx/v1/*.proto)
# What others were given: `buf breaking` compares with it, `make baseline` renews it at a release.
BASELINE := proto/baseline.binpb
STARTED = $$(date +%s)
# Tests start hundreds of processes: what those import is compiled once, even where the machine says otherwise.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup run test check bench simulate proto baseline clean generate crash mutants bench-recovery bench-filled bench-guard bench-flames soak
.DEFAULT_GOAL := help

help:
	@echo "make setup      the environment in .venv, from the lock file"
	@echo "make run        everything on this machine: servers, sidecars, coordinator"
	@echo "make test       all tests, on real servers, with coverage, by TEST_JOBS=$(TEST_JOBS) processes"
	@echo "make check      style, types, import rules, the contract"
	@echo "make simulate   SEEDS=$(SEEDS) seeds of the simulator"
	@echo "make crash      RUNS=$(RUNS) kills of real processes at every named point"
	@echo "make mutants    each rule broken on purpose, and what notices"
	@echo "make bench      the product against the machine's limits: a quarter of an hour; one part of it alone:"
	@echo "                bench-recovery: after a kill; bench-filled: a log with 10 million finished transactions;"
	@echo "                bench-flames: where each microsecond goes, as tables and flame graphs in build/flames;"
	@echo "                bench-guard: fails where the product has fallen behind; soak: ten minutes, memory over time"
	@echo "make proto      the code generated from proto/"
	@echo "make clean      remove the environment, the development data and every cache"

setup: .venv/.ready
	@echo "setup: .venv is ready, as uv.lock says"

.venv/.ready: pyproject.toml uv.lock Makefile
	@test -n "$(ANY_PYTHON)" || { echo "setup: Python 3.11 or later is needed" >&2; exit 1; }
	@$(ANY_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "setup: Python 3.11 or later is needed")'
	@mkdir -p .venv
	@test "$$($(UV) --version 2>/dev/null | cut -d' ' -f2)" = "$(UV_VERSION)" || \
	  { rm -rf .venv/.uv .venv/.pip && pip="$(ANY_PYTHON) -m pip" && \
	    { $$pip --version > /dev/null 2>&1 || { $(ANY_PYTHON) -m venv .venv/.pip && pip=".venv/.pip/bin/python -m pip"; }; } && \
	    PIP_REQUIRE_VIRTUALENV= $$pip install --quiet --disable-pip-version-check --root-user-action=ignore \
	      --target .venv/.uv "uv==$(UV_VERSION)" && rm -rf .venv/.pip; }
	@test -x $(BIN)/python || { python="$(PYTHON)" && \
	  { test -n "$$python" || python=$$($(ANY_PYTHON) deploy/fastest_python.py); } && \
	  VIRTUAL_ENV= $(UV) venv --quiet --no-project --allow-existing --python "$$python" .venv; }
	@$(SYNC) 2> /dev/null || $(SYNC) --system-certs
	@touch $@

run: .venv/.ready
	@$(BIN)/pincex dev

test: .venv/.ready
	@start=$(STARTED); $(BIN)/coverage erase && \
	$(BIN)/coverage run -m pytest --numprocesses $(TEST_JOBS) --dist loadscope --no-loadscope-reorder && \
	$(BIN)/coverage combine --quiet && \
	$(BIN)/coverage report --skip-covered --show-missing && \
	$(BIN)/coverage report --include='coordinator/protocol/*,participant_sdk/branch.py' --fail-under=100 > /dev/null && \
	echo "test: passed in $$(( $(STARTED) - start )) s; coverage $$($(BIN)/coverage report --format=total) %, the protocol's core 100 %"

check: .venv/.ready
	@start=$(STARTED); $(BIN)/ruff check --quiet . && \
	$(BIN)/ruff format --check --quiet . && \
	$(BIN)/basedpyright && \
	$(BIN)/lint-imports --no-cache --no-logo && \
	$(BIN)/buf lint && \
	$(BIN)/buf breaking --against $(BASELINE) && \
	$(UV) lock --check --quiet && \
	fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(MAKE) --silent generate INTO="$$fresh" && \
	for file in $$(cd "$$fresh" && find . -type f); do cmp "$$fresh/$$file" "proto/$$file" || exit 1; done && \
	echo "check: clean in $$(( $(STARTED) - start )) s (style, types, import rules, contract, generated code, lock file)"

simulate: .venv/.ready
	@$(BIN)/python -m tests.simulation --each-step --seeds $(EACH_STEP_SEEDS) --jobs $(JOBS)
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) --jobs $(JOBS)

crash: .venv/.ready
	@$(BIN)/python -m tests.crash --runs $(RUNS) --json build/crash.json
	@$(BIN)/python -m tests.crash --runs $(RUNS) --coordinators 2 --json build/crash-2.json
	@$(BIN)/pytest -m slow

mutants: .venv/.ready
	@$(BIN)/python -m tests.mutants

bench: .venv/.ready
	@$(BIN)/python -m tests.benchmarks

bench-recovery: .venv/.ready
	@$(BIN)/python -m tests.benchmarks --parts recovery --rounds 3 --output build/recovery.json

bench-filled: .venv/.ready
	@$(BIN)/python -m tests.benchmarks --parts filled --output build/filled.json

bench-guard: .venv/.ready
	@$(BIN)/python -m tests.benchmarks --guard --output build/guard.json

bench-flames: .venv/.ready
	@$(BIN)/python -m tests.benchmarks --parts flames --seconds 8 --output build/flames.json

soak: .venv/.ready
	@$(BIN)/python -m tests.benchmarks --parts soak --output build/soak.json

proto: .venv/.ready
	@$(MAKE) --silent generate INTO=proto
	@echo "proto: generated from $(words $(PROTOS)) files"

baseline: .venv/.ready
	@$(BIN)/buf build -o $(BASELINE)
	@echo "baseline: $(BASELINE) is what this contract says now"

# The generated code, into the folder $(INTO).
generate:
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto \
	  --python_out="$(INTO)" --grpc_python_out="$(INTO)" \
	  --mypy_out=quiet:"$(INTO)" --mypy_grpc_out=quiet:"$(INTO)" $(PROTOS:proto/%=%)

clean:
	@for link in $$(find .pincex -maxdepth 1 -type l -lname '/var/lib/pincex/*' 2>/dev/null); do rm -rf "$$(readlink "$$link")"; done
	@rm -rf .venv .pincex .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.* build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean: the environment, the development data and the caches are gone"
