# The two commands: `make demo` shows the whole chain on this machine, `make test` proves it.
# Both set everything up by themselves; all that must be there is python3 (3.11-3.13, with venv) and make.

PYTHON ?= $(shell for p in python3.12 python3.13 python3.11 python3; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
DEMO ?= demo
# One thread per process: the tiny models of demo and tests are ten times slower with an OpenMP team on a small machine.
export OMP_NUM_THREADS ?= 1
export UV_COMPILE_BYTECODE = 1
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-fast test-nodes test-control-plane test-stories test-kill test-cluster-full soak cluster cluster-down images lint format setup generate lock clean help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.venv/ready: pyproject.toml uv.lock
	@test -n "$(PYTHON)" || { echo "make: needs python3 3.11, 3.12 or 3.13 with venv (Debian: apt-get install python3-venv); or: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no ensurepip; Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(BIN)/uv sync --frozen --quiet --extra job --extra dev --python $(BIN)/python
	@touch $@

setup: .venv/ready ## install everything from the lock file into .venv

demo: .venv/ready ## three real clips, a tiny random LTX-2, one manifest: cache, train, validate, summary
	@$(BIN)/python scripts/demo_clips.py $(DEMO)/datasets/videos
	@test -f $(DEMO)/models/ltx-2-tiny.safetensors || $(BIN)/ltx2 tiny $(DEMO)/models --version 2.0 --blocks 2
	@$(BIN)/ltx2 run configs/quickstart.yaml --workspace $(DEMO)

lint: .venv/ready ## style, types, and the arrows between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: .venv/ready ## lint, and all tests but the long ones (test-cluster-full); says what was skipped and why
	@$(MAKE) --no-print-directory --jobs=2 lint test-fast
	@$(MAKE) --no-print-directory --jobs=2 --keep-going test-nodes test-control-plane test-stories

# By folder, since to collect all tests takes a quarter of a minute. The quick start is told early.
STORIES := $(filter-out %/test_quickstart.py,$(wildcard tests/end_to_end/test_*.py))
ON_CLUSTER := tests/cluster tests/images
# In the order of the folders: the few files of long tests early, so that neither process is left alone with one.
test-fast: .venv/ready ## the tests that need no cluster, but for most whole trainings (test-stories)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q -m 'not full' $(addprefix --ignore=,$(STORIES) $(ON_CLUSTER))

# Two side by side: those on nodes wait more than they work, and take as long as the two others one after the other.
# Their dots mix, what they say at their ends does not.
test-nodes: .venv/ready
	$(BIN)/python -m pytest -q -m 'nodes and not full' $(ON_CLUSTER)

test-control-plane: .venv/ready
	$(BIN)/python -m pytest -q -m 'not nodes and not full' $(ON_CLUSTER)

test-stories: .venv/ready
	$(BIN)/python -m pytest -q -m 'not full' $(STORIES)

NAME ?= ltx2
test-cluster-full: .venv/ready ## every test on the cluster, and all long ones
	$(BIN)/python -m pytest -q -m 'cluster or full'

cluster: .venv/ready ## a Kubernetes of two nodes on this machine (Go, root, containerd), NAME=ltx2: docs/development.md
	@cd tests && ../$(BIN)/python -m cluster.harness up --name $(NAME)

cluster-down: .venv/ready ## end it; nothing of it stays; NAME=ltx2
	@cd tests && ../$(BIN)/python -m cluster.harness down --name $(NAME)

KILLS ?= 200
TERMS ?= 100
SEED ?= 1
test-kill: .venv/ready ## break 300 runs (kill -9, SIGTERM, full volume) and compare their ends; KILLS=200 TERMS=100 SEED=1
	@cd tests && ../$(BIN)/python -m kills.campaign --kills $(KILLS) --terms $(TERMS) --seed $(SEED)

RUNS ?= 50
soak: .venv/ready ## half an hour: trainings on a cluster that is disturbed all the time; RUNS=50 SEED=1
	@cd tests && ../$(BIN)/python -m cluster.soak --runs $(RUNS) --seed $(SEED)

IMAGES ?= operator job-cpu
images: .venv/ready ## build the images with podman, as the tests do; IMAGES="operator job-cpu" (docs/images.md)
	@cd tests && ../$(BIN)/python -m cluster.harness.build_images $(IMAGES)

format: .venv/ready ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: .venv/ready ## write the configuration table, the CRD, the chart and what is predicted anew
	$(BIN)/python scripts/generate.py

lock: ## resolve the dependencies anew into uv.lock
	$(BIN)/uv lock --upgrade
	scripts/pin_images.sh

clean: ## remove what make and the demo made
	rm -rf .venv .cache $(DEMO)
