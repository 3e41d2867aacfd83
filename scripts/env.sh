# Sourced by the other scripts from the top of the repository: makes a Python environment from constraints.txt where it is
# missing or out of date, and puts it first on the path.
#
#   PYTHON=python3.13   the interpreter to make it with      default: that of the environment, or else python3
#   VENV=.venv-3.13     the folder to make it in             default: .venv
#   CONSTRAINTS=FILE    the versions to install             default: constraints.txt
#   VENV=none           use the python on the path as it is, for a container or a cluster where ladm is installed
if [ "${VENV-}" != none ]; then
    venv=${VENV:-.venv}
    python=${PYTHON:-python3}
    constraints=${CONSTRAINTS:-constraints.txt}
    if [ ! -f "$constraints" ]; then echo "CONSTRAINTS: there is no file $constraints" >&2; exit 1; fi
    if [ -z "${PYTHON-}" ] && [ -x "$venv/bin/python" ]; then python=$venv/bin/python; fi
    version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(sys.version_info < (3, 11))') || {
        echo "Python 3.11 or newer is needed, and $python is ${version:-not a working Python}; set PYTHON=/path/to/python3" >&2
        exit 1
    }
    stamp=$version-$(cat pyproject.toml "$constraints" | sha256sum | cut -d ' ' -f 1)
    if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ]; then
        echo "making the environment in $venv with Python $version (once; some minutes)" >&2
        # The stamp goes first and comes back last, each step on its own feet: a sourcing script without `set -e`, a failed
        # download or a kill must not leave the stamp of an environment that is not whole.
        rm -f "$venv/.stamp"
        made=$("$venv/bin/python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || true
        if [ "$made" != "$version" ]; then
            "$python" -m venv --clear "$venv" || { echo "could not make an environment in $venv" >&2; exit 1; }
        fi
        # Not compiled here: most of the 16,000 files are never imported, and Python compiles those that are.
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
            --constraint "$constraints" --editable '.[dev,gguf]' || {
            echo "could not install the packages into $venv; run this again once the cause above is gone" >&2
            exit 1
        }
        echo "$stamp" > "$venv/.stamp"
    fi
    export PATH="$(cd "$venv" && pwd)/bin:$PATH"
fi
export HF_HUB_DISABLE_TELEMETRY=1
# Container images often set this, and then every process compiles torch and transformers again, for some seconds.
unset PYTHONDONTWRITEBYTECODE
