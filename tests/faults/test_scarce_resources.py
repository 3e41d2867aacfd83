"""Few descriptors, little memory, no home, no temporary folder, closed streams: each works, or is one clear line."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ladm.corpus.rows.reading import open_rows
from ladm.method.grid import Method
from ladm.method.reduction import Reduction
from ladm.storage.json_object import json_with_checksum
from support.crashes import complete
from support.fakes import fake_rows

PROGRAM = [sys.executable, "-m", "ladm"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of fake scores, which no test changes."""
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("finished")
    Dataset.from_list(fake_rows(500)).save_to_disk(str(folder / "rows"))
    made = complete(folder / "run", open_rows(str(folder / "rows")))
    # What the manifest of a subset repeats, which fake scores do not need.
    rest: dict[str, Any] = {"layers": [0, 1, 2], "model": {"type": "fake", "sha256": {}}, "dtype": "float32"}
    rest |= {"settings": Method().as_dict() | {"reduce": "mean", "record": "layers"}}
    rest |= {"score": Reduction(layers=(0, 1, 2)).identity()}
    (made.folder / "run.json").write_bytes(json_with_checksum(made.identity.content | rest))
    return made.folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def ladm(*words: Any, limit: Callable[[], None] | None = None, python: tuple[str, ...] = (), **changed: Any) -> Any:
    environment = {name: value for name, value in (os.environ | changed.pop("env", {})).items() if value is not None}
    # The allocator reserves 64 MiB of addresses for every thread otherwise, used or not.
    environment["MALLOC_ARENA_MAX"] = "2"
    command = [PROGRAM[0], *python, *PROGRAM[1:], *map(str, words)]
    options = {"capture_output": True, "text": True} | changed
    return subprocess.run(command, preexec_fn=limit, env=environment, check=False, **options)


def select(run: Path, output: Path) -> tuple[Any, ...]:
    return ("select", run, "--domain-key", "meta.d", "--tokens", "600", "--format", "parquet", "--output", output)


def little_of_everything() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    # Of addresses, which libraries reserve freely: far below what they really use.
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


def test_few_descriptors_and_little_memory(run: Path, tmp_path: Path) -> None:
    done = ladm(*select(run, tmp_path / "subset"), limit=little_of_everything)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr


@pytest.mark.slow
def test_results_are_written_with_few_descriptors_and_little_memory(run: Path) -> None:
    (run / "sorted_by_score.jsonl").unlink()
    # The store with its sort, without torch.
    program = (
        "import sys; from pathlib import Path; from ladm.runs.finish import finish; from ladm.runs.folder import Run; "
        f"finish(Run.read(Path({str(run)!r}))); assert 'torch' not in sys.modules"
    )
    again = subprocess.run(
        [sys.executable, "-c", program], preexec_fn=little_of_everything, capture_output=True, text=True,
        check=False, env=os.environ | {"MALLOC_ARENA_MAX": "2"},
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert (run / "sorted_by_score.jsonl").exists()


def test_no_home_and_no_temporary_folder(run: Path, tmp_path: Path) -> None:
    # A file: below a folder without rights the superuser could write.
    home = tmp_path / "home"
    home.write_text("")
    nowhere = str(tmp_path / "nowhere")
    environment = {"HOME": str(home), "TMPDIR": nowhere, "HF_HOME": None, "XDG_CACHE_HOME": None}
    done = ladm(*select(run, tmp_path / "subset"), env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_home_that_does_not_exist(run: Path, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    gone = ladm("status", run, env={"HOME": nowhere, "TMPDIR": nowhere})
    assert (gone.returncode, gone.stderr) == (0, "")


@pytest.mark.slow
def test_without_assertions(run: Path, tmp_path: Path) -> None:
    """`python -O` removes every assert: none of them may be part of the work."""
    for name, python in (("plain", ()), ("optimised", ("-O",))):
        assert ladm(*select(run, tmp_path / name), python=python).returncode == 0
    (plain,), (optimised,) = (sorted((tmp_path / name).rglob("*.parquet")) for name in ("plain", "optimised"))
    assert plain.read_bytes() == optimised.read_bytes()


@pytest.mark.parametrize(
    "closed", [(1,), *(pytest.param(closed, marks=pytest.mark.slow) for closed in ((0,), (2,), (0, 1, 2)))]
)
def test_closed_streams(run: Path, closed: tuple[int, ...]) -> None:
    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    done = ladm("status", run, limit=close)
    assert "Traceback" not in done.stderr
    expected = (74, "ladm: cannot write to standard output: it is closed\n") if 1 in closed else (0, "")
    assert (done.returncode, done.stderr) == (expected if 2 not in closed else (expected[0], ""))


def test_a_full_pipe_and_a_full_disk_behind_standard_output(run: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = ladm("status", run, "--json", capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, "")
    if not os.path.exists("/dev/full"):
        return
    # With a buffer, as Python has it unless the user's environment says otherwise.
    buffered = {"PYTHONUNBUFFERED": None}
    for words, what in (
        (("status", run), "write to standard output"),
        (("--version",), "write"),
        (("top", "-h"), "write"),
    ):
        with open("/dev/full", "w") as full:
            done = ladm(*words, capture_output=False, stdout=full, stderr=subprocess.PIPE, env=buffered)
        assert (done.returncode, done.stderr) == (74, f"ladm: cannot {what}: No space left on device\n")
