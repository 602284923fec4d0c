# Needs git, make and Python 3.11, 3.12 or 3.13. Everything is installed into .venv and nowhere else.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TODAY := $(shell date +%Y-%m-%d)

# Threads that wait must not spin; the suite never needs the network.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0
export KMP_BLOCKTIME ?= 0
FUZZ_MINUTES ?= 10
TEST_ENVIRONMENT := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

.PHONY: help demo setup lint test test-slow crash bench tiers pocket screenshot clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## install everything into .venv

# The newest Python that is in range: python3 if it is, else one named by its version.
$(STAMP): pyproject.toml
	@for name in python3 python3.13 python3.12 python3.11; do \
	    if command -v $$name >/dev/null && $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	    then found=$$name; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	    echo "lorakiln needs Python 3.11, 3.12 or 3.13; none is on the PATH (python3 is $$(python3 -V 2>&1 || true))" >&2; exit 1; \
	fi; \
	if ! $(PYTHON) -m pip --version >/dev/null 2>&1; then echo "making $(VENV) with $$found"; $$found -m venv $(VENV); fi
	@echo 'installing into $(VENV); torch is a large download the first time'
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## train a LoRA on the pocket model that ships with lorakiln
	@$(VENV)/bin/kiln demo

lint: $(STAMP) ## formatting, lint, types, floors
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

test: lint ## the gate: lint and every test but those marked slow, gpu or crash
	$(TEST_ENVIRONMENT) $(PYTHON) -m pytest -q -n 2 --dist worksteal --durations=25 -m 'not slow and not gpu and not crash'

test-slow: $(STAMP) ## tests marked slow; figures go to docs/figures
	@mkdir -p build
	status=0; \
	$(TEST_ENVIRONMENT) $(PYTHON) -m pytest -q -m 'slow and not gpu and not crash' --durations=15 \
	    | tee build/slow.txt || status=$$?; \
	$(PYTHON) -m tests.bench.figures docs/figures/$(TODAY)-slow.md < build/slow.txt; \
	exit $$status

crash: $(STAMP) ## kills, power loss, faults and hostile input at length, then the fuzzers; figures go to docs/figures
	@mkdir -p build; rm -f build/crash.jsonl build/crash.txt
	export KILN_FIGURES='$(CURDIR)/build/crash.jsonl'; status=0; \
	$(TEST_ENVIRONMENT) $(PYTHON) -m pytest -q -m 'crash and not gpu' --durations=15 \
	    | tee build/crash.txt || status=$$?; \
	if [ -e tests/fuzz/__main__.py ]; then \
	    $(TEST_ENVIRONMENT) $(PYTHON) -m tests.fuzz --minutes $(FUZZ_MINUTES) | tee -a build/crash.txt || status=$$?; \
	fi; \
	$(PYTHON) -m tests.crash build/crash.jsonl build/crash.txt docs/figures/$(TODAY)-crash.md || status=$$?; \
	exit $$status

bench: $(STAMP) ## benchmarks; figures go to docs/figures
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.bench docs/figures/$(TODAY)-bench.md

tiers: $(STAMP) ## solve the shipped tiers anew, after a change of forecast or solver
	$(PYTHON) -m profiles.tiers

pocket: $(STAMP) ## build the pocket model anew, in stages that can be interrupted
	$(PYTHON) -m engine.models.pocket.build

screenshot: $(STAMP) ## export docs/screenshots from the real screen
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.screenshot docs/screenshots

clean: ## remove the virtual environment and all that was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
