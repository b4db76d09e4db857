# make help tells what there is. PYTHON chooses the interpreter, PORT the port of the demonstration.

PYTHON ?= python3
PORT ?= 8000

DEMO := .venv
TOOLS := .tox-venv
PACKAGE := setup.cfg pyproject.toml
PIP := -m pip --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help demo test lint types clean check-python

help: ## what there is
	@echo "make targets (PYTHON=$(PYTHON), PORT=$(PORT)):"
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' Makefile | expand -t 12

demo: $(DEMO)/.installed ## the order board on http://127.0.0.1:PORT; Ctrl-C ends it
	@echo "The order board: http://127.0.0.1:$(PORT) (Ctrl-C ends it)"
	@PORT=$(PORT) exec $(DEMO)/bin/gunicorn -c flask_example/gunicorn.conf.py "flask_example:create_app()"

test: $(TOOLS)/.installed ## every check and test that this machine can run, with tox
	@$(TOOLS)/bin/tox run

lint: $(TOOLS)/.installed ## ruff
	@$(TOOLS)/bin/tox run -e lint

types: $(TOOLS)/.installed ## mypy
	@$(TOOLS)/bin/tox run -e types

clean: ## remove what these commands have made
	rm -rf $(DEMO) $(TOOLS) .tox build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "pgfanout needs Python 3.10 or newer, and $(PYTHON) is" \
	        "$$($(PYTHON) --version 2>&1): name another one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) can't make virtual environments: install its venv module" \
	        "(Debian: apt install python3-venv)" >&2; exit 1; }

$(DEMO)/.installed: $(PACKAGE) | check-python
	@echo "Setting up $(DEMO) ..."
	@$(PYTHON) -m venv $(DEMO)
	@$(DEMO)/bin/python $(PIP) install --quiet --editable '.[example]'
	@touch $@

$(TOOLS)/.installed: Makefile | check-python
	@echo "Setting up $(TOOLS) ..."
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python $(PIP) install --quiet 'tox>=4.21'
	@touch $@
