"""The short forms of the long tests: kills at random times, every crash point, a disk that forgets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ladm.corpus.rows.reading import open_rows
from ladm.errors import StorageError
from support.crashes import (
    complete,
    contents,
    every_crash_point,
    every_failure,
    kill_again_and_again,
    kill_launches,
    kill_workers,
    race_for_the_lock,
)
from support.fakes import fake_rows
from support.forgetful import ForgetfulDisk
from support.power_loss import PowerLoss, power_loss_on, run_machine


@pytest.mark.parametrize(
    ("workers", "kills"), [(1, 2), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, 4), (2, 2)))]
)
def test_kills_inside_a_run(tmp_path: Path, save_rows: Any, workers: int, kills: int) -> None:
    rows = open_rows(save_rows(fake_rows(600)))
    found = kill_again_and_again(tmp_path, rows, kills=kills, seed=1, workers=workers)
    assert (found.lost, found.repeated, found.differing) == (0, 0, 0)
    assert found.kills == kills
    assert found.acknowledged > 0


@pytest.mark.slow
def test_launches_that_share_a_run_killed_at_random(tmp_path: Path, save_rows: Any) -> None:
    rows = open_rows(save_rows(fake_rows(3000)))
    found = kill_launches(tmp_path, rows, kills=4, launches=2, seed=2)
    assert (found.lost, found.repeated, found.differing) == (0, 0, 0)
    assert found.kills == 4
    assert found.acknowledged > 2000 * found.rounds


@pytest.mark.parametrize("moment", ["before", pytest.param("after", marks=pytest.mark.slow)])
def test_every_crash_point(tmp_path: Path, save_rows: Any, moment: str) -> None:
    assert every_crash_point(tmp_path, open_rows(save_rows(fake_rows(20))), moments=(moment,)) > 30


@pytest.mark.slow
def test_every_failure_of_the_disk(tmp_path: Path, save_rows: Any) -> None:
    assert every_failure(tmp_path, open_rows(save_rows(fake_rows(20)))) > 60


@pytest.mark.slow
def test_workers_killed_at_random(tmp_path: Path, save_rows: Any) -> None:
    rows = open_rows(save_rows(fake_rows(900)))
    assert kill_workers(tmp_path, rows, kills=3, workers=2, seed=3) == 3


def test_a_race_for_the_lock(tmp_path: Path) -> None:
    assert race_for_the_lock(tmp_path, processes=3, races=2) == 2


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> type[PowerLoss]:
    return power_loss_on(tmp_path_factory.mktemp("rows"))


@pytest.mark.slow
def test_a_disk_that_forgets(machine: type[PowerLoss]) -> None:
    run_machine(machine, examples=25)


def test_rows_that_were_written_and_never_synced_are_not_sealed_as_they_are(machine: type[PowerLoss]) -> None:
    """Found by 2,000 examples: all rows of a unit written, a stop before the last sync, a seal, lost power."""
    state = machine()
    state.begin()
    for n in range(22, 27):
        for later in range(18, 23):
            state.stop(n=n, after=False, batch=2)
            state.stop_and_lose_power(n=later, after=False, batch=1, seed=0)
            state.what_was_acknowledged_is_there_once()
            complete(state.run, state.rows)
            assert contents(state.run) == state.whole
            shutil.rmtree(state.run)
            state.run.mkdir()
            state.disk.forget()
            state.disk = ForgetfulDisk(state.run)
            state.acknowledged.clear()
    state.teardown()


def test_the_disk_forgets_what_was_not_synced(tmp_path: Path) -> None:
    """The instrument itself: with every draw at 0 only synced bytes and names stay."""
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = ForgetfulDisk(folder)
    with disk.watching():
        import os

        from ladm.storage.files import Appender, sync_folder

        appender = Appender(folder / "rows", size=0)
        (folder / "never").write_text("gone")
        appender.append(b"safe\n")
        os.write(appender._descriptor, b"torn")
        appender.close()
        os.rename(folder / "rows", folder / "moved")
        disk.lose_power(lambda _: 0)
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"rows": b"safe\n"}
        os.rename(folder / "rows", folder / "moved")
        sync_folder(folder)
        disk.lose_power(lambda _: 0)
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"moved": b"safe\n"}
    disk.forget()


def test_a_store_that_does_not_sync_is_caught(machine: type[PowerLoss], monkeypatch: pytest.MonkeyPatch) -> None:
    """Had `append` no fsync, the machine would find it."""
    from ladm.storage.files import Appender

    def write_only(self: Appender, block: bytes) -> None:
        import os

        os.write(self._descriptor, block)

    monkeypatch.setattr(Appender, "_write", write_only)
    with pytest.raises((AssertionError, StorageError)):
        run_machine(machine, examples=40, shrink=False)
