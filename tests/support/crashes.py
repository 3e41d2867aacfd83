"""Ways to hurt a run folder: kills at random times, a stop at every disk operation, a disk that forgets.

Short versions run in the tests, long ones by scripts/torture.py.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LockedError, StorageError
from ladm.runs.finish import finish
from ladm.runs.folder import Run, Unit
from ladm.runs.identity import FORMAT, RunIdentity
from ladm.runs.layout import RESULT_FILES
from ladm.runs.lines import read_records
from ladm.runs.records import Record
from ladm.runs.unsealed import adopt_shared
from ladm.scoring.engines.assignments import OwnUnits, UnitSource
from ladm.scoring.engines.events import ProgressEvent, RowsStored
from ladm.scoring.engines.job import ScoreJob, WorkerConfig
from ladm.scoring.engines.local import run_units
from ladm.scoring.engines.placement import Shard, parse_shard
from ladm.scoring.engines.shared_units import SharedUnits
from ladm.scoring.engines.tracker import WorkerTracker
from ladm.storage.locks import locked
from support import fakes
from support.interruptions import Stopped, disk_operations, fail_at, stop_at
from support.paths import TESTS


def identity(rows: Rows, **changed: Any) -> RunIdentity:
    base = {"format": FORMAT, "settings": {"d_afs": 4, "m": 1}, "data": rows.identity(), "unit_rows": 16}
    return RunIdentity(base | {"about": {"rows": rows.name}} | changed)


def sealed_records(run: Run, unit: Unit) -> list[Record]:
    """The rows of a sealed unit in the order of the data."""
    return [line.record for line in run.read_sealed_lines(unit)]


@dataclass(frozen=True)
class Batch:
    rows: int

    def __call__(self, _num_tokens: int) -> int:
        return self.rows


def job_of(
    run: Run,
    rows: Rows,
    source: UnitSource,
    *,
    make_scorer: Callable[[str], Any] = fakes.make_fake,
    batch: int = 5,
    devices: int = 1,
    supervised: bool | None = None,
    report: Callable[[list[Any]], None] = lambda _: None,
    warn: Callable[[str], None] = print,
    take_early: Callable[..., Any] = lambda *_: None,
    **config: Any,
) -> ScoreJob:
    """The units of a source on fake devices; `config` goes to every worker.

    `supervised`: in processes of their own, None: if there are several devices.
    """
    worker = WorkerConfig(
        folder=run.folder, rows=rows.name, limit=None, make_scorer=make_scorer, batch_rows=Batch(batch), **config
    )
    names = tuple(f"fake:{k}" for k in range(devices))
    return ScoreJob(
        run=run, rows=rows, source=source, worker=worker, devices=names, report=report, warn=warn,
        supervised=devices > 1 if supervised is None else supervised, take_early=take_early,
    )  # fmt: skip


def complete(
    folder: Path,
    rows: Rows,
    *,
    make_scorer: Callable[[str], Any] = fakes.make_fake,
    workers: int = 1,
    supervised: bool | None = None,
    batch: int = 5,
    report: Callable[[list[Any]], None] = lambda _: None,
) -> Run:
    """A run from wherever it is to its end, as `ladm score` does it."""
    with locked(folder):
        run = Run.create_or_resume(folder, identity(rows))
        adopt_shared(run)
        run_units(
            job_of(
                run, rows, OwnUnits(run), make_scorer=make_scorer, batch=batch, devices=workers,
                supervised=supervised, report=report,
            )
        )  # fmt: skip
        finish(run)
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULT_FILES}


def positions_in(folder: Path) -> list[int]:
    """Positions of every whole row that is on the disk, once for each time it is there."""
    found: list[int] = []
    run = Run.read(folder)
    for unit in run.units:
        sealed, unfinished = run.sealed_path(unit), run.open_path(unit)
        path = sealed if sealed.exists() else unfinished
        if path.exists():
            found += [record.position for record in read_records(path, start=unit.start, stop=unit.stop)]
    return found


@dataclass
class Kills:
    """What came of many SIGKILLs in one folder. `acknowledged` counts rows that were reported as durable."""

    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    repeated: int = 0
    rounds: int = 0
    differing: int = 0

    def compare(self, acknowledged: set[int], on_disk: list[int]) -> None:
        """Count the acknowledged rows that are gone, and those that are there twice."""
        self.lost += len(acknowledged - set(on_disk))
        self.repeated += len(on_disk) - len(set(on_disk))


MAX_DELAY_SECONDS = 0.02
"""A kill falls up to this long after the event that triggers it: in the middle of whatever the run does then."""
FIRST_OPERATIONS = 40
"""Disk operations of a start, among which the kills are drawn that fall before the first row."""


def kill_again_and_again(folder: Path, rows: Rows, *, kills: int, seed: int, workers: int = 1) -> Kills:
    """Kill the process group of a run inside of it, again and again; at each of its ends compare its bytes.

    The run kills itself: shortly after a drawn number of rows or of disk operations, so that each kill
    falls inside of it however busy the machine is. Whenever a run ends, another is started.
    A row is acknowledged when the child has written its position, which it does after the fsync.
    """
    draw = random.Random(seed)
    found = Kills()
    complete(folder / "whole", rows)
    whole = contents(folder / "whole")
    run, reported = folder / "run", folder / "reported"
    acknowledged: set[int] = set()
    while found.kills < kills:
        left = len(rows) - len(positions_in(run)) if (run / "run.json").exists() else len(rows)
        by_rows = left > 0 and draw.random() < 0.8
        trigger = f"rows:{draw.randint(1, left)}" if by_rows else f"operations:{draw.randrange(FIRST_OPERATIONS)}"
        delay = draw.uniform(0.0, MAX_DELAY_SECONDS)
        ended = _one_life(run, rows, reported, f"{trigger}:{delay}", workers=workers)
        acknowledged |= {int(word) for word in reported.read_text().split()} if reported.exists() else set()
        found.kills += not ended
        if not (run / "run.json").exists():
            assert not acknowledged
            continue
        found.compare(acknowledged, positions_in(run))
        if ended:
            found.rounds += 1
            found.differing += contents(run) != whole
            found.acknowledged += len(acknowledged)
            acknowledged.clear()
            shutil.rmtree(run)
    found.acknowledged += len(acknowledged)
    return found


def _one_life(run: Path, rows: Rows, reported: Path, kill: str, *, workers: int) -> bool:
    """Work on the run in another process group until it ends (True) or kills itself (False)."""
    reported.unlink(missing_ok=True)
    command = [sys.executable, "-m", "support.crashes", str(run), rows.name, str(reported), str(workers), kill]
    process = subprocess.Popen(command, cwd=TESTS, start_new_session=True)
    code = process.wait()
    assert code in (0, -signal.SIGKILL), f"the run ended with {code} by itself"
    # Workers of a killed supervisor die with it, a little later.
    return code == 0


def kill_launches(folder: Path, rows: Rows, *, kills: int, launches: int, seed: int) -> Kills:
    """Have launches share a run; as its rows advance kill one of them, and start it again, again and again."""
    draw = random.Random(seed)
    found = Kills()
    complete(folder / "whole", rows)
    whole = contents(folder / "whole")
    while found.kills < kills:
        run, reported = folder / f"run{found.rounds}", folder / f"reported{found.rounds}"
        reported.touch()

        def start(index: int, run: Path = run, reported: Path = reported) -> subprocess.Popen[bytes]:
            shard = f"{index}/{launches}"
            command = [sys.executable, "-m", "support.crashes", str(run), rows.name, str(reported), "1", "never", shard]
            return subprocess.Popen(command, cwd=TESTS)

        lives = [start(index) for index in range(launches)]
        # The next kill comes when this many rows more are reported: the run is certain to be in progress then.
        stretch = max(1, len(rows) // 8)
        threshold = draw.randint(1, stretch)
        while any(life.poll() is None for life in lives):
            time.sleep(0.005)
            if found.kills == kills or len(reported.read_text().split()) < threshold:
                continue
            threshold += draw.randint(1, stretch)
            index = draw.choice([index for index, life in enumerate(lives) if life.poll() is None] or [0])
            if lives[index].poll() is None:
                lives[index].kill()
                lives[index].wait()
                found.kills += 1
                lives[index] = start(index)
        assert [life.returncode for life in lives] == [0] * launches
        acknowledged = {int(word) for word in reported.read_text().split()}
        found.acknowledged += len(acknowledged)
        found.compare(acknowledged, positions_in(run))
        found.differing += contents(run) != whole
        found.rounds += 1
    return found


def take_part(folder: Path, rows: Rows, shard: Shard, make_scorer: Any = fakes.make_fake, lease: float = 2.0) -> int:
    """One launch of several; returns how many rows it scored."""
    heard: list[Record] = []
    with locked(folder, shared=True):
        run = Run.create_or_resume(folder, identity(rows))
        with SharedUnits(run, shard, lease_seconds=lease) as source:
            run_units(job_of(run, rows, source, make_scorer=make_scorer, report=heard.extend))
    return len(heard)


def share(folder: Path, rows: Rows, shard: Shard, *, report: Callable[[list[Any]], None]) -> None:
    """One of several launches of a run, as `ladm score --shard` does it; a lost one is replaced after a second."""
    with locked(folder, shared=True):
        run = Run.create_or_resume(folder, identity(rows))
        with SharedUnits(run, shard, lease_seconds=1.0) as source:
            run_units(job_of(run, rows, source, report=report))
            source.finish(partial(finish, run), lambda: run.is_finished)


def main() -> None:
    """The child of `kill_again_and_again` and of `kill_launches`."""
    run, rows, reported, workers, kill, *shard = sys.argv[1:]
    descriptor = os.open(reported, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    unit, count, delay = (*kill.split(":"), "0", "0")[:3]
    seen = 0

    def report(records: list[Any]) -> None:
        nonlocal seen
        os.write(descriptor, "".join(f"{record.position} " for record in records).encode())
        before, seen = seen, seen + len(records)
        if unit == "rows" and before < int(count) <= seen:
            kill_own_group(after=float(delay))

    def operation(number: int, do: Callable[[], Any]) -> Any:
        if number == int(count):
            kill_own_group(after=float(delay) / 10)
        return do()

    data = open_rows(rows)
    if shard:
        share(Path(run), data, parse_shard(shard[0]), report=report)
        return
    with disk_operations(operation) if unit == "operations" else contextlib.nullcontext():
        complete(Path(run), data, workers=int(workers), report=report)


def kill_own_group(*, after: float) -> None:
    """Kill this process and its children a moment from now, while they go on."""

    def kill() -> None:
        time.sleep(after)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()


def at_every_operation(folder: Path, rows: Rows, interrupted: Callable[[int, Path], dict[str, int]]) -> int:
    """Have the n-th disk operation of a run interrupted, for every n; the next start ends with the same bytes.

    `interrupted` works on the run that far, and returns the counter of operations. Returns how many there were.
    """
    whole = contents(folder / "whole")
    n = 0
    while True:
        run = folder / f"run{n}"
        calls = interrupted(n, run)["calls"]
        if calls <= n:
            shutil.rmtree(run)
            return n
        complete(run, rows)
        assert contents(run) == whole, f"operation {n}"
        assert not list(run.glob("*.partial")), f"operation {n}"
        shutil.rmtree(run)
        n += 1


def every_failure(folder: Path, rows: Rows) -> int:
    """Fail each disk operation, once or from then on; once there is space the next start ends with the same bytes.

    Whatever could not be done is reported as a StorageError. Returns how many failures were tried.
    """
    complete(folder / "whole", rows)

    def interrupted(n: int, run: Path, *, for_ever: bool) -> dict[str, int]:
        with fail_at(n, for_ever=for_ever) as counter, contextlib.suppress(StorageError):
            complete(run, rows)
            assert contents(run) == contents(folder / "whole"), f"operation {n} failed without an error, {for_ever=}"
        return counter

    return sum(at_every_operation(folder, rows, partial(interrupted, for_ever=for_ever)) for for_ever in (False, True))


def every_crash_point(folder: Path, rows: Rows, *, moments: tuple[str, ...] = ("before", "after")) -> int:
    """Stop before and after each disk operation; the next start ends with the same bytes. Returns how many points."""
    complete(folder / "whole", rows)

    def interrupted(n: int, run: Path, *, after: bool) -> dict[str, int]:
        with stop_at(n, after=after) as counter, contextlib.suppress(Stopped):
            complete(run, rows)
        return counter

    return sum(at_every_operation(folder, rows, partial(interrupted, after=each == "after")) for each in moments)


KILL_SHARE = 0.05
"""Of the stored batches, after how many their worker is killed."""


def kill_workers(folder: Path, rows: Rows, *, kills: int, workers: int, seed: int) -> int:
    """Kill a worker of a run after a drawn batch, again and again; the bytes at the end are the same.

    A worker that has stored a batch is past its start, and is anywhere in its next one when the kill
    arrives. Returns the kills.
    """
    complete(folder / "whole", rows)
    draw = random.Random(seed)
    done = 0
    handle = WorkerTracker.handle

    def handle_and_kill(tracker: WorkerTracker, worker: Any, event: ProgressEvent) -> None:
        nonlocal done
        handle(tracker, worker, event)
        if isinstance(event, RowsStored) and done < kills and draw.random() < KILL_SHARE:
            worker.process.kill()
            done += 1

    WorkerTracker.handle = handle_and_kill  # type: ignore[method-assign]
    try:
        complete(folder / "run", rows, workers=workers)
    finally:
        WorkerTracker.handle = handle  # type: ignore[method-assign]
    assert contents(folder / "run") == contents(folder / "whole")
    return done


def race_for_the_lock(folder: Path, *, processes: int, races: int) -> int:
    """Have several processes lock one folder at once: one has it, the others learn who. Returns the races."""
    # Not forked: a fork of a process that other tests have given threads can stop at once, or wait forever.
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(processes), context.Queue()
    runs = [folder / f"run{race % 2}" for race in range(races)]
    racers = [context.Process(target=_ask_for_locks, args=(runs, barrier, answers)) for _ in range(processes)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    # Before the answers, for one of which a process that died would have this one wait forever.
    codes = [racer.exitcode for racer in racers]
    assert codes == processes * [0], codes
    for found in zip(*(answers.get() for _ in racers), strict=True):
        assert found.count("mine") == 1, found
        assert all(answer == "mine" or "is in use by " in answer for answer in found), found
    for run in runs:
        with locked(run):
            pass
    return len(runs)


def _ask_for_locks(runs: list[Path], barrier: Any, answers: Any) -> None:
    """Lock each folder in turn, at the same time as the other processes, and put what became of each."""
    found = []
    for run in runs:
        barrier.wait()
        try:
            with locked(run):
                barrier.wait()
                found.append("mine")
        except LockedError as error:
            barrier.wait()
            found.append(str(error))
    answers.put(found)


if __name__ == "__main__":
    main()
