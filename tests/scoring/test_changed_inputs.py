"""A model or rows that are changed while they are scored: nothing of the changed ones is ever stored."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ladm.corpus.rows.fingerprint import rows_fingerprint
from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmError, StorageError
from ladm.modeling.model_files import ModelFingerprint, model_identity
from ladm.runs.finish import finish
from ladm.runs.folder import Run
from ladm.runs.layout import RESULT_FILES
from ladm.scoring.engines import score_unit as module
from ladm.scoring.engines.assignments import OwnUnits
from ladm.scoring.engines.events import InputRecheckStarted
from ladm.scoring.engines.input_guard import InputGuard
from ladm.scoring.engines.local import run_units
from ladm.scoring.engines.tracker import TrackedWorker, WorkerTracker
from ladm.storage.file_states import file_states
from support.crashes import complete, contents, identity, job_of
from support.fakes import fake_rows
from support.models import SMALL
from support.paths import GOLDEN
from support.rows import topical_rows

ROWS = 6


def overwrite(path: Path, content: bytes) -> None:
    """Write into the file itself, as `cp` does."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


@contextmanager
def at_batch(number: int, action: Callable[[], object]) -> Iterator[None]:
    """Do something just before a batch is scored; batches count from 1."""
    real, started = module.start_batch, []

    def start_batch(*words: Any, **named: Any) -> Any:
        started.append(None)
        if len(started) == number:
            action()
        return real(*words, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "start_batch", start_batch)
        yield


def results(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in RESULT_FILES]


def stored_rows(run: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in (run / "units").iterdir())


CHANGED = ("model.safetensors", "config.json", "rows")


@pytest.fixture(params=CHANGED)
def changed(request: Any, save_rows: Any, golden: Any, tmp_path: Path) -> Any:
    """The command, the file that is changed, and the bytes to put there; none has another size."""
    rows, model = Path(save_rows(topical_rows(golden, [400] * ROWS))), Path(shutil.copytree(GOLDEN, tmp_path / "model"))
    command = ("score", rows, *SMALL, "--model", model)
    if request.param == "rows":
        (path,) = rows.rglob("*.arrow")
        other = Path(save_rows(topical_rows(golden, [400] * (ROWS + 1))[1:], name="other"))
        return command, path, next(other.rglob("*.arrow")).read_bytes()
    path = model / request.param
    content = path.read_bytes()
    if request.param == "config.json":
        return command, path, content.replace(b"1e-06", b"1e-05")
    return command, path, content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("changed", "stopped"),
    [
        *((name, False) for name in CHANGED),
        *(pytest.param(name, True, marks=[pytest.mark.slow] if name != "rows" else []) for name in CHANGED),
    ],
    indirect=["changed"],
)
def test_a_change_ends_the_launch_and_a_run_of_the_first_content_goes_on(
    ladm: Any, changed: Any, tmp_path: Path, stopped: bool
) -> None:
    """Also where Ctrl-C would end it a batch later, before it finishes."""
    command, path, other = changed
    first = path.read_bytes()
    assert other != first
    assert ladm(*command, "-o", tmp_path / "whole").exit_code == 0
    run = (*command, "-o", tmp_path / "run")
    stop = partial(os.kill, os.getpid(), signal.SIGINT)
    with at_batch(4, lambda: overwrite(path, other)), at_batch(5, stop if stopped else lambda: None):
        result = ladm(*run)
    what = f"the model {path.parent}" if path.suffix != ".arrow" else f"the rows {command[1]}"
    assert (result.exit_code, stored_rows(tmp_path / "run")) == (1, 3)
    assert re.fullmatch(
        f"ladm: {re.escape(what)} changed while .*; no score of the changed (model|rows) was stored: restore "
        "(it|them) and run the same command again, or give another --output for the changed ones?",
        result.stderr.splitlines()[-1],
    )  # fmt: skip
    # With the other content the run is refused, as it is between two launches.
    refused = ladm(*run)
    assert refused.exit_code == 1
    assert "was started with something else" in refused.stderr
    overwrite(path, first)
    assert ladm(*run).exit_code == 0
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_the_same_bytes_again_are_read_once_and_no_change(ladm: Any, changed: Any, tmp_path: Path) -> None:
    command, path, _ = changed
    with at_batch(2, lambda: overwrite(path, path.read_bytes())):
        result = ladm(*command, "-o", tmp_path / "run")
    assert result.exit_code == 0
    lines = [line for line in result.stderr.splitlines() if line.startswith("checking")]
    assert len(lines) == 1
    assert lines[0].endswith(f"by checksum once more: {path.name} was touched while it was in use")


