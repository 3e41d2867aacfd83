"""Attacks that a model, a data set or a run folder from somebody else may carry: none of them does anything."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from support.paths import GOLDEN, ROOT
from support.rows import topical_rows

Run = Callable[..., Result]
NAMES = [
    "../../x",
    "/etc/passwd",
    "</script><img src=x onerror=alert(1)>",
    "a\0b",
    "x" * 5000,
    "\u202eright to left",
    "line\nbreak",
    "$(touch sentinel)",
    "",
]


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, sentinel: Path) -> None:
        self._sentinel = sentinel

    def __reduce__(self) -> Any:
        return (open, (str(self._sentinel), "w"))


@pytest.mark.parametrize("beside", [True, False], ids=["beside safetensors", "alone"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "training_args.bin", "optimizer.pt"])
def test_a_pickle_is_never_opened(
    ladm: Run, save_rows: Any, golden: Any, tmp_path: Path, name: str, beside: bool
) -> None:
    model, sentinel = tmp_path / "model", tmp_path / "sentinel"
    shutil.copytree(GOLDEN, model)
    (model / name).write_bytes(pickle.dumps(Evil(sentinel)))
    with (model / name).open("rb") as file:
        pickle.load(file).close()
    assert sentinel.exists(), "the attack itself works"
    sentinel.unlink()
    if not beside:
        (model / "model.safetensors").unlink()
    rows = save_rows(topical_rows(golden, [400]))
    result = ladm("score", rows, "--model", model, "--span-tokens", "16", "--output", tmp_path / "run")
    assert result.exit_code == (0 if beside else 1)
    assert not sentinel.exists()


CODE = "from pathlib import Path\nPath({sentinel!r}).touch()\n"


def test_code_in_the_folders_of_model_and_rows_never_runs(
    save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sentinel = tmp_path / "model", tmp_path / "sentinel"
    shutil.copytree(GOLDEN, model)
    code = CODE.format(sentinel=str(sentinel))
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.T", None]}
    (model / "config.json").write_text(json.dumps(config))
    rows = Path(save_rows(topical_rows(golden, [400])))
    for folder in (model, rows, tmp_path):
        for name in ("evil.py", "modeling.py", "configuration.py", "__init__.py", f"{rows.name}.py", "torch.py"):
            (folder / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    command = ["score", str(rows), "--model", str(model), "--span-tokens", "16", "--output", str(tmp_path / "run")]
    program = Path(sys.executable).with_name("ladm")
    done = subprocess.run([str(program), *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not sentinel.exists()


PROGRAMS = {
    "script": [str(Path(sys.executable).with_name("ladm"))],
    "module": [sys.executable, "-m", "ladm"],
}


@pytest.mark.slow
@pytest.mark.parametrize("program", ["script", "module"])
def test_modules_in_the_working_folder_are_never_imported(
    save_rows: Any, golden: Any, tmp_path: Path, program: str
) -> None:
    """A folder with a `queue.py`, a `pickle.py` and so on for every module of Python, and a run with two workers in it.

    Spawned workers and the resource tracker are Python processes of their own, with paths of their own.
    """
    work, sentinel = tmp_path / "work", tmp_path / "sentinel"
    work.mkdir()
    rows = save_rows(topical_rows(golden, [400] * 6))
    for name in _planted_names(tmp_path):
        (work / f"{name}.py").write_text(f"import os, sys\nos.open({str(sentinel)!r}, os.O_CREAT)\nsys.exit(1)\n")
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text(f"import os\nos.open({str(tmp_path / 'seen')!r}, os.O_CREAT)\n")
    path = os.pathsep.join([str(own), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    shown = subprocess.run([sys.executable, "-c", "import queue"], cwd=work, check=False)
    assert shown.returncode == 1
    assert sentinel.exists(), "the attack itself works"
    sentinel.unlink()
    command = ["score", rows, "--model", str(GOLDEN), "--span-tokens", "16", "--output", str(tmp_path / "run")]
    done = subprocess.run(
        [*PROGRAMS[program], *command, "--device", "cpu", "--dtype", "float32", "--workers", "2"],
        cwd=work, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, sentinel.exists()) == (0, False), done.stderr
    assert (tmp_path / "seen").exists(), "what the user puts on PYTHONPATH still works"


@pytest.mark.slow
def test_workers_of_a_python_call_import_nothing_of_the_working_folder(
    save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    work, sentinel, script = tmp_path / "work", tmp_path / "sentinel", tmp_path / "own" / "script.py"
    work.mkdir()
    script.parent.mkdir()
    for name in _planted_names(tmp_path):
        (work / f"{name}.py").write_text(f"import os\nos.open({str(sentinel)!r}, os.O_CREAT)\nraise SystemExit(1)\n")
    rows = str(save_rows(topical_rows(golden, [400] * 6)))
    script.write_text(
        "import os\nimport ladm\n"
        "if __name__ == '__main__':\n"
        f"    ladm.score({rows!r}, model={str(GOLDEN)!r}, output={str(tmp_path / 'run')!r}, span_tokens=16,\n"
        "               device='cpu', dtype='float32', workers=2)\n"
        "    assert 'PYTHONSAFEPATH' not in os.environ\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=work, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, sentinel.exists()) == (0, False), done.stderr


def _planted_names(folder: Path) -> set[str]:
    """Every module of the standard library, but for those that `python -m` needs before it starts any program."""
    (folder / "loaded.py").write_text("import sys\nprint(*sys.modules)\n")
    command = [sys.executable, "-m", "loaded"]
    loaded = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.split()
    names = sys.stdlib_module_names - {name.partition(".")[0] for name in loaded}
    assert {"queue", "pickle", "threading", "socket", "tempfile"} <= names
    return names


def test_an_empty_entry_of_pythonpath_is_not_the_working_folder(tmp_path: Path) -> None:
    """`PYTHONPATH=/opt/x:$PYTHONPATH` leaves one where the variable was not set."""
    sentinel = tmp_path / "sentinel"
    (tmp_path / "click.py").write_text(CODE.format(sentinel=str(sentinel)))
    for path in (f"{ROOT}{os.pathsep}", f"{os.pathsep}{ROOT}"):
        for program in PROGRAMS.values():
            environment = os.environ | {"PYTHONPATH": path}
            done = subprocess.run(
                [*program, "--version"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stderr, sentinel.exists()) == (0, "", False)


def test_names_from_the_data_are_only_names(ladm: Run, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    data = topical_rows(golden, [400] * len(NAMES))
    for row, name in zip(data, NAMES, strict=True):
        row["meta"] = {"pile_set_name": name}
        row["index"] = f"{name}{row['index']}"
    rows = save_rows(data)
    before = everything_below(tmp_path)
    common = ("--span-tokens", "16", "--output", tmp_path / "run")
    assert ladm("score", rows, "--model", GOLDEN, *common).exit_code == 0
    result = ladm("select", tmp_path / "run", "--rows", rows, "--tokens", "2k", "--output", tmp_path / "subset")
    assert result.exit_code == 0, result.output
    assert "\0" not in result.output
    assert "\u202e" not in result.output
    assert all(len(line) < 200 for line in result.output.splitlines())
    assert set(json.loads((tmp_path / "subset" / "manifest.json").read_text())["domains"]) == set(NAMES)
    new = everything_below(tmp_path) - before
    assert {path.relative_to(tmp_path).parts[0] for path in new} == {"run", "subset"}
    assert all(part.isascii() and len(part) < 60 for path in new for part in path.relative_to(tmp_path).parts)
    assert ladm("verify", tmp_path / "run").exit_code == 0


def everything_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.slow
def test_nothing_is_fetched_that_was_not_named(save_rows: Any, golden: Any, tmp_path: Path) -> None:
    """Scoring local folders opens no socket to anywhere, with the Hub allowed."""
    rows = save_rows(topical_rows(golden, [400]))
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): print('SOCKET', a, file=sys.stderr); raise OSError('no network in this test')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from ladm.cli.main import main; main(sys.argv[1:])\n"
    )
    command = ["score", rows, "--model", str(GOLDEN), "--span-tokens", "16", "--output", str(tmp_path / "run")]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", code, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "SOCKET" not in done.stderr
