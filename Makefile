# Everything runs in .venv, made here. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# how many files of tests run at once: most of them wait more than they work
WORKERS ?= 2

.PHONY: help demo test test-all test-openstack test-openstack-full bench compiled lab lint docs system clean

help:            ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(STAMP)   ## run the demo experiment; leaves a notebook and a page in examples/video-qoe/out/
	scripts/system-packages demo
	$(BIN)/wardian run examples/video-qoe/video-qoe.ipynb --html

test: $(STAMP)   ## what CI runs
	scripts/system-packages test
	$(MAKE) --no-print-directory lab lint compiled
	$(BIN)/python -m pytest -m "not long" --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test-all: $(STAMP) ## the same, with soak and chaos at length
	scripts/system-packages test
	scripts/system-packages long
	$(BIN)/pip install --quiet "jupyterhub>=5.2"
	npm install --silent --prefix $(VENV)/hub configurable-http-proxy
	$(MAKE) --no-print-directory lab lint compiled
	$(BIN)/python -m pytest

test-openstack: $(STAMP) ## an OpenStack on this machine, and the provider against it: up to an hour, 4 GiB of memory, as root
	scripts/system-packages test
	scripts/openstack-testbed install
	$(BIN)/python -m pytest tests/testbed/test_parts.py tests/testbed/test_testbed.py
	trap 'scripts/openstack-testbed stop' EXIT; scripts/openstack-testbed start && WARDIAN_REQUIRE_ALL=1 \
	  $(BIN)/python -m pytest tests/testbed $(addprefix --ignore tests/testbed/test_,parts.py testbed.py full.py)

test-openstack-full: $(STAMP) ## the same where servers are virtual machines that QEMU emulates: half an hour, 8 GiB of memory, as root
	scripts/system-packages test
	scripts/openstack-testbed --full install
	trap 'scripts/openstack-testbed --full stop' EXIT; scripts/openstack-testbed --full start && WARDIAN_REQUIRE_ALL=1 \
	  scripts/openstack-testbed --full enter $(BIN)/python -m pytest tests/testbed/test_full.py

bench: $(STAMP)  ## measure beside peers; tables and JSON in benchmarks/out/
	scripts/system-packages bench
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks

lint: $(STAMP) lab ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd src/wardian/lab/labextension && PATH="$$PATH:$(CURDIR)/$(BIN)" jlpm prettier --check --log-level warn .

lab: $(STAMP)    ## build the JupyterLab extension, where its sources have changed
	$(BIN)/python hatch_build.py

# Where PYTHONDONTWRITEBYTECODE is set, each of a thousand processes would compile all modules anew.
compiled: $(STAMP)
	$(BIN)/python -m compileall -q src tests

docs: $(STAMP)   ## build the documentation into site/
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/mkdocs build --strict

$(STAMP): pyproject.toml
	scripts/system-packages python
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[data,test,lint]'
	touch $@

clean:           ## remove what was built, and the virtual environment
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache
