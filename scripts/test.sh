#!/usr/bin/env bash
# Lint, types, import contracts, prose and tests, in an environment that it makes itself.
#
#   ./scripts/test.sh [--all] [PYTEST-ARGUMENT...]      --all: the slow suites too
#
# PYTHON=python3.13 VENV=.venv-3.13 ./scripts/test.sh runs all of it on another Python (see scripts/env.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

select=(-m 'not slow')
if [ "${1-}" = --all ]; then
    select=()
    shift
    python -c 'import lm_eval, tensorboard' 2>/dev/null || {
        echo "installing what ladm evaluate tasks and --report-to need (once)" >&2
        python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[eval,tensorboard]'
    }
fi
ruff check .
ruff format --check .
mypy ladm
lint-imports
python scripts/check_prose.py
# A file at a time on each of up to four cores, each with one thread: the tests' own processes share them.
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
    "${select[@]}" "$@"
