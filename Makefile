# Every target sets up what it needs by itself; a machine needs Python >= 3.11, make and gcc.
# `make` alone lists the targets. Continuous integration (.ci/run) calls these and nothing else.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test check fix lint types bench docs test-services test-schedulers test-postgresql test-security fuzz audit
.PHONY: simulate mutations thorough ui

VENV := .venv
PY := $(VENV)/bin/python
#: Processes that run tests side by side, one more than cores because many tests wait; and options for pytest, e.g.
#: `make test PYTEST_ARGS="-k resume -x"`. Tests of one module stay together, so that they share its server.
WORKERS ?= 3
PYTEST := -m pytest -q -n $(WORKERS) --dist worksteal
#: Tests that wait for a scheduler; `tests/services/conftest.py` says which stay together.
SERVICES := -m pytest -q -n $(WORKERS)
PYTEST_ARGS ?=
#: `make bench QUICK=1 CASE=chain`
QUICK ?=
CASE ?=
#: `make simulate SEEDS=1000`
SEEDS ?= 300
#: `make mutations NAMES=armed- SECONDS=300`: names begin with these; the longest time for each
NAMES ?=
SECONDS ?=

#: `make fuzz MINUTES=60`
MINUTES ?= 5

#: `make chaos ROUNDS=20 SEED=7 DATABASE=postgresql`
ROUNDS ?= 20
SEED ?=
DATABASE ?= sqlite

#: Where CI is set, `make ui` builds nothing: a test compares the committed page with a fresh build.
CI ?=

#: The tiers that need nothing but this machine; services and browser have targets of their own.
TIERS := tests/unit tests/property tests/simulation tests/integration tests/e2e

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F '|' '{ printf "%-22s %s\n", $$1, $$2 }'

demo: $(VENV)/.demo  ## run the example workflow on real input with a server that starts by itself
	$(PY) examples/stdlib_census.py

test: $(VENV)/.dev  ## run the unit, property, simulation, integration and end-to-end tests
	$(PY) $(PYTEST) $(TIERS) $(PYTEST_ARGS)

check: lint types docs-check test  ## everything that must hold before a change is merged

fix: $(VENV)/.dev  ## format and mend what ruff can mend safely
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lint: $(VENV)/.dev  ## ruff, formatting and the import contracts
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports

types: $(VENV)/.dev  ## mypy, strict
	$(PY) -m mypy

#: The page is measured in a browser.
bench: $(VENV)/.dev $(if $(filter page,$(CASE)),$(VENV)/.browser)  ## the benchmarks, as ratios measured side by side (QUICK=1, CASE=name, PEERS=1, GUARD=1)
	$(PY) -m benchmarks $(if $(QUICK),--quick) $(if $(CASE),--case $(CASE)) $(if $(PEERS),--peers) $(if $(GUARD),--guard)

simulate: $(VENV)/.dev  ## the whole system on virtual time with faults, from seeds (SEEDS=1000)
	$(PY) -m tests.simulation --seeds $(SEEDS) --workers $(WORKERS)

mutations: $(VENV)/.dev  ## break the code on purpose and see whether simulation and tests notice (NAMES="armed- charge", SECONDS=900)
	$(PY) -m tests.simulation.mutations $(NAMES) $(if $(SECONDS),--seconds $(SECONDS)) --workers $(WORKERS)

thorough: $(VENV)/.dev  ## what takes too long for every change: ten times the examples of hypothesis, 1,000 seeds, the demo
	$(PY) $(PYTEST) --hypothesis-profile=thorough -o timeout=1800 tests/unit tests/property tests/integration/server $(PYTEST_ARGS)
	$(MAKE) simulate SEEDS=1000 demo

ui: ui/node_modules/.installed $(VENV)/.browser  ## type-check, build and test the web page (needs Node.js, npm and Chromium)
	cd ui && npm run --silent types && npm run --silent test
	$(if $(CI),,cd ui && npm run --silent build)
	$(PY) -m pytest -q -n $(WORKERS) --dist loadfile tests/browser $(PYTEST_ARGS)

docs: $(VENV)/.dev  ## write the generated pages of the documentation anew
	$(PY) docs/generate.py

