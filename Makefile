# Everything runs in .venv, made on the first call with nothing but Python 3.11 or newer and pip.
# TORCH=... names another PyTorch, e.g. `make test TORCH=torch==2.11.0`.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f)

.PHONY: help demo test test-long lint clean

help:
	@echo "make demo       train a one-element-batch auto-encoder on Fashion-MNIST (about five minutes)"
	@echo "make test       run the tests (a few minutes)"
	@echo "make test-long  run the tests that take longer: kill loops, long runs, sanitizers"
	@echo "make lint       ruff"
	@echo "make clean      remove what was built"

$(VENV)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "$(TORCH)" "setuptools>=77" wheel cmake ninja
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[dev]"
	$(BIN)/python -m mow_kernels
	@touch $@

demo: DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)
demo: $(VENV)/.installed
	@echo "Training a Cramer-Wold auto-encoder on Fashion-MNIST, ONE picture a step, compared over a window of 64."
	$(BIN)/mow train --model cwae --data fashion-mnist --n 64 --k 1 --steps 30000 --seed 0 --out $(DEMO)
	@echo "The report lies in $(CURDIR)/$(DEMO)/report.html"

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not long"

test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -m long

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build dist *.egg-info mow_kernels/*.so
