# The two commands: `make demo` shows the main job on a real Kubernetes, `make test` proves it. Both install what they need.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
UV_VERSION := 0.13.9

.PHONY: help demo up down test bench images quick lint fmt lock crds clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

# Made anew when the lock changes; hashes are checked.
$(VENV)/.done: requirements-dev.lock pyproject.toml
	@echo "environment: installing the locked packages into $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 is needed, this is %d.%d: set PYTHON=python3.11" % sys.version_info[:2] if sys.version_info[:2] != (3, 11) else 0)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@$(VENV)/bin/uv pip install --quiet --require-hashes --python $(PY) -r requirements-dev.lock
	@$(VENV)/bin/uv pip install --quiet --no-deps --no-build-isolation --python $(PY) -e .
	@touch $@

demo: $(VENV)/.done ## a real Kubernetes, the operator, a function, its answer (a minute; the first time on a machine about 10 minutes)
	@$(PY) -m tests.demo

up: $(VENV)/.done ## start the test bed: a whole Kubernetes node in namespaces of its own
	@$(PY) -m tests.testbed up

down: $(VENV)/.done ## end the test bed; nothing stays on the machine but its logs in .testbed
	@$(PY) -m tests.testbed down

# Budgets in minutes on 2 cores, for a machine whose caches are warm; a part that takes longer is told. Parts of different
# lanes run beside each other, see tests/run.py.
test: $(VENV)/.done ## all gates and tests, with the time each part took
	@$(PY) -m tests.run lint=2 unit=8 property=2 contract=14 image=4 e2e=14 alone=7 bed=8 kube=10

bench: $(VENV)/.done ## measure beside a peer: make bench NAME=function-deploy
	@$(PY) -m benchmarks $(NAME)

images: $(VENV)/.done ## operator, builder, registry and machine as OCI archives in build/images
	@$(PY) -m images build

quick: $(VENV)/.done ## the fast gates and the unit tests: what to run after each change
	@$(PY) -m tests.run lint=1 unit=3

lint: $(VENV)/.done ## the fast gates
	@$(PY) -m tests.run lint=2

fmt: $(VENV)/.done ## put the code into its form
	@$(VENV)/bin/ruff check --fix-only --quiet . && $(VENV)/bin/ruff format --quiet .

crds: $(VENV)/.done ## generate crds/ and their reference page from the models
	@$(PY) -m cloudmesh.api.crds && $(PY) -m cloudmesh.api.reference

lock: ## resolve the dependencies anew
	@for f in "requirements.lock" "requirements-dev.lock --group dev"; do set -- $$f; \
	  $(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11 pyproject.toml -o $$1 $${@:2}; done

clean: ## remove what was made in this folder (end the test bed first)
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
