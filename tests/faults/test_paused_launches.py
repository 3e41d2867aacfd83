"""Launches that are paused and continued, clocks that differ, and run folders that are moved, copied or set back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LadmError, LockedError
from ladm.runs.folder import Run
from ladm.runs.verify import verify
from ladm.scoring.engines.placement import Shard
from ladm.scoring.engines.shared_units import SharedUnits
from ladm.selection.formats.destination import LocalFolder
from ladm.storage.files import replacing
from ladm.storage.locks import locked
from support.crashes import complete, contents, identity
from support.fakes import fake_rows
from support.interruptions import Stopped, stop_at
from support.paths import TESTS


def _lock(folder: Path) -> None:
    with locked(folder):
        pass


def _inspect(folder: Path) -> None:
    # Imported here, because no other test of this file needs torch.
    from ladm.explain.inspect_run import _create

    _create(folder)


@pytest.fixture
def rows(save_rows: Any) -> Rows:
    return open_rows(save_rows(fake_rows(60)))


@pytest.mark.slow
def test_a_launch_paused_beyond_its_lease_and_continued(tmp_path: Path, save_rows: Any) -> None:
    """SIGSTOP while it scores; another launch takes its units over and finishes; SIGCONT changes nothing."""
    rows = open_rows(save_rows(fake_rows(3000)))
    complete(tmp_path / "whole", rows)
    run, reported = tmp_path / "run", tmp_path / "reported"
    reported.touch()

    def start(shard: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "support.crashes", str(run), rows.name, str(reported), "1", "never", shard]
        return subprocess.Popen(command, cwd=TESTS)

    paused = start("0/2")
    try:
        while len(reported.read_text().split()) < 20:
            time.sleep(0.002)
        os.kill(paused.pid, signal.SIGSTOP)
        assert paused.poll() is None
        assert start("1/2").wait() == 0
        whole = contents(tmp_path / "whole")
        assert contents(run) == whole
    finally:
        os.kill(paused.pid, signal.SIGCONT)
    assert paused.wait() == 0
    assert contents(run) == whole
    assert list(verify(Run.read(run), deep=False)) == []
    assert not [path.name for path in (run / "units").iterdir() if path.suffix != ".jsonl"]


@pytest.mark.parametrize("days", [-3000, 3000])
def test_a_claim_of_a_machine_with_another_clock_is_not_taken_over(tmp_path: Path, rows: Rows, days: int) -> None:
    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    first = SharedUnits(run, Shard(0, 2), lease_seconds=600).take()
    assert first is not None
    path = run.claim_path(first.unit, 0)
    there = time.time() + days * 86_400
    os.utime(path, (there, there))
    other = SharedUnits(run, Shard(1, 2), lease_seconds=600)
    taken = [other.take() for _ in run.units]
    units = [each.unit for each in taken if each is not None]
    assert len(units) == len(run.units) - 1
    assert first.unit not in units


@pytest.mark.parametrize("n", [20, 30, 45])
def test_a_run_that_is_renamed_copied_or_set_back_goes_on(tmp_path: Path, rows: Rows, n: int) -> None:
    complete(tmp_path / "whole", rows)
    whole = contents(tmp_path / "whole")
    with pytest.raises(Stopped), stop_at(n, after=True):
        complete(tmp_path / "run", rows)
    shutil.copytree(tmp_path / "run", tmp_path / "backup")
    (tmp_path / "run").rename(tmp_path / "renamed")
    complete(tmp_path / "renamed", rows)
    assert contents(tmp_path / "renamed") == whole
    # An older state over a newer one, file by file, as a careless restore does it.
    shutil.copytree(tmp_path / "backup", tmp_path / "renamed", dirs_exist_ok=True)
    complete(tmp_path / "renamed", rows)
    assert contents(tmp_path / "renamed") == whole
    assert list(verify(Run.read(tmp_path / "renamed"), deep=False)) == []
    complete(tmp_path / "backup", rows)
    assert contents(tmp_path / "backup") == whole


def test_rows_replaced_under_a_run_are_refused(tmp_path: Path, rows: Rows, save_rows: Any) -> None:
    with pytest.raises(Stopped), stop_at(30, after=True):
        complete(tmp_path / "run", rows)
    other = open_rows(save_rows([row | {"input_ids": [9, 9, 9]} for row in fake_rows(60)], name="other"))
    shutil.rmtree(rows.name)
    shutil.move(other.name, rows.name)
    with pytest.raises(LadmError, match="was started with something else \\(the rows or --limit\\)"):
        complete(tmp_path / "run", open_rows(rows.name))


@pytest.mark.parametrize("tidy", [_lock, _inspect])
def test_a_file_that_another_command_is_writing_stays(tmp_path: Path, tidy: Callable[[Path], None]) -> None:
    """Such as a report while a run is resumed, or a second `ladm inspect`; what a killed one has left goes."""
    abandoned, mine = tmp_path / f"report.html.{'0' * 32}.partial", tmp_path / "mine.partial"
    abandoned.touch()
    mine.touch()
    with replacing(tmp_path / "report.html") as partial:
        partial.write_text("whole")
        tidy(tmp_path)
    assert (tmp_path / "report.html").read_text() == "whole"
    assert not abandoned.exists()
    assert mine.exists()


def test_two_selections_into_one_place_do_not_mix(tmp_path: Path) -> None:
    place = tmp_path / "subset"

    def fill_while_another_is_faster(folder: Path) -> None:
        (folder / "slow").write_text("")
        LocalFolder(place).write(lambda other: (other / "fast").write_text("") and None)

    with pytest.raises(LadmError, match="subset exists already: another command wrote it meanwhile$"):
        LocalFolder(place).write(fill_while_another_is_faster)
    assert [path.name for path in place.iterdir()] == ["fast"]
    assert [path.name for path in tmp_path.iterdir()] == ["subset"]


def test_two_calibrations_do_not_write_one_contrast_set(tmp_path: Path) -> None:
    from ladm.calibration.contrast import ContrastRow
    from ladm.calibration.work_folder import save_contrast

    row = ContrastRow(kind="intact", half=0, document=0, packages=("p",), ids=np.arange(4))
    with locked(tmp_path), pytest.raises(LockedError, match=rf"^{tmp_path} is in use by process \d+ on "):
        save_contrast([row], tmp_path)
    save_contrast([row], tmp_path)
    assert len(open_rows(str(tmp_path / "contrast"))) == 1
