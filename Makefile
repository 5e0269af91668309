# Everything runs from .venv, which `make` creates and fills from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

ALL := $(VENV)/.all

.PHONY: demo test fast check bench clean

demo: $(STAMP)  ## the main job: which learners found the rule, and which memorised?
	$(BIN)/crevasse study factorial

test: check browser  ## everything that must hold
	$(BIN)/pytest -n 2 --dist loadfile

fast: $(ALL)  ## the inner loop: under a minute
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

check: $(ALL)  ## format, lint, strict types, import order, links in the docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/check_links.py

bench: $(VENV)/.bench  ## every script under benchmarks/, with peers in the same run
	$(BIN)/python benchmarks/run.py

.PHONY: browser
browser: $(STAMP)  ## the reports are tested in a real Chromium
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; }

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "crevasse needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# An oracle in tests. It asks for torchvision, which it does not use and whose builds do not fit the pinned torch.
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt gradient-agreement-filtering
	touch $@

$(ALL): $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,llm,ray,hpo]'
	touch $@

$(VENV)/.bench: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
