# make install: environment in .venv; make demo: the app on simulated scans; make test: the tests.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
DEMO_SEED := 3
TEST_JOBS ?= 2
LOCKS := requirements.lock requirements-dev.lock

.PHONY: install demo test lint clean

install: $(VENV)/.installed

$(VENV)/.installed: $(LOCKS) pyproject.toml version
	test -x $(BIN)/python || $$(command -v $(PYTHON) || command -v python3) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix -r ,$(LOCKS))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: install
	rm -rf $(DEMO)
	$(BIN)/msnmo-simulate $(DEMO)/bids --diagnosis MS:1,NMOSD:1 --sessions 2,1 --load 22,6 \
		--scanner-preset 3T-3D --seed $(DEMO_SEED)
	$(BIN)/python run.py $(DEMO)/bids $(DEMO)/out participant --work-dir $(DEMO)/work --omp-nthreads 2
	$(BIN)/python run.py $(DEMO)/bids $(DEMO)/out group
	@$(BIN)/python -m dev.demo $(DEMO)/bids $(DEMO)/out

test: install lint
	$(BIN)/python -m pytest --numprocesses $(TEST_JOBS) --dist loadfile

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
