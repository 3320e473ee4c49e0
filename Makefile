# The environment is .venv; each target makes what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?=
export RAY_USAGE_STATS_ENABLED ?= 0

.DEFAULT_GOAL := help
.PHONY: help install run browser test unit lint format crash bench bench-index bench-backfill
.PHONY: bench-scaling bench-overload eval monitoring nodes clear clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,model,dev]'
	@touch $@

install: $(VENV)/.installed ## Make the environment

run: $(VENV)/.installed ## Serve on http://127.0.0.1:8004 with sample data; Ctrl-C stops it
	@$(BIN)/python -m deployments.local

browser: $(VENV)/.installed ## Find a Chromium for the tests of the search page, or install one
	@$(BIN)/python -m tests.serve.browser

test: $(VENV)/.installed browser ## Run every test
	$(BIN)/python -m pytest -n auto --dist loadfile tests/unit tests/eval
	$(BIN)/python -m pytest tests/serve

unit: $(VENV)/.installed ## Run the tests that need no cluster
	$(BIN)/python -m pytest -n auto --dist loadfile tests/unit

lint: $(VENV)/.installed ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed ## Bring the code into the common style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed ## Measure speed; DATA=folder for real texts, RESULTS=file.md to keep the tables
	$(BIN)/python -m tests.bench $(if $(DATA),--data $(DATA)) $(if $(RESULTS),--markdown $(RESULTS))

bench-index: $(VENV)/.installed ## Measure the types of index; DATA=folder for real texts
	$(BIN)/python -m tests.bench.index_types $(if $(DATA),--data $(DATA))

bench-scaling: $(VENV)/.installed ## Show how encoders come and go with the load
	$(BIN)/python -m tests.bench.scaling $(if $(DATA),--data $(DATA))

bench-overload: $(VENV)/.installed ## Ask for four times of what it can do, for ten minutes; GRAPH=file.svg
	$(BIN)/python -m tests.bench.overload $(if $(DATA),--data $(DATA)) $(if $(GRAPH),--graph $(GRAPH))
bench-backfill: $(VENV)/.installed ## Measure a backfill by a Ray job that is killed once; DATA=folder for real texts
	$(BIN)/python -m tests.bench.backfill $(if $(DATA),--data $(DATA))

eval: $(VENV)/.installed ## Measure the quality of answers; DATA=folder of data sets, RESULTS=file.md to keep the tables
	$(BIN)/python -m tests.eval $(if $(DATA),--data $(DATA)) $(if $(RESULTS),--markdown $(RESULTS))

nodes: $(VENV)/.installed ## Kill nodes of a cluster under load, and look for lost writes and wrong answers
	$(BIN)/python -m pytest -s tests/cluster

monitoring: $(VENV)/.installed ## Try the dashboard's queries and the alerts in a real Prometheus, which must be installed
	$(BIN)/python -m tests.monitoring

crash: $(VENV)/.installed ## Kill the service at random and look for lost writes
	$(BIN)/python -m tests.crash

clear: ## Remove all stored data of the default folder
	rm -rf data/processed/faiss

clean: ## Remove the environment and caches, not the data
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find deployments tests -name __pycache__ -prune -exec rm -rf {} +
