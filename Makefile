# Everything here works from a bare clone with Python 3.11+, make and the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test test-rq lint bench chaos soak slow docs lock clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rqjobs needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

demo: $(STAMP)  ## the main job, end to end, with the outside world played on loopback
	@$(BIN)/rqjobs demo

test: $(STAMP)  ## all tests (under five minutes on two cores)
	$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

test-rq: $(STAMP)  ## RQ's own tests (from the package index) with our engine
	$(BIN)/python -m tests.rq_suite.run $(ARGS)

lint: $(STAMP)  ## ruff, mypy --strict, the floor plan
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(STAMP)  ## the benchmarks, as ratios in one run
	$(BIN)/python -m bench $(ARGS)

chaos: $(STAMP)  ## every dependency fails while 200 jobs/s run, the long form (45 minutes), with a table of counts
	$(BIN)/python -m pytest -m slow tests/chaos tests/acceptance/test_chaos.py --ignore tests/chaos/test_soak.py -s $(ARGS)

soak: $(STAMP)  ## 20 minutes at 200 jobs/s: memory, descriptors and threads stay flat (SOAK_MINUTES, SOAK_RATE)
	$(BIN)/python -m pytest -m slow tests/chaos/test_soak.py -s $(ARGS)

slow: $(STAMP)  ## the other tests that are too slow for each run
	$(BIN)/python -m pytest -m slow tests --ignore tests/chaos --deselect tests/acceptance/test_chaos.py $(ARGS)

docs: $(STAMP)  ## the documentation into site/, links checked, no warning allowed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lock:  ## writes requirements.lock anew (needs uv: pip install uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --group dev --extra embedded --extra postgres \
		--extra django --extra fastapi --extra css --extra fast --extra otel \
		--no-emit-package rqjobs --no-header --output-file requirements.lock

clean:  ## removes what make made
	rm -rf $(VENV) .rqjobs site .mypy_cache .ruff_cache .import_linter_cache