site: $(VENV)/.site  ## build the documentation as a site with search, in build/site
	$(PY) docs/generate.py --check
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict
	@! grep -rlE '<(script|link|img)[^>]+(src|href)="https?:' build/site --include='*.html'

.PHONY: site

chaos: $(VENV)/.dev  ## kill, stop and restart every part of real runs and count what is lost (ROUNDS=20, SEED=n, DATABASE=postgresql)
	$(PY) -m tests.chaos --rounds $(ROUNDS) --database $(DATABASE) --crash-points $(if $(SEED),--seed $(SEED))

.PHONY: docs-check chaos
docs-check: $(VENV)/.dev
	$(PY) docs/generate.py --check

#: What runs on both databases: use cases and routes, the model test, commands against a server, whole scripts.
ON_POSTGRESQL := tests/integration/server tests/property/test_server_model.py tests/integration/cli tests/e2e

test-postgresql: $(VENV)/.dev  ## the tests of the server on a PostgreSQL that they start (Debian: apt-get install postgresql)
	@start=$$(date +%s); \
	$(PY) $(PYTEST) --database postgresql $(ON_POSTGRESQL) $(PYTEST_ARGS); status=$$?; \
	echo "test-postgresql: $$(($$(date +%s) - start)) s"; exit $$status

test-services: $(VENV)/.dev  ## the tests that need a real Slurm; brings up what is not up (root, Debian)
	$(PY) $(SERVICES) tests/services --ignore-glob='*gridengine*' $(PYTEST_ARGS)

test-schedulers: $(VENV)/.dev  ## the tests that need a real Grid Engine; brings it up if it is not (root, Debian)
	$(PY) $(SERVICES) tests/services/test_gridengine_*.py $(PYTEST_ARGS)

test-security: $(VENV)/.dev  ## attacks between two Unix users, who are created for it (root); lists them
	$(PY) $(PYTEST) tests/security $(PYTEST_ARGS)

fuzz: $(VENV)/.dev  ## feed every decoder, header parser, journal reader and log reader with damaged input (MINUTES=5)
	$(PY) -m tests.fuzz --minutes $(MINUTES)

audit: $(VENV)/.audit  ## look up the pinned dependencies among known vulnerabilities; skipped where there is no data
	$(PY) -m tests.audit

# --- set-up -----------------------------------------------------------------------------------------------------------
# Two stamps: the demo needs less than the tests. Installing for the tests serves the demo too.

PIP := $(PY) -m pip install -qq --no-compile --disable-pip-version-check --no-input --constraint constraints.txt

$(VENV)/.demo: pyproject.toml constraints.txt | $(PY)
	@echo "Installing Jobmon and matplotlib into $(VENV) (once) ..."
	@$(PIP) --editable . matplotlib
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(PY)
	@echo "Installing Jobmon and its development tools into $(VENV) (once, a minute or two) ..."
	@$(PIP) --editable '.[dev,postgres]'
	@touch $(VENV)/.demo $@

$(VENV)/.site: pyproject.toml constraints.txt $(VENV)/.dev
	@$(PIP) --editable '.[site]'
	@touch $@

$(VENV)/.browser: pyproject.toml constraints.txt $(VENV)/.dev
	@if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then \
	  echo "The page is tested in Chromium; on Debian and Ubuntu: apt-get install chromium" >&2; exit 1; \
	fi
	@$(PIP) --editable '.[browser]'
	@touch $@

$(VENV)/.audit: pyproject.toml constraints.txt $(VENV)/.dev
	@$(PIP) --editable '.[audit]'
	@touch $@

ui/node_modules/.installed: ui/package.json ui/package-lock.json
	@if ! command -v npm >/dev/null; then \
	  echo "The page is built with Node.js 18 or newer and npm; on Debian and Ubuntu: apt-get install nodejs npm" >&2; exit 1; \
	fi
	@cd ui && npm ci --silent
	@touch $@

# The first interpreter that is new enough; `make PYTHON=/path/to/python` chooses another.
$(PY):
	@python='$(PYTHON)'; \
	for candidate in $${python:-python3 python3.14 python3.13 python3.12 python3.11}; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  version=$$("$${python:-python3}" --version 2>/dev/null | head -n 1); \
	  echo "Jobmon needs Python 3.11 or newer; found: $${version:-none}." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo "This Python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	fi; \
	"$$found" -m venv --clear $(VENV)
