# Every command sets up what it needs: a virtual environment in .venv, made once and mended when it was left half made.
# All paths are relative, so the clone may lie anywhere, also under a name with spaces.

PYTHON ?= python3
RUN := .venv/bin/python -m
# Each worker has one thread and needs about 2 GB.
WORKERS ?= 2
CHROMIUM ?= $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name) 2>/dev/null)))

.DEFAULT_GOAL := help
.PHONY: help demo test test-browser check format bench docs

help:  ## Show these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

demo: .venv/ready  ## Train DetailCLIP on the embedded world and write a report
	$(RUN) rizbin demo
	@echo "To look at it, and to draw, find and train in a browser: .venv/bin/rizbin studio"

test: check  ## Lint, types, import rules, spelling, and every test but the slow ones and those in a browser
	$(RUN) pytest -m "not slow and not browser" -n $(WORKERS) --dist worksteal
	@echo "NOT RUN: the tests of the studio in a browser. make test-browser runs them (needs Chromium)."

test-browser: .venv/ready  ## Click through the studio in Chromium (CHROMIUM=PATH, or one that is installed)
	@browser="$(CHROMIUM)"; test -n "$$browser" || { \
	  echo "Chromium is missing: on Debian and Ubuntu apt-get install chromium, or make test-browser CHROMIUM=PATH." >&2; \
	  exit 1; }; RIZBIN_CHROMIUM="$$browser" $(RUN) pytest -m browser tests/studio

check: .venv/ready  ## Lint, types, import rules and spelling
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) pyright
	.venv/bin/lint-imports
	$(RUN) codespell_lib

format: .venv/ready  ## Bring the code into the house's form
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

docs: .venv/ready  ## Write what is made from the code: tables of methods, the picture of the floors, the shipped flags
	.venv/bin/python docs/tables.py
	.venv/bin/python docs/architecture.py
	.venv/bin/python -c "from rizbin.cli import schema; schema.write()"

bench: .venv/ready  ## Run every benchmark; each prints its table
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; .venv/bin/python "$$script" || exit 1; done

# `ready` is written last. Without it the environment counts as half made: what is there is completed, and what cannot be
# completed is made anew, once.
.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "rizbin needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || $(NEW) || { rm -rf .venv; \
	  echo "This Python cannot make virtual environments; on Debian and Ubuntu install python3-venv, then run make again." >&2; \
	  exit 1; }
	@echo "Setting up .venv; the first time this takes some minutes, since torch is large."
	@$(INSTALL) && $(WHOLE) || { test ! -e .venv/ready && echo "What was in .venv is damaged; making it anew." >&2 \
	  && $(NEW) && $(INSTALL) && $(WHOLE); } || { \
	  echo "The packages could not be installed: see the lines above, then run make again (rm -r .venv starts afresh)." >&2; \
	  exit 1; }
	@touch .venv/ready

NEW = $(PYTHON) -m venv --clear .venv
INSTALL = .venv/bin/python -m pip install --disable-pip-version-check --editable '.[dev]'
WHOLE = .venv/bin/python -c 'import rizbin, torch, torchvision, timm, open_clip, rich, safetensors, numpy, PIL, cv2, resvg_py, jaxtyping, pytest'
