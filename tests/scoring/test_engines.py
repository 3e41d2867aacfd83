"""Workers that die or hang, rows that kill workers, devices that are bad: the bytes are the same whatever happens."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest

from ladm.corpus.rows.fingerprint import sample_digest
from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LadmError, LockedError
from ladm.runs.layout import ERRORS_FILE, SORTED_FILE
from ladm.scoring.engines import local, processes
from ladm.scoring.engines.events import RowsStored
from ladm.scoring.engines.failures import FailureTracker
from ladm.scoring.engines.job import WorkerConfig, WorkerProcess
from ladm.scoring.engines.tracker import WorkerTracker
from ladm.storage import locks
from ladm.storage.locks import locked
from support import fakes
from support.crashes import contents
from support.engines import complete
from support.fakes import fake_rows
from support.paths import GOLDEN, TESTS


def errors_of(folder: Path) -> dict[int, tuple[str, str]]:
    lines = [json.loads(line) for line in (folder / ERRORS_FILE).read_text().splitlines()]
    return {line["index"]: (line["error_type"], line["message"]) for line in lines}


def scores_of(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / SORTED_FILE).read_text().splitlines()]
    return {line["index"]: line["score"] for line in lines}


@pytest.fixture
def rows(save_rows: Any) -> Rows:
    return open_rows(save_rows(fake_rows(100)))


@pytest.fixture
def whole(tmp_path: Path, rows: Rows) -> dict[str, bytes]:
    complete(tmp_path / "whole", rows)
    return contents(tmp_path / "whole")


@pytest.mark.parametrize("deadly", [{30}, pytest.param({30, 31}, marks=pytest.mark.slow)])
def test_a_row_that_kills_workers_is_found_and_recorded(tmp_path: Path, save_rows: Any, deadly: set[int]) -> None:
    data = fake_rows(60)
    for position in deadly:
        data[position]["input_ids"] = [70, 1, position]
    rows = open_rows(save_rows(data))
    complete(tmp_path / "run", rows, fakes.make_deadly, devices=2)
    errors = errors_of(tmp_path / "run")
    assert set(errors) == deadly
    for kind, message in errors.values():
        assert kind == "worker_lost"
        assert message.startswith("the worker on fake:")
        assert message.endswith("died (exit code 9) each time it scored this row")
    complete(tmp_path / "well", rows)
    ill, well = (scores_of(tmp_path / name) for name in ("run", "well"))
    assert all(ill[k] == well[k] for k in ill)
    assert len(ill) == 60 - len(deadly)


@pytest.fixture
def hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the worker that hangs; it alone, and at once, counts as silent for too long.

    How long that is, test_score_unit.py tests with a clock of its own: on a busy machine a worker may
    take longer to start than any limit that a test could wait for.
    """
    path = tmp_path / "hung"
    monkeypatch.setenv("LADM_TEST_HANG_ONCE", str(path))

    def hung_for(_: WorkerTracker, worker: Any) -> float | None:
        return 8.0 if path.exists() and path.read_text() == str(worker.process.pid) else None

    monkeypatch.setattr(WorkerTracker, "hung_for", hung_for)
    return path


@pytest.mark.parametrize(
    "make_scorer", [fakes.make_hanging_once, pytest.param(fakes.make_hanging_later, marks=pytest.mark.slow)]
)
def test_a_worker_that_hangs_once_is_replaced(
    tmp_path: Path, rows: Rows, whole: Any, make_scorer: Any, hang: Path
) -> None:
    complete(tmp_path / "run", rows, make_scorer, supervised=True)
    assert hang.exists()
    assert contents(tmp_path / "run") == whole


@pytest.mark.slow
@pytest.mark.parametrize("make_scorer", [fakes.make_bad_on_one, fakes.make_dying_on_one])
def test_a_bad_device_is_given_up_and_no_row_is_lost_to_it(
    tmp_path: Path, rows: Rows, whole: Any, make_scorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FailureTracker, "MAX_OF_ONE_PLACE", 2)
    monkeypatch.setenv("LADM_TEST_WAIT_FOR", str(tmp_path / "given up"))
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        (tmp_path / "given up").touch()

    complete(tmp_path / "run", rows, make_scorer, devices=2, warn=warn)
    assert contents(tmp_path / "run") == whole
    assert [line.split(" is no longer used")[0] for line in warnings] == ["warning   fake:1"]


@pytest.mark.slow
def test_workers_that_die_while_they_start_end_the_run(tmp_path: Path, rows: Rows) -> None:
    with pytest.raises(LadmError, match=r"^the worker on fake:\d died \(exit code 3\) while it started; finished rows"):
        complete(tmp_path / "run", rows, fakes.make_dying, devices=2)


