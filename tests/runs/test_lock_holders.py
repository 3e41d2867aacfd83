"""Who works in a folder: the names of launches that share it, of one alone, and of those that were killed."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ladm.corpus.rows.reading import open_rows
from ladm.errors import LockedError
from ladm.runs.folder import Run, require_own_or_empty
from ladm.runs.reset import delete_run
from ladm.runs.status import status
from ladm.storage.locks import locked
from support import fakes
from support.crashes import complete, identity

HERE = socket.gethostname()
ABANDONED = ".holder-0123456789abcdef0123456789abcdef"
LAUNCH = """
import sys, time
from pathlib import Path
from ladm.storage.locks import locked
with locked(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("at work", flush=True)
    time.sleep(100_000)
"""


@pytest.fixture
def run(tmp_path: Path, save_rows: Any) -> Run:
    return Run.create_or_resume(tmp_path / "run", identity(open_rows(save_rows(fakes.fake_rows(40)))))


def launch(folder: Path, kind: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", LAUNCH, str(folder), kind], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"at work\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob(".holder*")]


def test_launches_that_share_a_run_leave_no_name(run: Run) -> None:
    with locked(run.folder, shared=True):
        with locked(run.folder, shared=True):
            assert len(names(run.folder)) == 2
        found = status(run)
        assert (found.running, found.who) == (True, f"process {os.getpid()} on {HERE}")
    assert names(run.folder) == []
    found = status(run)
    assert (found.running, found.who) == (False, None)


@pytest.mark.parametrize("kind", ["shared", "alone"])
def test_a_killed_launch_is_not_named_and_its_name_goes(run: Run, kind: str) -> None:
    """However many are killed, one after the other."""
    for _ in range(2):
        kill(launch(run.folder, kind))
        assert len(names(run.folder)) == 1
        found = status(run)
        assert (found.running, found.who) == (False, None)
    alive = launch(run.folder, "shared")
    try:
        assert len(names(run.folder)) == 1
        with pytest.raises(LockedError, match=f"is in use by process {alive.pid} on {re.escape(HERE)}$"):
            locked(run.folder).__enter__()
        assert status(run).who == f"process {alive.pid} on {HERE}"
    finally:
        kill(alive)
    with locked(run.folder):
        assert names(run.folder) == [".holder"]
    assert names(run.folder) == []


def test_the_living_is_named_beside_the_dead(run: Run) -> None:
    dead, alive = launch(run.folder, "shared"), launch(run.folder, "shared")
    try:
        kill(dead)
        assert len(names(run.folder)) == 2
        with pytest.raises(LockedError, match=f"is in use by process {alive.pid} on"):
            locked(run.folder).__enter__()
    finally:
        kill(alive)


@pytest.mark.parametrize("name", [".holder", ABANDONED])
def test_one_on_another_machine_may_be_at_work(run: Run, name: str) -> None:
    (run.folder / name).write_text("process 12 on node7\n")
    found = status(run)
    assert (found.running, found.who) == (None, "process 12 on node7")


def test_the_name_of_another_machine_stays_until_it_is_old(run: Run) -> None:
    """Where locks are not seen by other machines, it may be that of a launch at work."""
    path = run.folder / ABANDONED
    path.write_text("process 12 on node7\n")
    (run.folder / f"{ABANDONED[:-1]}{'0' if ABANDONED[-1] != '0' else '1'}").write_bytes(b"\xff")
    with locked(run.folder, shared=True):
        assert path.exists()
    old = time.time() - 8 * 24 * 3600
    os.utime(path, (old, old))
    with locked(run.folder, shared=True):
        assert not path.exists()


def test_a_name_that_cannot_be_locked_is_not_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system without locks, where it would look like that of a killed launch."""

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(run.folder, shared=True):
        assert names(run.folder) == []


def test_what_a_killed_launch_leaves_is_the_runs_own(tmp_path: Path, save_rows: Any) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ABANDONED).touch()
    require_own_or_empty(tmp_path / "new")
    complete(tmp_path / "new", open_rows(save_rows(fakes.fake_rows(40), "others")))
    (tmp_path / "new" / ABANDONED).touch()
    delete_run(tmp_path / "new")
    assert not (tmp_path / "new" / "run.json").exists()
