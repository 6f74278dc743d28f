# Everything a checkout needs; `make help` lists it. Needs Python 3.11 to 3.13, git and make.
SHELL := /bin/sh
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/installed
TESTS ?= tests
JOBS ?= 2

# The first Python that fits; `make PYTHON=/path/to/python3.12 ...` names one.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)

export PATH := $(BIN):$(PATH)
export NO_ALBUMENTATIONS_UPDATE := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test quick lint types check house format ui bench lock clean
.DEFAULT_GOAL := help

help: ## this list
	@echo "make TARGET, where TARGET is"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' Makefile

demo: $(STAMP) ## the whole way on real photographs: fetch, prepare, train, evaluate, report (5 minutes on two cores)
	@git rev-parse --git-dir >/dev/null 2>&1 || dvc config --local core.no_scm true
	@echo "demo: dvc repro. Solar cells, defective or not: 2,624 photographs (87 MB), a net fine-tuned on this machine."
	@dvc repro
	@stillframe scores

test: $(STAMP) ## all tests (JOBS=2 processes; TESTS=tests/data for a part)
	@echo "test: pytest $(TESTS), $(JOBS) processes"
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 python -m pytest -q -n $(JOBS) --dist worksteal $(TESTS)

quick: $(STAMP) ## the tests near what you have changed, without the slow ones (up to a minute and a half)
	@tests="$$(python tests/quick.py)" && echo "quick: pytest $$tests" && \
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 python -m pytest -q -n $(JOBS) --dist worksteal -m "not slow" $$tests

lint: $(STAMP) ## ruff, and the layers of the house
	@ruff check .
	@ruff format --check .
	@lint-imports --no-logo

types: $(STAMP) ## mypy, strict
	@mypy

check: lint types ## lint, types, params.yaml up to date
	@stillframe compose --check

house: $(STAMP) ## size, fragmentation, comments, cycles and names of src, in numbers
	@python tests/house.py

format: $(STAMP) ## ruff format, and the fixes that are safe
	@ruff check -q --fix . || true
	@ruff format .

ui: $(STAMP) ## the MLflow UI on this checkout's record, http://127.0.0.1:5000
	@stillframe ui

bench: $(STAMP) ## the measurements of docs/benchmarks.md: speed (25 minutes), pruning (30), scores (over an hour)
	@python -m bench

lock: ## resolve pyproject.toml anew and write requirements.lock (a fresh environment, then thrown away)
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11, 3.12 or 3.13" >&2; exit 1; }
	@rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	@echo "lock: resolving and installing (about 5.5 GB)"
	@.venv-lock/bin/python -m pip install -q -e '.[dev]'
	@.venv-lock/bin/python .ci/lock.py
	@rm -rf .venv-lock

clean: ## caches of tools and builds; data, artifacts, the record and .venv stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage build dist
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed anew only when the pins or the project's own metadata change.
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { \
		echo "make: needs Python 3.11, 3.12 or 3.13 (python3 here: $$(python3 --version 2>&1)):" >&2; \
		echo "make: install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "$(VENV): installing the pinned packages (about 5.5 GB with PyTorch's CUDA libraries, one to two minutes)"
	@$(VENV)/bin/python -m pip install -q -r requirements.lock
	@$(VENV)/bin/python -m pip install -q --no-deps -e .
	@touch $@
