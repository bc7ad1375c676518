#!/usr/bin/env bash
# The other Pythons of the project that this machine has: what the lock says for each is installed,
# and what needs no torch is tested. No package index has a CPU build of torch for all of them, and a
# CUDA build takes minutes; CONTRIBUTING.md says with which everything was run.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
report=${PYTEST_ADDOPTS-}
status=0
trap 'rm -rf .venv-3.1[123]' EXIT
taken=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for version in 3.11 3.12 3.13; do
    [ "$version" = "$taken" ] && continue
    python=''
    for candidate in "python$version" "$HOME/.pyenv/versions/$version".*/bin/python; do
        found=$(.ci/find_python.sh "$candidate" 2> /dev/null) && python=$found && break
    done
    if [ -z "$python" ]; then
        echo "Python $version is not on this machine"
        continue
    fi
    venv=.venv-$version
    echo "Python $version: $("$python" --version), $(command -v "$python")"
    "$uv" venv --quiet --clear --python "$(command -v "$python")" "$venv"
    "$uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" --require-hashes \
        --no-deps -r locks/install.txt
    "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation -e .
    PYTEST_ADDOPTS="${report/%.xml/.$version.xml}" "$venv/bin/python" -m pytest -q \
        -m "not ray and not zoo and not pretrained and not slow and not chaos and not vllm" \
        tests/packaging tests/policies/span tests/policies/process || status=$?
done
exit "$status"
