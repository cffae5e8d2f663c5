# Two commands from a fresh machine: `make figures`, `make test`. Needs python3 (3.11 or later), make and git.
.DEFAULT_GOAL := help
.PHONY: help setup figures gallery test test-all lint bench notebooks clean

PYTHON ?= python3
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'))
READY := $(VENV)/.ready
BIN := $(VENV)/bin
PRESET ?= laptop
STUDY ?=
JOBS ?=
TESTS ?=

help: ## list the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12
	@echo 'STUDY=name selects a study or a family, PRESET=smoke|laptop|paper its size,'
	@echo 'JOBS=2 how many run at once, PYTHON=python3.13 an interpreter.'

setup: $(READY) ## build the environment in .venv, with uv where there is one

# neural-tangents goes without its dependencies: they are TensorFlow, which theorysim does not use.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "theorysim needs Python 3.11 or later")'
	@if command -v uv >/dev/null; then \
		set -ex; \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV); \
		uv pip install --quiet --python $(BIN)/python -e '.[dev]'; \
		uv pip install --quiet --python $(BIN)/python --no-deps neural-tangents frozendict; \
	else \
		set -ex; \
		$(PYTHON) -m venv $(VENV); \
		$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'; \
		$(BIN)/pip install --quiet --disable-pip-version-check --no-deps neural-tangents frozendict; \
	fi
	@touch $@

figures: $(READY) ## draw every study, and fail where a claim fails
	$(BIN)/theorysim figures $(STUDY) --preset $(PRESET) $(if $(JOBS),--jobs $(JOBS))

gallery: $(READY) ## copy the pictures and claims of all studies, once drawn, to figures/gallery
	$(BIN)/theorysim gallery --preset $(PRESET)

test: lint ## lint, types and the fast tests
	$(BIN)/pytest -n auto $(TESTS)

test-all: lint ## and the slow ones
	$(BIN)/pytest -n auto -m ''

lint: $(READY) ## formatter, linter, types, imports, dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry . --no-ansi

bench: $(READY) ## the benchmarks, each beside its peer
	$(BIN)/pytest benchmarks -o addopts='' --benchmark-only -s

notebooks: $(READY) ## the studies as executed notebooks, in figures/notebooks
	$(BIN)/theorysim notebooks $(STUDY)

clean: ## remove what is built: environment, figures, caches
	rm -rf .venv .venv-* .pytest_cache .ruff_cache .hypothesis .benchmarks
	find figures -mindepth 1 -maxdepth 1 ! -name gallery -exec rm -rf {} +
