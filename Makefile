.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
# Test processes, each with a Postgres and a Redis of its own; those that are given are for one.
# Three on two cores: a test often waits for another process, but each test process loads all tests.
PROCESSES ?= $(if $(DATABASE_URL)$(REDIS_URL),0,3)
# The browser of the tests; where there is none they are left out, and that is said.
CHROMIUM ?= $(shell command -v chromium 2>/dev/null)
export CHROMIUM
# Debian has it outside the PATH of most users.
MARIADBD ?= $(shell PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v mariadbd 2>/dev/null)
NGINX ?= $(shell PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v nginx 2>/dev/null)
PY := $(VENV)/bin/python
# -qq: errors only. Every package is pinned with its hashes, so pip has nothing to decide.
PIP_INSTALL := $(PY) -m pip install -qq --disable-pip-version-check --no-input
CACHE := var/cache
UV := $(CACHE)/uv/bin/uv
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

MKDOCS := $(PY) -m mkdocs

# What the tests of the JavaScript client need. No lock file names a registry: it is npm's setting.
NODE_MODULES := tests/js/node_modules/.package-lock.json
NPM_CI := $(VENV)/bin/npm ci --no-audit --no-fund --loglevel=error --cache $(CACHE)/npm

# A build prints its own warnings alone, not one about the makers' next version.
export NO_MKDOCS_2_WARNING := 1
# The tests start hundreds of processes. Without its cache each would compile the project again.
unexport PYTHONDONTWRITEBYTECODE
export HYPOTHESIS_STORAGE_DIRECTORY := $(CACHE)/hypothesis

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# exec: signals go to Python itself, which ends with status 0 on Ctrl-C.
.PHONY: run
run: $(VENV)/.run-stamp ## start a server on ports 8000, 8080, 8090 (others: IMGO_HTTP_PORT, IMGO_TCP_PORT, IMGO_WS_PORT)
	@$(PY) manage.py migrate --verbosity 0
	@exec $(PY) manage.py imgo $(ARGS)

# A project of its own has a program that starts it beside imgo. It needs the packages of the
# client for Django, which are among those of the tests.
.PHONY: example
example: PROGRAM = $(wildcard examples/$(NAME)/start.py)
example: export DJANGO_SETTINGS_MODULE = examples.$(NAME).settings
example: $(VENV)/.$(if $(wildcard examples/$(NAME)/start.py),test,run)-stamp ## start one of examples/, with users to try it: make example NAME=chat
	@test -n "$(NAME)" -a -n "$(PROGRAM)$(wildcard examples/$(NAME)/settings.py)" || { echo "Name an example:" \
		$(patsubst examples/%/,NAME=%,$(sort $(dir $(wildcard examples/*/settings.py examples/*/start.py)))) >&2; exit 1; }
	$(if $(PROGRAM),,@$(PY) manage.py migrate --verbosity 0)
	$(if $(wildcard examples/$(NAME)/templates),@$(PY) manage.py guest alice bob)
	@exec $(PY) $(or $(PROGRAM),manage.py imgo $(ARGS))

PYTEST := $(PY) -m pytest $(if $(filter-out 0,$(PROCESSES)),-n $(PROCESSES) --dist worksteal) \
	$(if $(CHROMIUM),,--ignore=tests/browser)
SAY_CHROMIUM = $(if $(CHROMIUM),,@echo "NOT RUN: tests/browser, because there is no chromium on PATH." \
	"Get one (Debian: apt-get install chromium), or name one: make $@ CHROMIUM=/path/to/it")

.PHONY: test
test: $(NODE_MODULES) ## all checks, then the short set of tests; ARGS="..." goes to pytest, PROCESSES=0 for one process
	@$(MAKE) --no-print-directory -j2 check-rest test-js SITE=
	@$(MAKE) --no-print-directory -j2 check-types test-short
	$(SAY_CHROMIUM)

.PHONY: test-short
test-short: $(NODE_MODULES) ## the short set of tests without the checks
	TESTS_SET=short $(PYTEST) $(ARGS)

