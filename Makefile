# make help tells what there is. PYTHON chooses the interpreter, PORT the port of the demonstration, DURATION, SEED
# and SCHEDULE how long, from where and which the fault harness and the fuzzer run, HISTORY=1 or 0 whether with history
# (otherwise it's half of the time), BENCH has options of the benchmark, TESTS names files for make unit.

PYTHON ?= python3
PORT ?= 8000
BENCH ?=
TESTS ?=
DURATION ?=
SEED ?=
SCHEDULE ?=
HISTORY ?=

DEMO := .venv
TOOLS := .tox-venv
UNIT := .tox/unit-venv
FUZZ := .tox/fuzz-venv
PACKAGE := setup.cfg pyproject.toml
OPTIONS = $(if $(DURATION),--duration $(DURATION)) $(if $(SEED),--seed $(SEED))
HALF = $(if $(HISTORY),$(if $(filter 0,$(HISTORY)),--no-history,--history))
# The status is that of tox, and the summary comes in any case.
TOX = rm -rf .tox/results; $(TOOLS)/bin/tox run-parallel --parallel 2 --parallel-no-spinner $(1); status=$$?; \
    $(PYTHON) tests/summary.py .tox/results; exit $$status
PIP := -m pip --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help demo unit test test-all lint types bench faults mutations churn stall fuzz clean check-python

help: ## what there is
	@echo "make targets (PYTHON=$(PYTHON), PORT=$(PORT)):"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 12

demo: $(DEMO)/.installed ## the order board on http://127.0.0.1:PORT; Ctrl-C ends it
	@echo "The order board: http://127.0.0.1:$(PORT) (Ctrl-C ends it)"
	@PORT=$(PORT) exec $(DEMO)/bin/gunicorn -c flask_example/gunicorn.conf.py "flask_example:create_app()"

unit: $(UNIT)/.installed ## the tests that need no server, in a minute; TESTS=tests/delivery for some of them
	@$(UNIT)/bin/python -m pytest -q -m unit $(TESTS)

test: $(TOOLS)/.installed ## every check and test, with the newest and the oldest versions; 20 minutes
	@echo "Testing with the newest and the oldest versions: about 20 minutes on two cores. What was skipped comes last."
	@$(call TOX,-m test)

test-all: $(TOOLS)/.installed ## the same with all versions that there are interpreters for
	@echo "Testing with all versions: about 20 minutes for two environments. What was skipped comes last."
	@$(call TOX,)

lint: $(TOOLS)/.installed ## ruff
	@$(TOOLS)/bin/tox run -e lint

types: $(TOOLS)/.installed ## mypy
	@$(TOOLS)/bin/tox run -e types

bench: $(TOOLS)/.installed ## measure against other servers, a quarter of an hour; BENCH=--help has its options
	@$(TOOLS)/bin/tox run -qe bench -- $(BENCH)

faults: $(TOOLS)/.installed ## the fault harness, DURATION=60 seconds, SEED=1 to repeat, SCHEDULE=7 for one, HISTORY=1 or 0
	@$(TOOLS)/bin/tox run -qe faults -- tests.faults $(OPTIONS) $(if $(SCHEDULE),--schedule $(SCHEDULE)) $(HALF)

mutations: $(TOOLS)/.installed ## break each promise in a copy, and see the fault harness notice
	@$(TOOLS)/bin/tox run -qe faults -- tests.faults.mutations $(if $(SEED),--seed $(SEED))

churn: $(TOOLS)/.installed ## streams and subscriptions come and go, DURATION=1200 seconds; nothing may grow
	@$(TOOLS)/bin/tox run -qe faults -- tests.faults.churn $(if $(DURATION),--duration $(DURATION))

stall: $(TOOLS)/.installed ## what a reader that stalls costs 99 others
	@$(TOOLS)/bin/tox run -qe faults -- tests.faults.stall

fuzz: $(FUZZ)/.installed ## search for inputs that forge events, DURATION=60 seconds for each target, SEED=1 (Linux)
	@$(FUZZ)/bin/python -m tests.security.fuzz $(if $(DURATION),--seconds $(DURATION)) $(if $(SEED),--seed $(SEED))

clean: ## remove what these commands have made
	rm -rf $(DEMO) $(TOOLS) .tox build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf benchmarks/results .hypothesis .mypy_cache .pytest_cache .ruff_cache
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

$(UNIT)/.installed: $(PACKAGE) | check-python
	@echo "Setting up $(UNIT) ..."
	@$(PYTHON) -m venv $(UNIT)
	@$(UNIT)/bin/python $(PIP) install --quiet --editable '.[test]'
	@touch $@

$(FUZZ)/.installed: $(PACKAGE) | check-python
	@echo "Setting up $(FUZZ) ..."
	@$(PYTHON) -m venv $(FUZZ)
	@$(FUZZ)/bin/python $(PIP) install --quiet --editable '.[fuzz]'
	@touch $@
