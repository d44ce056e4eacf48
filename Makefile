# Each target sets itself up: a .venv, from nothing but python3 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# Tests that run the real thing wait for processes and connections most of the time: one more than there are cores.
PYTEST_JOBS ?= $(shell n=$$(nproc); echo $$((n < 7 ? n + 1 : 8)))
TOGETHER := -n $(PYTEST_JOBS) --dist worksteal
# With FAULTS=DIR each call of pytest adds its rows to the table of faults there.
# In one word: else pytest, which learns of the option later, takes a folder that is there for one of tests.
TABLE = $(if $(FAULTS),--faults-out=$(FAULTS))

# Where nothing compiled may be kept, each of the many processes that are started compiles all of it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test test-slow faults bench bench-gpu bench-net lint types protos protos-check monitoring wheel compare clean help

help:                ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

train: $(VENV)/.train  ## train a small network on handwritten digits, with two workers
	$(BIN)/thalweg train cluster/jobs/digits.toml

test: $(VENV)/.dev    ## the tests, but for those that take minutes
	$(BIN)/pytest $(TOGETHER) $(TABLE)

test-slow: $(VENV)/.dev  ## clusters of several hosts, processes that die: minutes, on real Ray
	$(BIN)/pytest -m 'slow and not alone' $(TOGETHER) $(TABLE)
	$(BIN)/pytest -m 'slow and alone' $(TABLE)

faults: $(VENV)/.dev  ## what is done to runs, and what comes of it: one table; OUT=DIR writes it there, too
	$(BIN)/pytest -m faults $(TOGETHER) --faults-table $(if $(OUT),--faults-out=$(OUT))

bench: $(VENV)/.compare  ## Thalweg, DDP, Ray's parameter server and a plain loop, side by side; the same nn.Module, too
	$(BIN)/python -m tests.benchmarks.compare --json bench.json
	$(BIN)/python -m tests.benchmarks.modules --json bench-modules.json

bench-gpu: $(VENV)/.dev  ## a plain loop and Thalweg on one GPU (with a PyTorch for CUDA in .venv)
	$(BIN)/python -m tests.benchmarks.gpu --json bench-gpu.json

bench-net: $(VENV)/.compare  ## Thalweg and DDP, each worker on a host of its own, at 1 Gbit/s (as root)
	$(BIN)/python -m tests.benchmarks.net --json bench-net.json

compare: $(VENV)/.compare  ## the opt-in comparisons with PyTorch and JAX
	$(BIN)/pytest -m compare

lint: $(VENV)/.dev    ## ruff, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev   ## mypy, strict
	$(BIN)/mypy

PROTOS := $(wildcard proto/thalweg_proto/v1/*.proto)
SERVICES := $(shell grep -l '^service' $(PROTOS))
PROTOC = cd proto && ../$(BIN)/python -m grpc_tools.protoc -I.

protos: $(VENV)/.dev  ## generate the modules of the .proto files
	$(PROTOC) --python_out=. --pyi_out=. $(PROTOS:proto/%=%)
	$(PROTOC) --grpc_python_out=. $(SERVICES:proto/%=%)

protos-check: protos  ## fail where the committed generated modules are stale
	git diff --exit-code --stat -- proto/thalweg_proto/v1
	test -z "$$(git status --porcelain -- proto/thalweg_proto/v1)"

monitoring: $(VENV)/.dev  ## generate the files in cluster/monitoring; a test says whether they are stale
	$(BIN)/python -m thalweg_cluster.monitoring.files cluster/monitoring

wheel: $(VENV)/.dev   ## build the wheel
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist . >/dev/null
	ls dist

clean:               ## remove what the other targets made
	rm -rf $(VENV) dist runs bench.json bench-modules.json bench-gpu.json bench-net.json

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e '.[digits]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e '.[dev]'
	touch $@ $(VENV)/.train

# torch first: with it there, jax's and our own needs are met without another build of it.
$(VENV)/.compare: pyproject.toml $(VENV)/.dev | $(VENV)/bin/python
	$(PIP) install torch==2.13.0
	$(PIP) install -e '.[compare]'
	touch $@
