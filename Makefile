# Every command sets up what it needs; nothing has to be installed by hand but Python 3.11 or newer.
SHELL := /bin/bash
PYTHON ?= python3
PY := .venv/bin/python
OUT ?= out/demo
SET ?=

.PHONY: setup demo test test-all lint types bench lock clean

setup: .venv/.ready

# uv reads requirements.lock with its hashes; it comes from pip inside the environment itself. Bytecode is compiled once,
# here: every worker process imports torch and diffusers, and where Python may not write it they would compile them anew.
.venv/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check "uv==0.13.8"
	$(PY) -m uv pip install --quiet --compile-bytecode --python $(PY) --require-hashes -r requirements.lock
	$(PY) -m uv pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	touch .venv/.ready

# The road, one command a step: the same words that go behind `ray job submit` on a cluster.
JOB = $(PY) -m jobs
demo: setup
	@date +%s > .demo-started
	$(JOB) doctor --out $(OUT)
	$(JOB) preprocess  --recipe demo $(SET:%=--set %) --out $(OUT)/shards
	$(JOB) pretrain    --recipe demo $(SET:%=--set %) --shards $(OUT)/shards --out $(OUT)/checkpoint
	$(JOB) preprocess  --recipe nightly_tiny $(SET:%=--set %) --out $(OUT)/people
	$(JOB) personalize --recipe nightly_tiny $(SET:%=--set %) --shards $(OUT)/people --checkpoint $(OUT)/checkpoint --out $(OUT)/adapters
	$(JOB) generate    --recipe nightly_tiny $(SET:%=--set %) --shards $(OUT)/people --checkpoint $(OUT)/checkpoint --adapters $(OUT)/adapters --out $(OUT)/images
	$(JOB) evaluate    --recipe nightly_tiny $(SET:%=--set %) --shards $(OUT)/people --images $(OUT)/images --out $(OUT)/evaluation
	$(JOB) report      --recipe nightly_tiny $(SET:%=--set %) --shards $(OUT)/people --images $(OUT)/images --evaluation $(OUT)/evaluation --out $(OUT)/report
	@echo "demo: done in $$(( $$(date +%s) - $$(cat .demo-started) )) s; open $(OUT)/report/report.html"; rm -f .demo-started

test: setup
	$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not full"

test-all: setup
	$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: setup
	$(PY) -m mypy

bench: setup
	$(PY) -m tests.benchmarks

lock:
	$(PY) -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --all-extras --python-version 3.11 pyproject.toml -o requirements.lock

clean:
	rm -rf .venv build dist *.egg-info out
