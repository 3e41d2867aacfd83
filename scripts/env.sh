# Sourced by the other scripts: makes .venv from constraints.txt where it is missing or out of date,
# and puts it first on the path. Expects to be sourced from the top of the repository.
python=${PYTHON:-python3}
stamp=$(cat pyproject.toml constraints.txt | sha256sum | cut -d ' ' -f 1)
if [ "$(cat .venv/.stamp 2>/dev/null)" != "$stamp" ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "Python 3.11 or newer is needed, and $python is $("$python" --version 2>&1); set PYTHON=/path/to/python3" >&2
        exit 1
    }
    echo "making the environment in .venv (once; some minutes)" >&2
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --constraint constraints.txt --editable '.[dev,gguf]'
    echo "$stamp" > .venv/.stamp
fi
export PATH="$PWD/.venv/bin:$PATH"
export HF_HUB_DISABLE_TELEMETRY=1
