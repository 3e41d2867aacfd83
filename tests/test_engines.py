"""Workers that die, hang or are poisoned; launches that share a run; the bytes are the same whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import fakes
import pytest
from fakes import fake_rows
from torture import contents, identity

from ladm import locks
from ladm.engines import local, shard
from ladm.engines.local import run_units
from ladm.engines.shard import Place, Shard, SharedUnits, parse_shard, place_of
from ladm.engines.units import Losses, OwnUnits
from ladm.engines.work import Record
from ladm.engines.worker import Work
from ladm.errors import LadmError, LockedError, StorageError, UsageError
from ladm.locks import locked
from ladm.results import ERRORS_FILE, SORTED_FILE, finish
from ladm.rows import Rows, open_rows
from ladm.runs import Run, UnitWriter
from ladm.upkeep import verify

TESTS = Path(__file__).parent


def five(_num_tokens: int) -> int:
    return 5


def work_of(folder: Path, rows: Rows, make_scorer: Any, **changed: Any) -> Work:
    return Work(folder=folder, rows=rows.name, limit=None, make_scorer=make_scorer, batch_rows=five, **changed)


def complete(
    folder: Path,
    rows: Rows,
    make_scorer: Any = fakes.make_fake,
    *,
    devices: int = 1,
    say: Callable[[str], None] = print,
    **changed: Any,
) -> list[Record]:
    heard: list[Record] = []
    with locked(folder):
        run = Run.create_or_resume(folder, identity(rows))
        run.adopt_shared()
        names = tuple(f"fake:{k}" for k in range(devices))
        run_units(
            work_of(folder, rows, make_scorer, **changed), run, rows, OwnUnits(run), devices=names,
            report=heard.extend, watched=devices > 1, say=say,
        )  # fmt: skip
        finish(run)
    return heard


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


def test_a_poisonous_row_is_found_and_recorded(tmp_path: Path, save_rows: Any) -> None:
    data = fake_rows(60)
    for position in (30, 31):
        data[position]["input_ids"] = [70, 1, position]
    rows = open_rows(save_rows(data))
    complete(tmp_path / "run", rows, fakes.make_deadly, devices=2)
    errors = errors_of(tmp_path / "run")
    assert set(errors) == {30, 31}
    for kind, message in errors.values():
        assert kind == "worker_lost"
        assert message.startswith("the worker on fake:")
        assert message.endswith("died (exit code 9) each time it scored this row")
    complete(tmp_path / "well", rows)
    ill, well = (scores_of(tmp_path / name) for name in ("run", "well"))
    assert all(ill[k] == well[k] for k in ill)
    assert len(ill) == 58


def test_a_worker_that_hangs_once_is_replaced(tmp_path: Path, rows: Rows, whole: Any) -> None:
    os.environ["LADM_TEST_HANG_ONCE"] = str(tmp_path / "hung")
    began = time.monotonic()
    complete(tmp_path / "run", rows, fakes.make_hanging_once, devices=2, hang_seconds=1.0, first_seconds=8.0)
    assert (tmp_path / "hung").exists()
    assert contents(tmp_path / "run") == whole
    assert time.monotonic() - began < 30


def test_one_that_hangs_after_its_first_batches_is_found_sooner(tmp_path: Path, rows: Rows, whole: Any) -> None:
    """The deadline of a warm worker is that of its batches, not that of a model's first one."""
    os.environ["LADM_TEST_HANG_ONCE"] = str(tmp_path / "hung")
    began = time.monotonic()
    complete(tmp_path / "run", rows, fakes.make_hanging_later, devices=2, hang_seconds=1.0, first_seconds=100.0)
    assert (tmp_path / "hung").exists()
    assert contents(tmp_path / "run") == whole
    assert time.monotonic() - began < 50


@pytest.mark.parametrize("make_scorer", [fakes.make_bad_on_one, fakes.make_dying_on_one])
def test_a_bad_device_is_given_up_and_no_row_is_lost_to_it(
    tmp_path: Path, rows: Rows, whole: Any, make_scorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Losses, "MOST_OF_A_PLACE", 2)
    said: list[str] = []
    complete(tmp_path / "run", rows, make_scorer, devices=2, say=said.append)
    assert contents(tmp_path / "run") == whole
    assert [line.split(" is given up")[0] for line in said] == ["warning   fake:1"]


