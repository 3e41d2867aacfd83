#!/usr/bin/env bash
# Lint, types, import contracts, prose and tests, in an environment that it makes itself.
#
#   ./scripts/test.sh [--all] [PYTEST-ARGUMENT...]      --all: the slow suites too
#
# PYTHON=python3.13 VENV=.venv-3.13 ./scripts/test.sh runs all of it on another Python, and CONSTRAINTS=scripts/lowest.txt
# VENV=.venv-lowest ./scripts/test.sh with the lowest versions that pyproject.toml allows (see scripts/env.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

select=(-m 'not slow')
if [ "${1-}" = --all ]; then
    select=()
    shift
    python -c 'import lm_eval, tensorboard' 2>/dev/null || {
        echo "installing what ladm evaluate tasks and --report-to need (once)" >&2
        python -m pip install --quiet --disable-pip-version-check --constraint "${CONSTRAINTS:-constraints.txt}" --editable '.[eval,tensorboard]'
    }
    # The page's script runs in a real browser; where there is none and none can be installed, its tests are skipped.
    if ! command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null; then
        echo "installing chromium for the tests of the report's page (once)" >&2
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 ||
            echo "chromium cannot be installed here: tests/report/test_explorer_browser.py will be skipped" >&2
    fi
fi
ruff check .
ruff format --check .
lint-imports

# Types and prose take about a minute of one core: they are checked while the tests run, and reported after them.
logs=$(mktemp -d)
jobs=()
trap 'kill "${jobs[@]}" 2>/dev/null || true; rm -rf "$logs"' EXIT
# pytest answers Ctrl-C itself, and bash would then go on and wait for the checks.
trap 'exit 130' INT
python scripts/check_prose.py > "$logs/prose" 2>&1 &
jobs+=($!)
# Types are those of the packages in constraints.txt; others declare theirs differently.
if [ -z "${CONSTRAINTS-}" ]; then
    mypy ladm examples/score_in_python.py examples/own_signal.py tests/support/typed_user.py > "$logs/types" 2>&1 &
    jobs+=($!)
fi

# One file at a time for each core and one more, because tests also wait for processes of their own; four at most, each
# with one thread. The order is that of tests/conftest.py, which starts the files that take longest first.
workers=$(python -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')
failed=0
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 python -m pytest --numprocesses "$workers" --dist loadfile \
    --no-loadscope-reorder "${select[@]}" "$@" || failed=$?
for job in "${jobs[@]}"; do
    wait "$job" || failed=1
done
cat "$logs"/*
exit "$failed"