@pytest.mark.usefixtures("hang")
def test_a_worker_that_cannot_be_killed_ends_the_run(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a call of a driver that does not return: SIGKILL is sent and nothing happens."""
    for module in (local, processes):
        monkeypatch.setattr(module, "END_SECONDS", 0.5)
    monkeypatch.setattr(SpawnProcess, "kill", lambda _: None)
    try:
        with pytest.raises(LadmError, match=r"^the worker on fake:\d hung for 8 s and does not end even when killed"):
            complete(tmp_path / "run", rows, fakes.make_hanging_later, supervised=True)
    finally:
        for child in children(os.getpid()):
            if "spawn_main" in command_of(child):
                os.kill(child, signal.SIGKILL)


def test_a_worker_that_sees_other_rows_ends_the_run(tmp_path: Path, rows: Rows, save_rows: Any) -> None:
    other = open_rows(save_rows(fake_rows(100)[::-1], "other"))
    with pytest.raises(LadmError, match=r"has other rows on .* than the run was started with$"):
        complete(tmp_path / "run", rows, supervised=True, rows_sample=sample_digest(other))
    complete(tmp_path / "run", rows, supervised=True, rows_sample=sample_digest(rows))


def refuse() -> None:
    raise LadmError("no such device")


def test_a_process_that_was_started_early_answers_and_becomes_the_first_worker(
    tmp_path: Path, rows: Rows, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It imports libraries that the fake scorer does not need: these are as good, and load at once.
    (tmp_path / "libraries").mkdir()
    for name in ("torch", "transformers"):
        (tmp_path / "libraries" / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "libraries")
    with processes.early_worker(device="cpu", threads=1) as early:
        assert early is not None
        there = early.call(os.getpid)
        assert there != os.getpid()
        with pytest.raises(LadmError, match="^no such device$"):
            early.call(refuse)
        taken: list[int | None] = []

        def take(config: WorkerConfig, device: str) -> WorkerProcess | None:
            worker = early.take(config, device)
            taken.append(worker and worker[0].pid)
            return worker

        complete(tmp_path / "run", rows, devices=2, take_early=take)
        # Its pipe carries the events of a worker now, so that questions are answered here.
        assert early.call(os.getpid) == os.getpid()
    assert taken == [there, None]
    assert contents(tmp_path / "run") == whole


@pytest.mark.slow
def test_an_early_process_that_is_gone_is_replaced(tmp_path: Path, rows: Rows, whole: Any) -> None:
    with processes.early_worker(device="cpu", threads=1) as early:
        assert early is not None
        os.kill(early.call(os.getpid), signal.SIGKILL)
        assert early.call(os.getpid) == os.getpid()
        complete(tmp_path / "run", rows, devices=2, take_early=early.take)
    assert contents(tmp_path / "run") == whole


def fail() -> None:
    raise RuntimeError("of a library")


@pytest.mark.slow
def test_an_error_of_a_library_in_an_early_process_is_raised_here_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with processes.early_worker(device="cpu", threads=1) as early:
        assert early is not None
        with pytest.raises(RuntimeError, match="^of a library$"):
            early.call(fail)
    assert "Traceback" not in capfd.readouterr().err


def test_a_library_that_does_not_load_in_an_early_process_leaves_the_report_to_the_caller(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text('raise ImportError("libcudart.so.12: cannot open shared object file")')
    monkeypatch.syspath_prepend(tmp_path)
    with processes.early_worker(device="cpu", threads=1) as early:
        assert early is not None
        assert early.call(os.getpid) == os.getpid()
    assert "Traceback" not in capfd.readouterr().err


def test_a_process_that_the_system_does_not_start_is_reported(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under a limit on the number of processes; without a file in it, the error would be taken for one of output."""

    def refused(_process: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", refused)
    with pytest.raises(LadmError) as caught:
        complete(tmp_path / "run", rows, devices=2)
    assert str(caught.value) == (
        "the system does not start a worker process: [Errno 11] Resource temporarily unavailable; raise its limits on "
        "processes and open files (ulimit -u, ulimit -n), or start fewer workers"
    )


@pytest.mark.slow
def test_an_early_process_without_work_ends_with_its_block() -> None:
    with processes.early_worker(device="cpu", threads=1) as early:
        assert early is not None
        there = early.call(os.getpid)
    assert not Path(f"/proc/{there}").exists()


def test_on_a_machine_without_a_gpu_no_process_is_started_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GPU_DRIVERS", ("/nowhere",))
    for device in ("auto", "cpu"):
        with processes.early_worker(device=device, threads=None) as early:
            assert early is None


def test_a_death_is_noticed_without_a_timeout(
    tmp_path: Path, rows: Rows, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is killed from outside in the middle of its unit; its end itself is noticed, and it is replaced."""
    reasons: list[str] = []
    reason_of, handle = local._Supervisor._reason_of, WorkerTracker.handle

    def recorded(supervisor: Any, worker: Any) -> str:
        reasons.append(reason_of(supervisor, worker))
        return reasons[-1]

    def kill_the_first(tracker: WorkerTracker, worker: Any, event: Any) -> None:
        handle(tracker, worker, event)
        if isinstance(event, RowsStored) and not killed:
            killed.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)

    killed: list[int] = []
    monkeypatch.setattr(local._Supervisor, "_reason_of", recorded)
    monkeypatch.setattr(WorkerTracker, "handle", kill_the_first)
    complete(tmp_path / "run", rows, fakes.make_slow, supervised=True)
    assert killed
    assert reasons == ["died (exit code -9)"]
    assert contents(tmp_path / "run") == whole


def children(of: int) -> Iterator[int]:
    for path in Path(f"/proc/{of}/task").glob("*/children"):
        yield from map(int, path.read_text().split())


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.slow
def test_workers_that_keep_dying_end_the_run(tmp_path: Path, save_rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [row | {"input_ids": [70, 1, k]} for k, row in enumerate(fake_rows(40))]
    monkeypatch.setattr(FailureTracker, "MAX_IN_A_ROW", 3)
    with pytest.raises(LadmError) as caught:
        complete(tmp_path / "run", open_rows(save_rows(data)), fakes.make_deadly, devices=2)
    assert str(caught.value).endswith(
        "died (exit code 9) 4 times in a row without finishing a row; finished rows are safe; run the same command "
        "again to continue"
    )


def test_a_broken_device_costs_a_process_and_not_the_run(
    tmp_path: Path, rows: Rows, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LADM_TEST_HANG_ONCE", str(tmp_path / "spoilt"))
    complete(tmp_path / "run", rows, fakes.make_spoilt_once, supervised=True)
    assert (tmp_path / "spoilt").exists()
    assert contents(tmp_path / "run") == whole


SUPERVISOR = """
    import sys
    sys.path.insert(0, sys.argv[1])
    from pathlib import Path
    from ladm.corpus.rows.reading import open_rows
    from support import engines, fakes
    if __name__ == "__main__":
        engines.complete(Path(sys.argv[2]), open_rows(sys.argv[3]), fakes.make_waiting, supervised=True)
"""


def test_a_dead_supervisor_leaves_no_orphans(tmp_path: Path, rows: Rows, whole: Any) -> None:
    script = tmp_path / "supervise.py"
    script.write_text(textwrap.dedent(SUPERVISOR))
    # Its workers open their units, and wait for a file that never comes.
    environment = os.environ | {"LADM_TEST_WAIT_FOR": str(tmp_path / "never")}
    process = subprocess.Popen(
        [sys.executable, str(script), str(TESTS), str(tmp_path / "run"), rows.name], env=environment
    )
    while not list((tmp_path / "run").glob("units/*.open")):
        time.sleep(0.05)
        assert process.poll() is None
    workers = [child for child in children(process.pid) if "spawn_main" in command_of(child)]
    assert workers
    process.kill()
    process.wait()
    while any("spawn_main" in command_of(worker) for worker in workers):
        time.sleep(0.05)
    complete(tmp_path / "run", rows)
    assert contents(tmp_path / "run") == whole


def test_nobody_writes_beside_a_worker_that_outlives_its_run(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "WORKERS_END_SECONDS", 0.3)
    folder = tmp_path / "run"
    complete(folder, rows, supervised=True)
    code = f"import sys, time; from pathlib import Path; from ladm.storage.locks import hold_as_worker; \
hold_as_worker(Path({str(folder)!r})); print('held', flush=True); time.sleep(100_000)"
    left = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert left.stdout is not None
    assert left.stdout.readline() == b"held\n"
    with (
        pytest.raises(LockedError, match="is in use by workers that do not end although their run was killed"),
        locked(folder),
    ):
        pass
    left.kill()
    left.communicate()
    with locked(folder):
        pass


UNGUARDED = """
import sys
import ladm

rows, model, output = sys.argv[1:]
try:
    ladm.score(rows, model=model, output=output, span_tokens=16, dtype="float32", device="cpu", workers=2)
except ladm.LadmError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_gets_an_error_that_names_it(tmp_path: Path, short_rows: str) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    words = [sys.executable, str(tmp_path / "script.py"), short_rows, str(GOLDEN), str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (
        'the script must make this call under `if __name__ == "__main__":`, because it starts processes, each of which '
        "imports the script (docs/python.md); without processes: --device cpu without --workers\n",
        "",
    )


WATCHER = """
import sys
if __name__ == "__main__":
    from ladm.scoring.score import score
    from ladm.settings.score import ScoreSettings

    rows, model, output = sys.argv[1:]
    settings = ScoreSettings(rows=rows, model=model, output=output, span_tokens=16, dtype="float32", workers=1)
    print(score(settings).summary.scored, "torch" in sys.modules)
"""


@pytest.mark.slow
def test_a_process_that_only_watches_workers_imports_no_torch(tmp_path: Path, short_rows: str) -> None:
    (tmp_path / "supervisor.py").write_text(WATCHER)
    words = [sys.executable, str(tmp_path / "supervisor.py"), short_rows, str(GOLDEN), str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "False"]
