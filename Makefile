# Needs Python 3.11 or later and make; everything else is installed into .venv.
#
#   make dedup INPUT=DIR OUTPUT=DIR [ARGS="--profile fast"]   find the copies in a folder
#   make test                                                 linters, types and tests
#   make lint                                                 linters and types alone
#   make clean                                                remove .venv and caches

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

# The recipes read the folders from the environment, as they were typed: spaces, quotes and
# dollar signs in a name reach neither make's expansion nor the shell's.
export BEAM_DEDUP_MAKE_INPUT = $(value INPUT)
export BEAM_DEDUP_MAKE_OUTPUT = $(value OUTPUT)

.PHONY: help dedup test lint clean
.DELETE_ON_ERROR:

help:
	@sed -n '3,6s/^#   //p' Makefile

dedup: $(VENV)/core.stamp
	@if [ -z "$$BEAM_DEDUP_MAKE_INPUT" ] || [ -z "$$BEAM_DEDUP_MAKE_OUTPUT" ]; then \
	  echo 'usage: make dedup INPUT=DIR OUTPUT=DIR [ARGS="..."]' >&2; exit 2; fi
	@"$(VENV)/bin/python" -m beam_dedup run \
	  --input="$$BEAM_DEDUP_MAKE_INPUT" --output="$$BEAM_DEDUP_MAKE_OUTPUT" $(ARGS)

test: lint
	"$(VENV)/bin/python" -m pytest $(PYTEST_ARGS)

lint: $(VENV)/all.stamp
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/mypy"
	"$(VENV)/bin/lint-imports"

$(VENV)/bin/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "beam-dedup needs Python 3.11 or later; name one with make PYTHON=..." >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"

# The build tools come first, pinned too, so that no build of the package downloads others.
$(VENV)/core.stamp: setup.py requirements.txt | $(VENV)/bin/python
	$(PIP) install -c requirements.txt setuptools wheel
	$(PIP) install -c requirements.txt --no-build-isolation -e .
	@touch "$@"

$(VENV)/all.stamp: $(VENV)/core.stamp
	$(PIP) install -c requirements.txt --no-build-isolation -e '.[models,azure,test]'
	@touch "$@"

clean:
	rm -rf "$(VENV)" build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache \
	  .pytest_cache .ruff_cache
