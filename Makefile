# Needs Python 3.11 or later and make; everything else is installed into .venv. The tests against
# the emulator of Azure Blob Storage need node and npm too, and are skipped without.
#
#   make dedup INPUT=DIR OUTPUT=DIR [ARGS="--profile fast"]   find the copies in a folder
#   make test                                                 linters, types and tests
#   make lint                                                 linters and types alone
#   make azure-demo [ARGS="DIR"]                              the same rows from Azure as from a folder
#   make clean                                                remove .venv and caches

PYTHON ?= python3
VENV := .venv
AZURITE := azurite@3.35.0
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

# The recipes read the folders from the environment, as they were typed: spaces, quotes and
# dollar signs in a name reach neither make's expansion nor the shell's.
export BEAM_DEDUP_MAKE_INPUT = $(value INPUT)
export BEAM_DEDUP_MAKE_OUTPUT = $(value OUTPUT)

.PHONY: help dedup test lint azure-demo clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

dedup: $(VENV)/core.stamp
	@if [ -z "$$BEAM_DEDUP_MAKE_INPUT" ] || [ -z "$$BEAM_DEDUP_MAKE_OUTPUT" ]; then \
	  echo 'usage: make dedup INPUT=DIR OUTPUT=DIR [ARGS="..."]' >&2; exit 2; fi
	@"$(VENV)/bin/python" -m beam_dedup run \
	  --input="$$BEAM_DEDUP_MAKE_INPUT" --output="$$BEAM_DEDUP_MAKE_OUTPUT" $(ARGS)

test: lint $(VENV)/azurite.stamp
	"$(VENV)/bin/python" -m pytest $(PYTEST_ARGS)

lint: $(VENV)/all.stamp
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/mypy"
	"$(VENV)/bin/lint-imports"

azure-demo: $(VENV)/all.stamp $(VENV)/azurite.stamp
	"$(VENV)/bin/python" benchmarks/azure_demo.py $(ARGS)

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

# Without npm there is no stamp: the tests against Azurite say why they are skipped, and the next
# make looks for npm again. In CI, where CI is set, nothing may be skipped. No package of Azurite's
# needs its install scripts.
$(VENV)/azurite.stamp: Makefile | $(VENV)/bin/python
	@if command -v npm > /dev/null; then \
	  npm install --prefix "$(VENV)/azurite" --no-audit --no-fund --no-package-lock --ignore-scripts \
	    --loglevel=error "$(AZURITE)" && touch "$@"; \
	elif [ -n "$$CI" ]; then \
	  echo "npm is missing: CI runs the tests against $(AZURITE), which npm installs" >&2; exit 1; \
	else echo "npm is missing: the tests against $(AZURITE) are skipped" >&2; fi

clean:
	rm -rf "$(VENV)" build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache \
	  .pytest_cache .ruff_cache
