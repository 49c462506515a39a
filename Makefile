# Everything runs in .venv, made on the first call with nothing but Python 3.11 or newer and pip.
# TORCH=... names another PyTorch, e.g. `make test TORCH=torch==2.11.0`.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f)

.PHONY: help demo test test-long bench gpu sanitize lint docs release clean

help:
	@echo "make demo       train a one-element-batch auto-encoder on Fashion-MNIST (about five minutes)"
	@echo "make test       run the tests on every core (a few minutes)"
	@echo "make test-long  run the tests that take longer: kill loops, long runs, sanitizers, more sizes and compilers"
	@echo "make bench      measure, and make the tables and plots of the docs from it"
	@echo "make gpu        test and measure on a GPU, with what is installed there (eight minutes)"
	@echo "make sanitize   run the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make lint       ruff and mypy"
	@echo "make docs       the documentation as a site, in build/site"
	@echo "make release    build the wheel and the source archive into dist, check and try both"
	@echo "make clean      remove what was built"

# The native library is built while pip collects the rest.
$(VENV)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "$(TORCH)" "setuptools>=77" wheel cmake ninja
	$(BIN)/python setup.py build_ext --inplace >$(VENV)/native.log 2>&1 & \
	MOW_BUILD=0 MOW_CUDA= $(BIN)/pip install --quiet --no-build-isolation --editable ".[dev]" && wait $$!
	$(BIN)/python -m mow_kernels
	@touch $@

demo: DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)
demo: $(VENV)/.installed
	@echo "Training a Cramer-Wold auto-encoder on Fashion-MNIST, ONE picture a step, compared over a window of 64."
	$(BIN)/mow train --model cwae --data fashion-mnist --n 64 --k 1 --steps 30000 --seed 0 --out $(DEMO)
	@echo "The report lies in $(CURDIR)/$(DEMO)/report.html"

# A file is one worker's, so that what it builds for all of its tests is built once, and the slow ones, which are the
# kernels', begin first. One thread a process: what the tests start would else wait for each other's.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long" -n logical --dist loadfile --no-loadscope-reorder

test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -m long

# Measures for some twenty minutes and writes the tables and plots of docs/benchmarks.md and docs/speed.md from the result.
bench: $(VENV)/.installed
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[bench]"
	$(BIN)/python -m benchmarks run
	$(BIN)/python -m benchmarks report

# Installs nothing and needs no network: python3 has PyTorch, Triton, pytest and typer there, and nvcc and CMake the rest.
# Builds the CUDA kernels for this GPU alone; red in the end if they do not build in four minutes though there is nvcc.
# All of it takes eight; the record is written after every job. MOW_COMMIT names the commit where there is no .git, OUT
# the folder for the record.
GPU_ARCHITECTURE := import torch; c = torch.cuda.get_device_capability(); print(f"{c[0]}{c[1]}" + "a" * (c == (9, 0)))
gpu:
	built=0; since=$$(date +%s); \
	if architecture=$$($(PYTHON) -c '$(GPU_ARCHITECTURE)' 2>/dev/null); then \
		nvcc=$$(PATH="$$PATH:$${CUDA_HOME:-/usr/local/cuda}/bin" command -v "$${CUDACXX:-nvcc}"); \
		MOW_CUDA=$${nvcc:+1} MOW_CUDA_ARCH=$$architecture timeout 240 $(PYTHON) setup.py build_ext --inplace || built=1; fi; \
	PYTHONPATH=. $(PYTHON) -m benchmarks.gpu run --since $$since && exit $$built

# The tests of the kernels over a library built with the sanitizers, in a folder of its own.
SANITIZED := build/sanitized
sanitize: $(VENV)/.installed
	MOW_SANITIZE=address,undefined $(BIN)/python setup.py build_ext --build-lib $(SANITIZED) --build-temp $(SANITIZED)/temp
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 MOW_NATIVE=$(SANITIZED)/mow_kernels/_native.so \
	$(BIN)/python -m pytest tests/kernels -k "cpp or running or k_center" -p no:cacheprovider

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "The site lies in $(CURDIR)/build/site/index.html"

# The wheel is tried where there is neither a compiler nor CMake: tests/test_wheel.py.
release: $(VENV)/.installed
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[release]"
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*
	MOW_DIST=dist $(BIN)/python -m pytest tests/test_wheel.py -m "long or not long"

clean:
	rm -rf $(VENV) build dist *.egg-info mow_kernels/*.so
