# `make` builds the environment and runs the default study; `make test` passes the tests.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
BIN := .venv/bin
STUDY := embedded

.PHONY: all environment test lint clean

all: environment
	$(BIN)/snakemake --cores $(CORES)
	@echo "The report is results/$(STUDY)/report.html"

environment: .venv/.complete

.venv/.complete: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

test: lint
	$(BIN)/pytest

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

# Removes what the workflow made, keeps the environment.
clean:
	rm -rf results/*/ .snakemake