def test_a_signal_without_a_model_does_not_mind_its_change(
    ladm: Any, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows, model = save_rows(topical_rows(golden, [400] * ROWS)), Path(shutil.copytree(GOLDEN, tmp_path / "model"))
    command = ("score", rows, *SMALL, "--model", model, "-o", tmp_path / "run", "--signals")
    assert ladm(*command, "cds").exit_code == 0
    weights = model / "model.safetensors"
    with at_batch(2, lambda: overwrite(weights, weights.read_bytes()[:-1] + b"!")):
        result = ladm(*command, "cds,text")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "run" / "signals" / "text" / "scores.parquet").exists()


@pytest.mark.parametrize("what", ["model", "data"])
def test_what_became_of_the_files_before_a_worker_started(tmp_path: Path, save_rows: Any, what: str) -> None:
    rows = open_rows(save_rows(fake_rows(60)))
    kept = rows_fingerprint(rows, name=rows.name)
    if what == "model":
        folder = shutil.copytree(GOLDEN, tmp_path / "model")
        files = file_states([folder / "config.json", folder / "model.safetensors"])
        kept = ModelFingerprint(name="m", sha256=model_identity(str(folder)), files=files)
    for path in kept.files:
        os.utime(path)
    lines: list[str] = []
    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    run_units(job_of(run, rows, OwnUnits(run), warn=lines.append, **{what: kept}))
    finish(run)
    assert len(lines) == 1
    assert contents(run.folder) == contents(complete(tmp_path / "whole", rows).folder)

    if what == "model":
        overwrite(folder / "config.json", b'{"half')
    else:
        shutil.rmtree(rows.name)
        save_rows([row | {"meta": {"other": 1}} for row in fake_rows(60)])
    refused = Run.create_or_resume(tmp_path / "refused", identity(rows))
    with pytest.raises(LadmError, match=f"{kept.label} changed while"):
        run_units(job_of(refused, rows, OwnUnits(refused), **{what: kept}))
    assert stored_rows(refused.folder) == 0


def test_a_worker_process_ends_its_launch_at_a_change(tmp_path: Path, save_rows: Any) -> None:
    rows = open_rows(save_rows(fake_rows(60)))
    config = Path(shutil.copytree(GOLDEN, tmp_path / "model")) / "config.json"
    model = ModelFingerprint(name="m", sha256=model_identity(str(config.parent)), files=file_states([config]))
    os.utime(config)
    lines: list[str] = []
    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    job = job_of(
        run, rows, OwnUnits(run), model=model, warn=lines.append, report=lambda _: overwrite(config, b'{"half')
    )
    with pytest.raises(LadmError, match=r"the model m changed while it was used \(config.json\)"):
        run_units(replace(job, supervised=True))
    assert len(lines) <= 2
    assert lines[0] == "checking  the model m by checksum once more: config.json was touched while it was in use"
    assert 5 <= stored_rows(run.folder) < 60


def test_one_line_for_all_workers(tmp_path: Path, save_rows: Any) -> None:
    rows = open_rows(save_rows(fake_rows(6)))
    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    lines: list[str] = []
    tracker = WorkerTracker(job_of(run, rows, OwnUnits(run), warn=lines.append))
    for place in range(2):
        tracker.handle(TrackedWorker(place=place, last_heard=0.0), InputRecheckStarted("the line"))
    assert lines == ["the line"]


def test_another_machine_has_states_of_its_own(tmp_path: Path, save_rows: Any) -> None:
    """There the model's digests are compared after the guard is made, so that nothing has to be read again."""
    rows = open_rows(save_rows(fake_rows(60)))
    folder = shutil.copytree(GOLDEN, tmp_path / "model")
    elsewhere = {str(folder / "config.json"): (1, 2, 3, 4)}
    model = ModelFingerprint(name="m", sha256=model_identity(str(folder)), files=elsewhere)
    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    for there, events in ((True, 0), (False, 1)):
        config = job_of(run, rows, OwnUnits(run), model=model, elsewhere=there).worker
        assert len(list(config.input_guard(rows).check())) == events
    guard = job_of(run, rows, OwnUnits(run), model=model, elsewhere=True).worker.input_guard(rows)
    overwrite(folder / "config.json", b"{}")
    with pytest.raises(LadmError, match=r"the model m changed while it was used \(config.json\)"):
        list(guard.check())


def test_a_file_that_cannot_be_read_is_no_changed_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    model = ModelFingerprint(name="m", sha256={path.name: ""}, files=file_states([path]))
    path.unlink()
    # Removed: whoever has opened it does not notice.
    assert list(InputGuard(model).check()) == []
    path.mkdir()
    with pytest.raises(StorageError, match=f"cannot read {re.escape(str(path))}: Is a directory"):
        list(InputGuard(model).check())


def test_a_file_that_another_machine_has_removed_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(_path: object) -> NoReturn:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("ladm.storage.file_states._stat", stale)
    assert file_states([tmp_path / "model.safetensors"]) == {}