def test_workers_that_die_while_they_start_end_the_run(tmp_path: Path, rows: Rows) -> None:
    with pytest.raises(LadmError, match=r"^the worker on fake:\d died \(exit code 3\) while it started; the rows"):
        complete(tmp_path / "run", rows, fakes.make_dying, devices=2)


def test_one_that_cannot_be_killed_ends_the_run(tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a call of a driver that does not return: SIGKILL is sent and nothing happens."""
    os.environ["LADM_TEST_HANG_ONCE"] = str(tmp_path / "hung")
    monkeypatch.setattr(local, "SLOWEST_END_SECONDS", 0.5)
    monkeypatch.setattr(SpawnProcess, "kill", lambda _: None)
    began = time.monotonic()
    try:
        with pytest.raises(LadmError, match=r"^the worker on fake:\d hung for \d+ s and does not end even when it is"):
            complete(tmp_path / "run", rows, fakes.make_hanging_later, devices=2, hang_seconds=1.0)
        assert time.monotonic() - began < 50
    finally:
        for child in children(os.getpid()):
            if "spawn_main" in command_of(child):
                os.kill(child, signal.SIGKILL)


def test_a_worker_that_sees_other_rows_ends_the_run(tmp_path: Path, rows: Rows, save_rows: Any) -> None:
    other = open_rows(save_rows(fake_rows(100)[::-1], "other"))
    with pytest.raises(LadmError, match=r"has other rows on .* now than the run began with$"):
        complete(tmp_path / "run", rows, devices=2, sample=other.sample())
    complete(tmp_path / "run", rows, devices=2, sample=rows.sample())


def test_a_death_is_noticed_at_once(tmp_path: Path, save_rows: Any) -> None:
    """A worker is killed from outside in the middle of a batch; its replacement is there within 5 seconds."""
    rows = open_rows(save_rows(fake_rows(100)))
    noticed: list[float] = []
    original = local._Pool._lost

    def lost(pool: Any, worker: Any) -> None:
        noticed.append(time.monotonic())
        original(pool, worker)

    killed: list[float] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not killed:
            for child in children(os.getpid()):
                if "spawn_main" in command_of(child) and (tmp_path / "run" / "units" / "000000.open").exists():
                    killed.append(time.monotonic())
                    os.kill(child, signal.SIGKILL)
                    return
            time.sleep(0.02)

    thread = threading.Thread(target=kill_one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local._Pool, "_lost", lost)
        thread.start()
        complete(tmp_path / "run", rows, fakes.make_slow, devices=2)
        thread.join()
    assert killed
    assert noticed[0] - killed[0] < 5
    complete(tmp_path / "straight", rows)
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def children(of: int) -> Iterator[int]:
    for path in Path(f"/proc/{of}/task").glob("*/children"):
        yield from map(int, path.read_text().split())


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def test_workers_that_keep_dying_end_the_run(tmp_path: Path, save_rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [row | {"input_ids": [70, 1, k]} for k, row in enumerate(fake_rows(40))]
    monkeypatch.setattr(Losses, "MOST_IN_A_ROW", 3)
    with pytest.raises(LadmError) as told:
        complete(tmp_path / "run", open_rows(save_rows(data)), fakes.make_deadly, devices=2)
    assert str(told.value).endswith(
        "died (exit code 9) 4 times without a row in between; the rows it finished are safe, and the same command "
        "goes on from there"
    )


def test_a_spoilt_device_costs_a_process_and_not_the_run(tmp_path: Path, rows: Rows, whole: Any) -> None:
    os.environ["LADM_TEST_HANG_ONCE"] = str(tmp_path / "spoilt")
    complete(tmp_path / "run", rows, fakes.make_spoilt_once, devices=2)
    assert (tmp_path / "spoilt").exists()
    assert contents(tmp_path / "run") == whole


SUPERVISOR = """
    import sys
    sys.path.insert(0, sys.argv[1])
    import fakes, test_engines
    from pathlib import Path
    from ladm.rows import open_rows
    if __name__ == "__main__":
        test_engines.complete(Path(sys.argv[2]), open_rows(sys.argv[3]), fakes.make_slow, devices=2)
"""


def test_a_dead_supervisor_leaves_no_orphans(tmp_path: Path, rows: Rows, whole: Any) -> None:
    script = tmp_path / "supervise.py"
    script.write_text(textwrap.dedent(SUPERVISOR))
    process = subprocess.Popen([sys.executable, str(script), str(TESTS), str(tmp_path / "run"), rows.name])
    while not list((tmp_path / "run").glob("units/*.open")):
        time.sleep(0.05)
        assert process.poll() is None
    workers = [child for child in children(process.pid) if "spawn_main" in command_of(child)]
    assert workers
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while any("spawn_main" in command_of(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any("spawn_main" in command_of(worker) for worker in workers)
    complete(tmp_path / "run", rows)
    assert contents(tmp_path / "run") == whole


def share(folder: Path, rows: Rows, shard: Shard, make_scorer: Any = fakes.make_fake, lease: float = 2.0) -> int:
    """One launch of several; returns how many rows it scored."""
    heard: list[Record] = []
    with locked(folder, shared=True):
        run = Run.create_or_resume(folder, identity(rows))
        with SharedUnits(run, shard, lease_seconds=lease) as source:
            run_units(work_of(folder, rows, make_scorer), run, rows, source, devices=("fake:0",), report=heard.extend)
    return len(heard)


SHARER = """
    import sys
    sys.path.insert(0, sys.argv[1])
    import fakes, test_engines
    from pathlib import Path
    from ladm.engines.shard import Shard
    from ladm.rows import open_rows
    rows = open_rows(sys.argv[3])
    print(test_engines.share(Path(sys.argv[2]), rows, Shard(int(sys.argv[4]), 3), fakes.make_slow))
"""


def test_nobody_writes_beside_a_worker_that_outlives_its_run(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "WORKERS_PATIENCE_SECONDS", 0.3)
    folder = tmp_path / "run"
    complete(folder, rows, devices=2)
    code = f"import sys, time; from pathlib import Path; from ladm.locks import hold_as_worker; \
hold_as_worker(Path({str(folder)!r})); print('held', flush=True); time.sleep(60)"
    left = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert left.stdout is not None
    assert left.stdout.readline() == b"held\n"
    with (
        pytest.raises(LockedError, match="is in use by workers whose run was killed and who do not end"),
        locked(folder),
    ):
        pass
    left.kill()
    left.communicate()
    with locked(folder):
        pass


def test_launches_that_share_a_run_do_every_unit_once(tmp_path: Path, rows: Rows, whole: Any) -> None:
    script = tmp_path / "share.py"
    script.write_text(textwrap.dedent(SHARER))
    command = [sys.executable, str(script), str(TESTS), str(tmp_path / "run"), rows.name]
    launches = [subprocess.Popen([*command, str(k)], stdout=subprocess.PIPE, text=True) for k in range(3)]
    done = [int(launch.communicate()[0]) for launch in launches]
    assert sum(done) == 100
    assert all(done)
    finish(Run.read(tmp_path / "run"))
    assert contents(tmp_path / "run") == whole
    assert not [p.name for p in (tmp_path / "run" / "units").iterdir() if not p.name.endswith(".jsonl")]


def test_the_units_of_a_lost_launch_are_taken_over(tmp_path: Path, rows: Rows, whole: Any) -> None:
    """A claim that nobody touches any more is broken after its lease; what its holder had written counts."""
    folder = tmp_path / "run"
    run = Run.create_or_resume(folder, identity(rows))
    lost = SharedUnits(run, Shard(0, 2), lease_seconds=60)
    assignment = lost.take()
    assert assignment is not None
    complete(tmp_path / "other", rows)
    kept = Run.read(tmp_path / "other").read_sealed(run.units[0])[:7]
    writer = UnitWriter(run, assignment.unit, holder=assignment.holder)
    writer.append(kept)
    writer.close()
    assert share(folder, rows, Shard(1, 2), lease=0.5) == 100 - 7
    finish(run)
    assert contents(folder) == whole
    assert not [p.name for p in (folder / "units").iterdir() if not p.name.endswith(".jsonl")]


def test_one_who_comes_back_after_its_lease_spoils_nothing(tmp_path: Path, rows: Rows, whole: Any) -> None:
    folder = tmp_path / "run"
    run = Run.create_or_resume(folder, identity(rows))
    slow = SharedUnits(run, Shard(0, 2))
    assignment = slow.take()
    assert assignment is not None
    late = UnitWriter(run, assignment.unit, holder=assignment.holder)
    assert share(folder, rows, Shard(1, 2), lease=0.5) == 100
    late.append(run.read_sealed(assignment.unit))
    late.seal()
    late.close()
    slow.sealed(assignment)
    finish(run)
    assert contents(folder) == whole


def test_a_run_alone_adopts_what_sharers_left(tmp_path: Path, rows: Rows, whole: Any) -> None:
    folder = tmp_path / "run"
    run = Run.create_or_resume(folder, identity(rows))
    complete(tmp_path / "other", rows)
    records = Run.read(tmp_path / "other").read_sealed(run.units[2])
    writers = []
    for generation, count in ((0, 3), (2, 9), (3, 1)):
        writers.append(UnitWriter(run, run.units[2], holder=f"{generation}-{generation}abc"))
        writers[-1].append([record for record in records[:count] if record["position"] not in writers[-1].done])
        run.claim_path(run.units[2], generation).write_text("{}")
    assert len(complete(folder, rows)) == 100 - 9
    # One who was taken for gone comes back, writes on, and seals: what is there stays as it is.
    back = writers[0]
    back.append([record for record in records if record["position"] not in back.done])
    back.seal()
    for writer in writers:
        writer.close()
    assert Run.read(folder).read_sealed(run.units[2]) == records
    assert contents(folder) == whole
    assert not [p.name for p in (folder / "units").iterdir() if not p.name.endswith(".jsonl")]


def test_a_damaged_file_of_a_sharer_is_told_and_kept(tmp_path: Path, rows: Rows) -> None:
    folder = tmp_path / "run"
    run = Run.create_or_resume(folder, identity(rows))
    complete(tmp_path / "other", rows)
    with contextlib.closing(UnitWriter(run, run.units[1], holder="0-abc")) as writer:
        writer.append(Run.read(tmp_path / "other").read_sealed(run.units[1])[:4])
    path = run.open_path(run.units[1], "0-abc")
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    for again in (lambda: complete(folder, rows), lambda: UnitWriter(run, run.units[1], holder="1-abc")):
        with pytest.raises(StorageError, match=f"^{path} is damaged at byte 0"):
            again()
    assert path.read_bytes() == content
    assert any(f"{path} is damaged" in line for line in verify(run, deep=False))


def test_one_who_comes_back_while_a_run_alone_is_at_the_unit(tmp_path: Path, rows: Rows, whole: Any) -> None:
    """Its seal finds its own file gone, and neither takes the other's half-written one nor harms it."""
    folder = tmp_path / "run"
    run = Run.create_or_resume(folder, identity(rows))
    complete(tmp_path / "other", rows)
    records = Run.read(tmp_path / "other").read_sealed(run.units[0])
    shared = UnitWriter(run, run.units[0], holder="0-abc")
    shared.append(records[:8])
    run.adopt_shared()
    alone = UnitWriter(run, run.units[0])
    alone.append(records[8:9])
    shared.append(records[8:])
    with pytest.raises(StorageError):
        shared.seal()
    shared.close()
    assert not run.sealed_path(run.units[0]).exists()
    alone.append(records[9:])
    alone.seal()
    alone.close()
    complete(folder, rows)
    assert contents(folder) == whole


def test_alone_and_shared_exclude_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    told = pytest.raises(LockedError, match=f"is in use by process {os.getpid()} on")
    with locked(folder, shared=True), locked(folder, shared=True), told, locked(folder):
        pass
    with locked(folder), pytest.raises(LockedError), locked(folder, shared=True):
        pass


BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (BATCH_SCRIPT, None),
        (BATCH_SCRIPT | {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}, (3, 8, 1)),
        (
            BATCH_SCRIPT | {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"},
            (6, 8, None),
        ),
        (
            {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "0",
             "SLURM_ARRAY_TASK_STEP": "2"},
            (2, 3, None),
        ),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "2"}, (1, 2, None)),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_TASK_MIN": "5"}, (0, 1, None)),
        (
            BATCH_SCRIPT | {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_ARRAY_TASK_ID": "1",
                            "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "0"},
            (11, 16, 3),
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, (1, 2, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, None),
        ({"RANK": "1"}, None),
    ],
)  # fmt: skip
def test_the_place_of_a_launch(environment: dict[str, str], expected: tuple[int, int, int | None] | None) -> None:
    found = place_of(environment)
    assert found == (None if expected is None else Place(shard=Shard(*expected[:2]), rank=expected[2]))


def test_spelled_shards_and_ranks() -> None:
    assert parse_shard("2/8") == Shard(2, 8)
    for text, message in (("8/8", "--shard 8/8: the first is 0/8"), ("2", "--shard '2' is not a number and a count")):
        with pytest.raises(UsageError) as told:
            parse_shard(text)
        assert str(told.value).startswith(message)
    assert shard.LEASE_SECONDS > 10
