PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-cluster test-federation lint format types contract wheel check bench base lock clean

help:  ## print these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP)  ## make .venv with everything, as pinned in constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "fedit needs Python 3.11 or newer; '$(PYTHON)' is" \
	       "$$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch hatchling editables
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

demo: install  ## the paper's claim on the embedded model: a four-way table and a page (runs/demo)
	rm -rf runs/demo
	$(BIN)/fedit study recipes/demo.yaml --output runs/demo
	$(BIN)/fedit report runs/demo

test: install  ## run the whole suite
	$(BIN)/python -m pytest -n 3 --dist worksteal

test-cluster: install  ## kill machines, actors and drivers of a Ray cluster
	$(BIN)/python -m pytest -m cluster tests/engines/test_ray.py tests/test_compression.py

test-federation: install  ## kill and restart every process of real federations (a quarter of an hour)
	$(BIN)/python -m pytest -m network -s tests/federation

lint: install  ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## let ruff put style and formatting right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install  ## static types
	$(BIN)/mypy

contract: install  ## imports point one way
	$(BIN)/lint-imports

wheel: install  ## build the wheel into dist/ and import every module of it
	$(BIN)/python scripts/check_wheel.py

check: lint types contract test wheel  ## everything a change must pass

bench: install  ## print every figure of benchmarks/ (half an hour), also into build/bench.txt
	PYTHON=$(BIN)/python scripts/bench.sh

lock:  ## make constraints.txt anew from the newest releases that fit
	PYTHON=$(PYTHON) scripts/lock.sh

base: install  ## make the embedded base model anew, in build/microworld (half an hour)
	$(BIN)/python scripts/pretrain.py build/microworld

clean:  ## remove what was built (.venv and runs/ stay)
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