.PHONY: test-js
test-js: $(NODE_MODULES) ## the tests of imgo.js alone
	$(VENV)/bin/node --test --test-reporter=dot tests/js/*.test.mjs

# What they are: tests/longer_proofs.py
.PHONY: test-long
test-long: $(NODE_MODULES) ## the longer proofs: loads, kills, other databases, random draws; ARGS and PROCESSES as above
	TESTS_SET=long $(if $(MARIADBD),,TESTS_WITHOUT_MARIADB=1) $(if $(NGINX),,TESTS_WITHOUT_NGINX=1) \
		$(PYTEST) $(ARGS)
	$(SAY_CHROMIUM)
	$(if $(MARIADBD),,@echo "NOT RUN: the project's app with MariaDB, which is not installed" \
		"(Debian: apt-get install mariadb-server-core mariadb-client-core)")
	$(if $(NGINX),,@echo "NOT RUN: clients behind nginx, which is not installed (Debian: apt-get install nginx-light)")

# What needs another process has a directory of its own, or the mark `services`.
.PHONY: test-unit
test-unit: $(VENV)/.test-stamp ## the tests that need no Postgres, Redis or browser: a minute at most
	TESTS_UNIT=1 TESTS_SET=short $(PY) -m pytest -q -n 2 --ignore=tests/e2e --ignore=tests/browser --ignore=tests/examples \
		--ignore=tests/hosts --ignore=tests/clients --ignore=tests/chaos $(ARGS)

.PHONY: check
check: check-rest check-types ## formatting, lint, types, import contracts, Django's checks

# By itself, because it takes as long as all other checks: `make test` runs it beside the tests.
.PHONY: check-types
check-types: $(VENV)/.test-stamp ## the types alone
	$(PY) -m mypy

# With SITE= the documentation's site is left out: tests/test_site.py builds it in the same way.
SITE := build --strict --quiet

.PHONY: check-rest
check-rest: $(VENV)/.test-stamp ## all checks but the types
	$(PY) -m ruff format --check --quiet
	$(PY) -m ruff check --quiet
	$(PY) $(VENV)/bin/lint-imports --no-logo --cache-dir $(CACHE)/import-linter
	$(PY) manage.py check --fail-level WARNING
	$(PY) manage.py makemigrations --check --dry-run --settings tests.examples.settings
	$(if $(SITE),$(MKDOCS) $(SITE))

.PHONY: plans
plans: $(VENV)/.test-stamp ## read the plans of the nodes' queries on tables of a million rows
	PLAN_ROWS=1000000 $(PY) -m pytest -q tests/offline/test_plans.py $(ARGS)

.PHONY: chaos
chaos: $(VENV)/.test-stamp ## the long test under faults, five minutes; ARGS="..." goes to it
	$(PY) -m tests.chaos $(ARGS)
	$(PY) -m tests.attacks

.PHONY: bench
bench: $(VENV)/.bench-stamp ## the short set of benchmarks, some minutes; ARGS="..." goes to them
	$(PY) -m benchmarks --json var/benchmark.json --plot var/benchmark.png $(ARGS)

.PHONY: bench-full
bench-full: $(VENV)/.bench-stamp ## the large set, a quarter of an hour; writes docs/benchmark.* and the rows of the README
	$(PY) -m benchmarks --full --json docs/benchmark.json --plot docs/benchmark.png \
		--page README.md $(ARGS)

.PHONY: docs
docs: $(VENV)/.test-stamp ## build the documentation's site into var/site, and serve it on port 8009
	$(MKDOCS) build --strict
	@exec $(MKDOCS) serve --strict

.PHONY: format
format: $(VENV)/.test-stamp ## format the code and fix what ruff can fix
	$(PY) -m ruff format
	$(PY) -m ruff check --fix

.PHONY: dist
dist: $(VENV)/.test-stamp ## build the packages into dist/: imgo, imgo-client for Python, imgo-client for npm
	mkdir -p dist
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist ./clients/python
	cd push/static/push && $(abspath $(VENV))/bin/npm pack --silent --pack-destination $(abspath dist)
	rm -rf build *.egg-info clients/python/build clients/python/*.egg-info

.PHONY: lock
lock: $(UV) ## write the lock files anew; LOCK_ARGS=--upgrade takes newer versions
	$(LOCK) $(LOCK_ARGS) requirements.in --output-file requirements.txt
	$(LOCK) $(LOCK_ARGS) requirements-dev.in --output-file requirements-dev.txt
	$(LOCK) $(LOCK_ARGS) requirements-bench.in --output-file requirements-bench.txt

.PHONY: clean
clean: ## remove the virtual environment and all caches; the data in var/ stays
	rm -rf $(VENV) $(CACHE) tests/js/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A virtual environment that could not be completed is removed: the next try begins from nothing.
$(PY):
	@command -v "$(PYTHON)" >/dev/null || { echo "imgo needs Python 3.11 or newer, and" \
		"there is no $(PYTHON) on PATH: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "imgo needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1):" \
		"make $(MAKECMDGOALS) PYTHON=/path/to/newer/python" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.run-stamp: requirements.txt | $(PY)
	@echo "Installing (first time only, about half a minute) ..."
	@$(PIP_INSTALL) --require-hashes -r $<
	@touch $@

# What the tests need includes what a server needs.
$(VENV)/.test-stamp: requirements-dev.txt requirements.txt | $(PY)
	@echo "Installing what the tests need (first time only, about a minute) ..."
	@$(PIP_INSTALL) --require-hashes -r $<
	@touch $(VENV)/.run-stamp $@

$(NODE_MODULES): tests/js/package.json tests/js/package-lock.json | $(VENV)/.test-stamp
	@$(NPM_CI) --prefix tests/js >/dev/null
	@touch $@

# What the benchmarks need includes what the tests need: their Postgres and Redis.
$(VENV)/.bench-stamp: requirements-bench.txt $(VENV)/.test-stamp
	@$(PIP_INSTALL) --require-hashes -r $<
	@touch $@

$(UV):
	@"$(PYTHON)" -m venv $(CACHE)/uv
	@$(CACHE)/uv/bin/python -m pip install -qq --disable-pip-version-check uv==0.13.9
