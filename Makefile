# make demo   sets everything up and shows the whole life of a model on three clouds
# make test   sets everything up and runs every check
# make chaos  kills every operation at every step and breaks every cloud in turn (SEED=… repeats a run)
# make lock   resolves pyproject.toml anew into requirements.lock (needs the network)

# The first interpreter that really runs and is new enough (a name on PATH may be a shim that runs nothing).
PYTHON ?= $(shell for name in python3.11 python3.12 python3 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$name"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some machines forbid it; the tests start hundreds of processes, each of which would compile Lockstep anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test chaos lint unit lock clean

help:
	@sed -n '1,4s/^# //p' Makefile

setup: $(STAMP)

# A second run finds the stamp and touches no network. The lock is already resolved, so pip does not resolve it again
# (with hashes it gives up on an extra whose newest release is not the pinned one); `pip check` finds a gap in it.
$(STAMP): requirements.lock pyproject.toml sandbox/azure/azurite/package-lock.json
	@test -n "$(PYTHON)" || { echo "lockstep: no Python 3.11 or later on PATH; install one, or call make PYTHON=/path/to/it" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lockstep: $(PYTHON) does not run or is older than Python 3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "lockstep: $(PYTHON) has no venv; install it (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "creating $(VENV)"; "$(PYTHON)" -m venv $(VENV); }
	@echo "installing what requirements.lock names (a few minutes, once)"
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@found=$$($(BIN)/python -m pip check) || { echo "$$found" >&2; exit 1; }
	@$(BIN)/python -m sandbox.azure.install
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/lockstep demo $(ARGS)

# More workers than cores: the tests wait for their servers as much as they compute. Each has clouds of its own.
test: lint
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile $(ARGS)

# `make test` runs a drawn part of it, the same one each time.
chaos: SEED ?= $(shell date +%s)
chaos: $(STAMP)
	@echo "repeat this run with: make chaos SEED=$(SEED)"
	@LOCKSTEP_CHAOS_SEED=$(SEED) $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "" tests/chaos $(ARGS)

unit: $(STAMP)
	@$(BIN)/python -m pytest -q tests/unit $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@found=$$($(BIN)/lint-imports --no-cache) || { echo "$$found" >&2; exit 1; }; echo "$$found" | tail -n 3
	@$(BIN)/mypy

# uv resolves for every Python and platform at once; pip installs the result.
lock: $(STAMP)
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --universal --python-version 3.11 --all-extras --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --quiet pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis
