"""Ways to hurt a run folder: kills at random times, a stop at every disk operation, a disk that forgets.

Short versions run in the tests, long ones by scripts/torture.py.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fakes

from ladm.corpus.rows import Rows, open_rows
from ladm.errors import LockedError, StorageError
from ladm.runs.finish import finish
from ladm.runs.folder import Run
from ladm.runs.identity import FORMAT, RunIdentity
from ladm.runs.layout import RESULT_FILES
from ladm.runs.lines import read_records
from ladm.scoring.engines.assignments import OwnUnits, Source
from ladm.scoring.engines.job import ScoreJob, WorkerConfig
from ladm.scoring.engines.local import run_units
from ladm.scoring.engines.placement import Shard, parse_shard
from ladm.scoring.engines.shared_units import SharedUnits
from ladm.storage.locks import locked

START_SECONDS = 4.0
"""A worker this old has started."""


def identity(rows: Rows, **changed: Any) -> RunIdentity:
    base = {"format": FORMAT, "settings": {"d_afs": 4, "m": 1}, "data": rows.identity(), "unit_rows": 16}
    return RunIdentity(base | {"about": {"rows": rows.name}} | changed)


@dataclass(frozen=True)
class Batch:
    rows: int

    def __call__(self, _num_tokens: int) -> int:
        return self.rows


def job_of(
    run: Run,
    rows: Rows,
    source: Source,
    *,
    make_scorer: Callable[[str], Any] = fakes.make_fake,
    batch: int = 5,
    devices: int = 1,
    report: Callable[[list[Any]], None] = lambda _: None,
    warn: Callable[[str], None] = print,
    **config: Any,
) -> ScoreJob:
    """The units of a source on fake devices; `config` goes to every worker."""
    worker = WorkerConfig(
        folder=run.folder, rows=rows.name, limit=None, make_scorer=make_scorer, batch_rows=Batch(batch), **config
    )
    names = tuple(f"fake:{k}" for k in range(devices))
    return ScoreJob(
        run=run, rows=rows, source=source, worker=worker, devices=names, report=report, warn=warn,
        supervised=devices > 1,
    )  # fmt: skip


def complete(
    folder: Path,
    rows: Rows,
    *,
    make_scorer: Callable[[str], Any] = fakes.make_fake,
    workers: int = 1,
    batch: int = 5,
    report: Callable[[list[Any]], None] = lambda _: None,
) -> Run:
    """A run from wherever it is to its end, as `ladm score` does it."""
    with locked(folder):
        run = Run.create_or_resume(folder, identity(rows))
        run.adopt_shared()
        run_units(
            job_of(run, rows, OwnUnits(run), make_scorer=make_scorer, batch=batch, devices=workers, report=report)
        )
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
    """What came of many SIGKILLs in one folder. `acknowledged` counts rows that were reported as safe."""

    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    repeated: int = 0
    rounds: int = 0
    differing: int = 0


def kill_again_and_again(
    folder: Path, rows: Rows, *, kills: int, most_seconds: float, seed: int, workers: int = 1
) -> Kills:
    """Kill the process group of a run at random times; whenever a run ends, compare its bytes and begin another.

    A row is acknowledged when the child has printed its position, which it does after the fsync.
    """
    draw = random.Random(seed)
    found = Kills()
    complete(folder / "whole", rows)
    whole = contents(folder / "whole")
    run, told = folder / "run", folder / "told"
    acknowledged: set[int] = set()
    while found.kills < kills:
        ended = _one_life(run, rows, told, draw.uniform(0.0, most_seconds), workers=workers)
        acknowledged |= {int(word) for word in told.read_text().split()} if told.exists() else set()
        found.kills += not ended
        if not (run / "run.json").exists():
            continue
        on_disk = positions_in(run)
        found.lost += len(acknowledged - set(on_disk))
        found.repeated += len(on_disk) - len(set(on_disk))
        if ended:
            found.rounds += 1
            found.differing += contents(run) != whole
            found.acknowledged += len(acknowledged)
            acknowledged.clear()
            shutil.rmtree(run)
    found.acknowledged += len(acknowledged)
    return found


def _one_life(run: Path, rows: Rows, told: Path, seconds: float, *, workers: int) -> bool:
    """Work on the run in another process group until it ends (True) or its time is over (False)."""
    told.unlink(missing_ok=True)
    command = [sys.executable, "-m", "torture", str(run), rows.name, str(told), str(workers)]
    process = subprocess.Popen(command, cwd=Path(__file__).parent, start_new_session=True)
    # The clock starts when the run has its lock: start-up is not what is being killed.
    while process.poll() is None and not (run / ".holder").exists():
        time.sleep(0.002)
    with contextlib.suppress(subprocess.TimeoutExpired):
        code = process.wait(seconds)
        assert code == 0, f"the run ended with {code} by itself"
        return True
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (run / ".holder").unlink(missing_ok=True)
    return False


def kill_sharers(folder: Path, rows: Rows, *, kills: int, launches: int, seed: int) -> Kills:
    """Have several launches share a run, kill one of them at a random time and start it again, again and again."""
    draw = random.Random(seed)
    found = Kills()
    complete(folder / "whole", rows)
    whole = contents(folder / "whole")
    while found.kills < kills:
        run, told = folder / f"run{found.rounds}", folder / f"told{found.rounds}"

        def start(index: int, run: Path = run, told: Path = told) -> subprocess.Popen[bytes]:
            shard = f"{index}/{launches}"
            command = [sys.executable, "-m", "torture", str(run), rows.name, str(told), "1", shard]
            return subprocess.Popen(command, cwd=Path(__file__).parent)

        lives = [start(index) for index in range(launches)]
        while any(life.poll() is None for life in lives):
            time.sleep(draw.uniform(0.5, 2.5))
            index = draw.randrange(launches)
            if lives[index].poll() is None and found.kills < kills:
                lives[index].kill()
                lives[index].wait()
                found.kills += 1
                lives[index] = start(index)
        assert [life.returncode for life in lives] == [0] * launches
        acknowledged = {int(word) for word in told.read_text().split()}
        on_disk = positions_in(run)
        found.acknowledged += len(acknowledged)
        found.lost += len(acknowledged - set(on_disk))
        found.repeated += len(on_disk) - len(set(on_disk))
        found.differing += contents(run) != whole
        found.rounds += 1
    return found


def share(folder: Path, rows: Rows, shard: Shard, *, report: Callable[[list[Any]], None]) -> None:
    """One of several launches of a run, as `ladm score --shard` does it; a lost one is taken over after a second."""
    with locked(folder, shared=True):
        run = Run.create_or_resume(folder, identity(rows))
        with SharedUnits(run, shard, lease_seconds=1.0) as source:
            run_units(job_of(run, rows, source, report=report))
            source.finish(partial(finish, run), lambda: run.is_finished)


def main() -> None:
    """The child of `kill_again_and_again` and of `kill_sharers`."""
    run, rows, told, workers, *shard = sys.argv[1:]
    descriptor = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def report(records: list[Any]) -> None:
        os.write(descriptor, "".join(f"{record.position} " for record in records).encode())

    if shard:
        share(Path(run), open_rows(rows), parse_shard(shard[0]), report=report)
    else:
        complete(Path(run), open_rows(rows), workers=int(workers), report=report)


class Stopped(BaseException):
    """Stands for the process ending here."""


OPERATIONS = ("write", "fsync", "rename", "replace", "link", "unlink", "ftruncate")


@contextlib.contextmanager
def disk_operations(act: Callable[[int, Callable[[], Any]], Any]) -> Iterator[dict[str, int]]:
    """Have `act` do, or not do, each disk operation: it is given its number and a call that does it."""
    counter = {"calls": 0}
    guard = threading.Lock()
    real = {name: getattr(os, name) for name in OPERATIONS}

    def wrap(operation: Any) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            with guard:
                number = counter["calls"]
                counter["calls"] += 1
            return act(number, lambda: operation(*arguments, **named))

        return counted

    for name in OPERATIONS:
        setattr(os, name, wrap(real[name]))
    try:
        yield counter
    finally:
        for name in OPERATIONS:
            setattr(os, name, real[name])


def stop_at(n: int, *, after: bool) -> contextlib.AbstractContextManager[dict[str, int]]:
    """Let the n-th disk operation be the last, done or not; every later one fails too, as after a death."""

    def act(number: int, do: Callable[[], Any]) -> Any:
        if number < n:
            return do()
        if number == n and after:
            do()
        raise Stopped

    return disk_operations(act)


def fail_at(n: int, *, for_ever: bool) -> contextlib.AbstractContextManager[dict[str, int]]:
    """Let the n-th disk operation find the disk full, and with `for_ever` all later ones too."""

    def act(number: int, do: Callable[[], Any]) -> Any:
        if number == n or (for_ever and number > n):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return do()

    return disk_operations(act)


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

    Whatever could not be done is told as a StorageError. Returns how many failures were tried.
    """
    complete(folder / "whole", rows)

    def interrupted(n: int, run: Path, *, for_ever: bool) -> dict[str, int]:
        with fail_at(n, for_ever=for_ever) as counter, contextlib.suppress(StorageError):
            complete(run, rows)
            assert contents(run) == contents(folder / "whole"), f"operation {n} failed unheard, {for_ever=}"
        return counter

    return sum(at_every_operation(folder, rows, partial(interrupted, for_ever=for_ever)) for for_ever in (False, True))


def every_crash_point(folder: Path, rows: Rows) -> int:
    """Stop before and after each disk operation; the next start ends with the same bytes. Returns how many points."""
    complete(folder / "whole", rows)

    def interrupted(n: int, run: Path, *, after: bool) -> dict[str, int]:
        with stop_at(n, after=after) as counter, contextlib.suppress(Stopped):
            complete(run, rows)
        return counter

    return sum(at_every_operation(folder, rows, partial(interrupted, after=after)) for after in (False, True))


def kill_workers(folder: Path, rows: Rows, *, kills: int, workers: int, seed: int) -> int:
    """Kill a random worker of a run again and again; the bytes at the end are the same. Returns the kills."""
    complete(folder / "whole", rows)
    draw = random.Random(seed)
    done, over, scored = 0, threading.Event(), threading.Event()
    born: dict[int | None, float] = {}

    def kill() -> None:
        nonlocal done
        while done < kills and not over.wait(draw.uniform(0.02, 0.2)):
            # A row in between, and no worker that may still be starting: dying so again and again ends a run.
            if not scored.wait(0.1):
                continue
            now = time.monotonic()
            living = [process for process in multiprocessing.active_children() if process.name.startswith("ladm ")]
            for process in living:
                born.setdefault(process.pid, now)
            grown = [process for process in living if now - born[process.pid] > START_SECONDS]
            if grown:
                scored.clear()
                draw.choice(grown).kill()
                done += 1

    def report(_: list[Any]) -> None:
        scored.set()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        complete(folder / "run", rows, make_scorer=fakes.make_slow, workers=workers, report=report)
    finally:
        over.set()
        killer.join()
    assert contents(folder / "run") == contents(folder / "whole")
    return done


def race_for_the_lock(folder: Path, *, processes: int, races: int) -> int:
    """So many processes ask for one folder at once: one has it, the others are told who. Returns the races."""
    context = multiprocessing.get_context("fork")
    for race in range(races):
        barrier, answers, run = context.Barrier(processes), context.Queue(), folder / f"run{race % 2}"
        racers = [context.Process(target=_ask_for_lock, args=(run, barrier, answers)) for _ in range(processes)]
        for racer in racers:
            racer.start()
        heard = [answers.get(timeout=60) for _ in racers]
        for racer in racers:
            racer.join()
        assert heard.count("mine") == 1, heard
        assert all(answer == "mine" or "is in use by " in answer for answer in heard), heard
        with locked(run):
            pass
    return races


def _ask_for_lock(run: Path, barrier: Any, answers: Any) -> None:
    barrier.wait()
    try:
        with locked(run):
            barrier.wait()
            answers.put("mine")
    except LockedError as error:
        barrier.wait()
        answers.put(str(error))


if __name__ == "__main__":
    main()
