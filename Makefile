# Everything below sets itself up in .venv; nothing but Python >= 3.11, git and make is needed before.
# A machine whose package index holds only the CUDA build of PyTorch saves gigabytes with
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)
DEMO_STEPS ?= 1280
DEMO_EPISODES ?= 6
CLIENTS := runs/clients-$(shell date +%Y%m%d-%H%M%S)

.PHONY: help install demo test test-slow test-all docs lint types clients check clean

help:
	@echo "make demo   train CrossQ for a short while, compare it with the paper's sampler, draw the curve"
	@echo "make test   run the tests, but for those of tests/slow.txt"
	@echo "make test-all  run all tests"
	@echo "make docs   build the documentation into build/docs/index.html; a warning is an error"
	@echo "make lint   ruff"
	@echo "make types  mypy"
	@echo "make clients  run the examples of other libraries, each in a virtual environment of its own"
	@echo "make clean  remove the virtual environment and the caches (not runs/)"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/python scripts/train_sampler.py --out $(DEMO)/crossq --algo crossq --env.action full --timesteps $(DEMO_STEPS)
	$(BIN)/python scripts/evaluate_sampler.py --out $(DEMO)/evaluation --samplers $(DEMO)/crossq paper uniform --episodes $(DEMO_EPISODES)
	$(BIN)/python scripts/plot.py --out $(DEMO)/curve.png --runs $(DEMO)/crossq --results $(DEMO)/evaluation/results.jsonl
	@echo "TensorBoard: $(BIN)/tensorboard --logdir $(DEMO)"

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow'

# What make test leaves out.
test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

test-all: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

docs: install
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env --builder html docs build/docs

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# Not a part of check: it installs gigabytes, one environment after the other, of versions that others pin.
clients: install
	$(BIN)/python scripts/check_clients.py --out $(CLIENTS) --pip-flags "$(PIP_FLAGS)"

check: lint types docs test-all

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
