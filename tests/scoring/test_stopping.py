"""`ladm score` killed, interrupted, at a terminal, and in odd places."""

from __future__ import annotations

import contextlib
import os
import pickle
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from support.models import SMALL
from support.paths import GOLDEN, TESTS
from support.rows import topical_rows
from support.runs import results

Run = Callable[..., Result]


PAUSED = str(TESTS / "support" / "paused_ladm.py")


def start(*arguments: Any, pause_after: int) -> subprocess.Popen[str]:
    """Start the command, which scores that many rows and then waits for a signal."""
    return subprocess.Popen(
        [sys.executable, PAUSED, *map(str, arguments)],
        env=os.environ | {"LADM_TEST_PAUSE_AFTER": str(pause_after)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def lines_safe(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (folder / "units").glob("*")) if folder.exists() else 0


def interrupt(process: subprocess.Popen[str], folder: Path, *, at_rows: int, number: int) -> str:
    """Send a signal to the whole process group once these rows are safe; the run is paused there."""
    while lines_safe(folder) < at_rows:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    os.killpg(process.pid, number)
    return process.communicate()[1]


@pytest.fixture
def some_rows(save_rows: Any, golden: dict[str, Any]) -> str:
    return str(save_rows(topical_rows(golden, [512] * 24)))


@pytest.mark.slow
def test_stopped_by_signals_the_bytes_are_the_same(ladm: Run, some_rows: str, tmp_path: Path) -> None:
    """What Ctrl-C does is tested at a terminal as well, and kills of a run of fake scores in test_torture.py."""
    folder = tmp_path / "run"
    command = ("score", some_rows, *SMALL, "--output", folder)
    for at_rows, number, code in ((3, signal.SIGKILL, -9), (8, signal.SIGINT, 130), (18, signal.SIGTERM, 143)):
        process = start(*command, pause_after=at_rows - lines_safe(folder))
        said = interrupt(process, folder, at_rows=at_rows, number=number)
        assert process.returncode == code, said
        assert "Traceback" not in said
        # A row that was seen but not yet synced when the signal came may be dropped again.
        assert at_rows - 1 <= lines_safe(folder) <= at_rows
        if number != signal.SIGKILL:
            assert said.splitlines()[-1] == (
                f"ladm: stopped by {signal.Signals(number).name}; finished rows are safe in {folder}; run the same "
                "command again to continue"
            )
    assert ladm(*command).exit_code == 0
    assert ladm(*command[:-1], tmp_path / "straight").exit_code == 0
    assert results(folder) == results(tmp_path / "straight")


@pytest.mark.slow
def test_a_job_in_the_background_of_a_script_ignores_ctrl_c(some_rows: str, tmp_path: Path) -> None:
    """A shell without job control starts `command &` with SIGINT ignored, and sends Ctrl-C to it all the same."""
    folder = tmp_path / "run"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start("score", some_rows, *SMALL, "--output", folder, pause_after=2)
    finally:
        signal.signal(signal.SIGINT, before)
    while lines_safe(folder) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    # It is heard only if SIGINT, which came first, was not.
    os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 143, said
    assert "stopped by SIGTERM" in said


def test_ctrl_c_at_a_terminal(some_rows: str, tmp_path: Path) -> None:
    """Typed at a pseudo-terminal, as a person does, it reaches every process of the run; its worker and all.

    The last line says how to go on. The rows are scored by a fake: with the model see the test of the last line below.
    """
    from ladm.modeling.facts import model_facts

    (tmp_path / "facts").write_bytes(pickle.dumps(model_facts(str(GOLDEN))))
    command = [sys.executable, PAUSED, "score", some_rows, *SMALL, "--output", str(tmp_path / "run")]
    pid, terminal = pty.fork()
    if pid == 0:
        # The worker scores one row of its unit and waits.
        environment = os.environ | {"LADM_TEST_PAUSE_AFTER": "1", "LADM_TEST_FACTS": str(tmp_path / "facts")}
        os.execve(sys.executable, [*map(str, command), "--workers", "1"], environment)
    said = b""
    typed = False
    with contextlib.suppress(OSError):  # what Linux answers once the other side is gone
        while True:
            if not typed and lines_safe(tmp_path / "run") >= 1:
                os.write(terminal, b"\x03")
                typed = True
            if select.select([terminal], [], [], 0.005)[0]:
                block = os.read(terminal, 4096)
                if not block:
                    break
                said += block
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert typed, said
    assert os.waitstatus_to_exitcode(status) == 130, said
    assert said.splitlines()[-1].startswith(b"ladm: stopped by SIGINT; finished rows are safe in "), said
    assert b"Traceback" not in said
    assert lines_safe(tmp_path / "run") == 1


@pytest.mark.slow
def test_the_last_line_of_a_stopped_run_says_how_to_go_on(some_rows: str, tmp_path: Path) -> None:
    """Nothing comes behind it, such as Python's warning of semaphores that the killed workers had."""
    folder = tmp_path / "run"
    process = start("score", some_rows, *SMALL, "--output", folder, "--workers", "2", pause_after=1)
    # Until every process has closed standard error, that of Python's own for semaphores too.
    said = interrupt(process, folder, at_rows=2, number=signal.SIGTERM)
    assert process.returncode == 143, said
    assert said.splitlines()[-1].startswith("ladm: stopped by SIGTERM; finished rows are safe in "), said


def test_a_folder_in_use_is_named_and_left_alone(ladm: Run, short_rows: str, tmp_path: Path) -> None:
    from ladm.storage.locks import locked

    folder = tmp_path / "run"
    with locked(folder):
        result = ladm("score", short_rows, *SMALL, "--output", folder)
        assert result.exit_code == 75
        assert result.stderr.splitlines()[-1].startswith(f"ladm: {folder} is in use by process {os.getpid()} on ")
        assert not (folder / "run.json").exists()
    assert ladm("score", short_rows, *SMALL, "--output", folder).exit_code == 0


@pytest.mark.slow
def test_paths_with_anything_in_them_and_a_locale_without_letters(short_rows: str, tmp_path: Path) -> None:
    folder = tmp_path / "ein Lauf über alles 長い"
    shutil.copytree(short_rows, tmp_path / "rows with blanks ü")
    command = [sys.executable, "-m", "ladm", "score", str(tmp_path / "rows with blanks ü"), *map(str, SMALL)]
    environment = os.environ | {"LC_ALL": "C", "LANG": "C"}
    done = subprocess.run([*command, "--output", str(folder)], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"7 rows scored" in done.stdout
    assert (folder / "sorted_by_score.jsonl").exists()


def test_a_folder_that_cannot_be_written_to_is_reported_before_the_model_loads(ladm: Run, short_rows: str) -> None:
    result = ladm("score", short_rows, *SMALL, "--output", "/proc/ladm-run")
    assert result.exit_code == 74
    assert result.stderr.splitlines()[-1].startswith("ladm: cannot ")
    assert "/proc/ladm-run" in result.stderr
    assert "scoring" not in result.stderr
