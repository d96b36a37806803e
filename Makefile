# Each target makes what it needs in .venv, once; `touch pyproject.toml` makes it look again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# What PYTEST_ARGS selects may all be in the other parts.
OR_NONE = || [ $$? -eq 5 ]
STORE ?= postgresql
FAULT ?= killed
SECONDS ?= 60
KILLS ?= 200
SEED ?= 1
# APART=1: each worker is as on a machine of its own, so that only its lease tells that it is gone.
APART ?=
CHAOS = $(BIN)/python -m tests.chaos --seconds $(SECONDS) --kills $(KILLS) --seed $(SEED) $(if $(APART),--apart)

.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster test nightly chaos chaos-all chaos-nightly lint docs bench bench-workers clean

help:
	@echo "make demo   run the demo app; Ctrl-C ends it"
	@echo "make demo-cluster  the same with 4 workers that share one schedule"
	@echo "make test   run the tests with coverage"
	@echo "make nightly  the tests in their long forms: new expressions, new sequences, each driver, each store encrypted"
	@echo "make chaos  kill workers on a real store (STORE=postgresql FAULT=killed SECONDS=60 KILLS=200 SEED=1 APART=1)"
	@echo "make chaos-all  every fault on every store, and the table of docs/chaos.md"
	@echo "make chaos-nightly  the long half of tests/chaos, and 20,000 seeds of the simulation"
	@echo "make lint   formatter, linter and strict types"
	@echo "make docs   build the documentation into site/"
	@echo "make bench  measure against the peers (BENCH_ARGS=--quick for the short form)"
	@echo "make bench-workers  what workers that share a store get done and cost, and how late they are"
	@echo "make clean  remove what the other targets made"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("asyncz needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# One stamp for each set of packages, so that the demo does not wait for the linters.
$(VENV)/.%.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

demo: $(VENV)/.demo.installed
	@$(BIN)/python docs_src/demo.py

demo-cluster: $(VENV)/.demo.installed
	@$(BIN)/python docs_src/demo_cluster.py

test: $(VENV)/.test.installed
	@$(BIN)/python -m coverage erase
	$(BIN)/python -m pytest --cov --cov-report= -m "not alone" -n 4 --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS) $(OR_NONE)
	$(BIN)/python -m pytest --cov --cov-append --cov-report= -m "alone and not chaos" -n 2 --dist loadfile $(PYTEST_ARGS) $(OR_NONE)
	$(BIN)/python -m pytest --cov --cov-append --cov-report= -m chaos $(PYTEST_ARGS) $(OR_NONE)
	@$(BIN)/python -m coverage report --fail-under=95

nightly: $(VENV)/.test.installed
	ASYNCZ_NIGHTLY=1 $(BIN)/python -m pytest -m "not alone" --ignore=tests/simulation $(PYTEST_ARGS)

chaos: $(VENV)/.test.installed
	$(CHAOS) --store $(STORE) --fault $(FAULT)

chaos-all: $(VENV)/.test.installed
	$(CHAOS) --store all --fault all

chaos-nightly: $(VENV)/.test.installed
	$(BIN)/python -m tests.simulation --seeds 20000
	ASYNCZ_NIGHTLY=1 $(BIN)/python -m pytest $(PYTEST_ARGS) tests/chaos

lint: $(VENV)/.lint.installed
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

docs: $(VENV)/.docs.installed
	$(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.test.installed
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

# STORE is postgresql if nothing else is said.
bench-workers: $(VENV)/.test.installed
	$(BIN)/python benchmarks/workers.py --store $(STORE)
	$(BIN)/python benchmarks/latency.py --store $(STORE)

clean:
	rm -rf $(VENV) .venv-bench .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache site build dist
