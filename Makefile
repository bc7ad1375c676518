PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# The CPU build of torch, named first: an unpinned torch brings gigabytes of CUDA.
TORCH ?= torch==2.13.0

.PHONY: install demo serve test test-pretrained lint format docs bench zoo clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --progress-bar on $(TORCH) -e ".[local,dev]"
	touch $@

demo: install          ## two pretrained LLMs write one answer, coloured by author
	$(BIN)/orchestrion demo

serve: install         ## keep examples/quickstart.yaml running
	$(BIN)/orchestrion serve examples/quickstart.yaml

test: install          ## the test suite
	$(BIN)/python -m pytest -q

test-pretrained: install   ## what needs the two pretrained models
	$(BIN)/orchestrion fetch examples/quickstart.yaml
	$(BIN)/python -m pytest -q -m pretrained

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/orchestrion methods --check docs/methods.md

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install          ## renew generated pages
	$(BIN)/orchestrion methods --write docs/methods.md

bench: install         ## the figures in the README
	$(BIN)/python -m benchmarks.span --json

zoo: install           ## retrain the zoo (about half an hour on 2 cores)
	$(BIN)/python -m examples.zoo.train

clean:
	rm -rf $(VENV) build dist *.egg-info
