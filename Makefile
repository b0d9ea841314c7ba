# Everything here works from a bare clone with Python 3.11+, make and the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
AUDIT := .venv-audit
AUDIT_STAMP := $(AUDIT)/.installed

# Nothing is installed that its hash in the lock does not name, and no setup.py of a source archive is run.
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
LOCKED := --require-hashes --only-binary :all:
UV_COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-package rqjobs \
	--no-header --annotation-style line

.PHONY: help demo test test-rq lint bench chaos soak slow security docs reference pictures audit sbom lock pin-images clean

help:  ## lists the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rqjobs needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) $(LOCKED) -r requirements.lock
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $(STAMP)

$(AUDIT_STAMP): locks/audit.lock
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python $(PIP_INSTALL) $(LOCKED) -r locks/audit.lock
	@touch $(AUDIT_STAMP)

demo: $(STAMP)  ## jobs of all five kinds, end to end, with a receiver, ManyChat and a mail server on loopback
	@$(BIN)/rqjobs demo

test: $(STAMP)  ## all tests (under five minutes on two cores)
	$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

test-rq: $(STAMP)  ## RQ's own tests (from the package index) with our engine
	$(BIN)/python -m tests.rq_suite.run $(ARGS)

lint: $(STAMP)  ## ruff, mypy --strict, the layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(STAMP)  ## the benchmarks, as ratios in one run
	$(BIN)/python -m bench $(ARGS)

chaos: $(STAMP)  ## every dependency fails while 200 jobs/s run, the long form (an hour), with a table of counts
	$(BIN)/python -m pytest -m slow tests/chaos tests/acceptance/test_chaos.py --ignore tests/chaos/test_soak.py -s $(ARGS)

soak: $(STAMP)  ## 20 minutes at 200 jobs/s: memory, descriptors and threads stay flat (SOAK_MINUTES, SOAK_RATE)
	$(BIN)/python -m pytest -m slow tests/chaos/test_soak.py -s $(ARGS)

slow: $(STAMP)  ## the other tests that are too slow for each run
	$(BIN)/python -m pytest -m slow tests --ignore tests/chaos --deselect tests/acceptance/test_chaos.py $(ARGS)

security: $(STAMP)  ## the security suite, short and long form, with the number of attacks
	$(BIN)/python -m pytest -m "slow or not slow" tests/security -s $(ARGS)

docs: $(STAMP)  ## the documentation into site/, links checked, no warning allowed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

reference: $(STAMP)  ## docs/reference/commands.md, from the commands' help
	$(BIN)/python docs/commands.py

pictures: $(STAMP)  ## docs/pictures/: the dashboard in a browser, light and dark (needs chromium)
	$(BIN)/python docs/pictures.py

audit: $(STAMP) $(AUDIT_STAMP)  ## bandit, secrets in the tree, known vulnerabilities (those need the network)
	$(AUDIT)/bin/bandit --quiet --recursive --configfile pyproject.toml rqjobs
	$(BIN)/python -m pytest -m slow tests/unit/test_secrets_in_tree.py
	$(BIN)/python -m pip check
	@# --strict: a package that the database cannot be asked about fails, rather than pass unexamined.
	@for lock in requirements.lock locks/*.lock; do \
		echo "pip-audit $$lock"; \
		$(AUDIT)/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes --requirement $$lock || exit 1; \
	done

sbom: $(AUDIT_STAMP)  ## dist/sbom.cdx.json: the image's packages with versions and hashes, as CycloneDX
	@mkdir -p dist
	@# It warns that a list of requirements has no graph of dependencies.
	PYTHONWARNINGS=ignore $(AUDIT)/bin/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application --sv 1.6 --of JSON \
		--output-reproducible --output-file dist/sbom.cdx.json locks/image.lock

lock:  ## writes requirements.lock and locks/ anew, keeping versions; UPGRADE=--upgrade updates them (needs uv: pip install uv)
	$(UV_COMPILE) $(UPGRADE) pyproject.toml --group dev --extra embedded --extra postgres --extra django --extra fastapi \
		--extra css --extra fast --extra otel --output-file requirements.lock
	$(UV_COMPILE) $(UPGRADE) pyproject.toml -c requirements.lock --extra postgres --extra fast --output-file locks/image.lock
	$(UV_COMPILE) $(UPGRADE) -c requirements.lock --group build --output-file locks/build.lock
	$(UV_COMPILE) $(UPGRADE) -c requirements.lock --group audit --output-file locks/audit.lock

pin-images:  ## writes the digests of the foreign images into deploy/ (needs docker buildx and a registry)
	$(PYTHON) deploy/pin_images.py

clean:  ## removes everything that make has made
	rm -rf $(VENV) $(AUDIT) .rqjobs site .mypy_cache .ruff_cache .import_linter_cache
