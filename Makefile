# One command each; `make help` lists them. Everything lives in .venv inside this folder.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

# Stamps: a step runs again only when what it was made from has changed.
VENV_MADE := $(VENV)/.made
UV_READY := $(VENV)/.uv-ready
DEMO_READY := $(VENV)/.demo-ready
DEV_READY := $(VENV)/.dev-ready
BENCH_READY := $(VENV)/.bench-ready

# What is already in .venv is enough: neither step may reach for the network or build in a fresh environment.
INSTALL_EYEWALL := $(BIN)/pip install --quiet --no-index --no-deps --no-build-isolation --editable .

# Whole minutes of faults, orders and users: a step of their own, so that `make test` stays short.
FAULTS := tests/faults tests/soak tests/model/test_interleavings.py

# Left alone, xdist begins with the files that hold most tests. The slow ones here (browsers, servers) hold few:
# they would come last, and one worker would end long after the others.
PARALLEL := --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# Half as many workers again as there are cores, since tests wait for servers; not for those that measure time.
WORKERS = $(shell getconf _NPROCESSORS_ONLN | awk '{ print int($$1 * 3 / 2) }')

.DEFAULT_GOAL := help
.PHONY: help demo setup test check lint types imports docs format coverage matrix lock soak faults fuzz bench instructions clean

help: ## Show this list
	@echo "make <command> [PYTHON=python3.12] [ARGS=...]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO_READY) ## Run the demonstration (installs only what it needs)
	@$(BIN)/eyewall demo $(ARGS)

setup: $(DEV_READY) ## Create .venv with all that tests and checks need

test: $(DEV_READY) ## Run the tests; ARGS="-k cookie" picks some
	@$(BIN)/pytest -n $(WORKERS) $(PARALLEL) $(FAULTS:%=--ignore %) $(ARGS)

faults: $(DEV_READY) ## Break servers, try all orders of calls, let users loose: does every promise hold? (minutes)
	@$(BIN)/pytest -n auto $(PARALLEL) $(ARGS) $(FAULTS)

check: lint types imports docs ## Lint, types, direction of imports, documentation

lint: $(DEV_READY) ## Only ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(DEV_READY) ## Only mypy --strict
	@$(BIN)/mypy --strict

imports: $(DEV_READY) ## Only the direction of imports
	@$(BIN)/lint-imports --no-logo

docs: $(DEV_READY) ## Build the documentation into build/docs; a warning is an error
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs build/docs

format: $(DEV_READY) ## Put the code into shape
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

coverage: $(DEV_READY) ## Run the tests and show which lines none of them reaches
	@mkdir -p build/coverage
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -n auto $(PARALLEL) $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

matrix: $(DEV_READY) ## Run the tests on every Python found, with Tornado 6.4, 6.5 and 6.6
	@$(BIN)/nox $(ARGS)

soak: $(DEV_READY) ## Run at length what the tests try briefly: sweeping, killed writers, faults; two hours of users
	@EYEWALL_TEST_SOAK=1 EYEWALL_TEST_KILLS=500 $(BIN)/pytest --timeout 0 $(ARGS) \
	  tests/stores/test_sweeping.py tests/stores/test_file_processes.py tests/examples/test_every_store.py \
	  tests/faults tests/model
	@$(BIN)/python -m tests.soak.burst
	@mkdir -p build && $(BIN)/python -m tests.soak.run --minutes 120 --users 200 --out build/soak.json

fuzz: $(DEV_READY) ## Fuzz every format with atheris, 30 s each; ARGS="--seconds 300 record" picks one
	@$(BIN)/pip install --quiet --require-hashes --requirement requirements/fuzz.txt
	@$(BIN)/python -m tests.fuzz.run $(ARGS)

bench: $(BENCH_READY) ## Measure session layers side by side (30 minutes); ARGS=--quick tries it in 20 s
	@$(BIN)/python -m bench.run $(ARGS)

instructions: $(DEV_READY) ## Count the machine instructions of a request; fails when they grew by 2 %
	@$(BIN)/python -m bench.instructions $(ARGS)

lock: $(UV_READY) ## Remake requirements/*.txt from pyproject.toml; ARGS=--upgrade takes newer versions
	@UV=$(BIN)/uv requirements/lock $(ARGS)

clean: ## Remove everything that make has made, .venv too
	@rm -rf $(VENV) build dist .nox .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find src tests examples bench docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV_MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Eyewall needs Python 3.11 or newer, and "$(PYTHON)" is not. Name one: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo '"$(PYTHON)" has no venv. On Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(UV_READY): requirements/uv.txt | $(VENV_MADE)
	@$(BIN)/pip install --quiet --require-hashes --requirement requirements/uv.txt
	@touch $@

$(DEMO_READY): requirements/demo.txt pyproject.toml | $(VENV_MADE)
	@echo "Installing what the demonstration needs into $(VENV) (once) ..."
	@$(BIN)/pip install --quiet --require-hashes --requirement requirements/demo.txt
	@$(INSTALL_EYEWALL)
	@touch $@

# demo.txt is a part of dev.txt in the same versions, so this makes the demonstration ready too.
$(DEV_READY): requirements/dev.txt pyproject.toml $(UV_READY) | $(VENV_MADE)
	@echo "Installing what tests and checks need into $(VENV) (once) ..."
	@requirements/install $(VENV) requirements/dev.txt
	@$(INSTALL_EYEWALL)
	@touch $(DEMO_READY) $@

$(BENCH_READY): requirements/bench.txt pyproject.toml $(DEV_READY)
	@echo "Installing the systems to compare with into $(VENV) (once) ..."
	@requirements/install $(VENV) requirements/bench.txt
	@touch $@
