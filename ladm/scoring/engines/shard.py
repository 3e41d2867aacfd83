"""A run folder that several launches share -> the units that this one may work on: claims with leases. No torch.

A claim is a file that only one launch can create. Its holder touches it again and again; one that nobody touches for a
lease is taken over by the next generation. Clocks of other machines are not trusted: what counts is for how long this
launch has seen no change. Nothing is lost if a holder comes back: each generation writes a file of its own, and the
first to seal a unit wins.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ladm.errors import UsageError
from ladm.runs.claims import CLAIM
from ladm.runs.folder import Run
from ladm.scoring.engines.units import Assignment
from ladm.storage.files import create_once, io_errors

LEASE_SECONDS = 120.0
TOUCHES_A_LEASE = 8
_SEALED = re.compile(r"(\d{6,})\.jsonl")
FINISHING = ".finishing"


@dataclass(frozen=True)
class Shard:
    """This launch is number `index` of `count` that share a run."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(f"--shard {self.index}/{self.count}: the first is 0/{self.count}")


def parse_shard(text: str) -> Shard:
    """`2/8` -> the third of eight. Raises UsageError for anything else."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None:
        raise UsageError(f"--shard {text!r} is not a number and a count such as 0/8")
    return Shard(int(found[1]), int(found[2]))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this launch stands: its shard, and which of its machine's devices is meant for it (None: all)."""

    shard: Shard
    rank: int | None = None


def place_of(environment: Mapping[str, str]) -> Place | None:
    """The place among the tasks of a Slurm array, of a Slurm step or of torchrun, or of an array and one of the others.

    None where a launch is alone. A task of an array shares even where it is the only one just now,
    such as one that is submitted again.
    """
    index, count, rank = 0, 1, None
    number = environment.get
    array = number("SLURM_ARRAY_TASK_ID", "").isdecimal()
    if array:
        tasks = max(_whole(number("SLURM_ARRAY_TASK_COUNT"), 1), 1)
        step = max(_whole(number("SLURM_ARRAY_TASK_STEP"), 1), 1)
        index = (int(environment["SLURM_ARRAY_TASK_ID"]) - _whole(number("SLURM_ARRAY_TASK_MIN"), 0)) // step % tasks
        count = tasks
    for place, of, on_machine, only_with in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK", "WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_ID"),
    ):
        # A batch script outside of a step has the variables of a task, and is none.
        if only_with in environment and number(of, "1").isdecimal() and int(number(of, "1")) > 1:
            index, count = index * int(environment[of]) + _whole(number(place), 0), count * int(environment[of])
            rank = int(environment[on_machine]) if number(on_machine, "").isdecimal() else None
            break
    return Place(shard=Shard(index, count), rank=rank) if array or count > 1 else None


def _whole(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isdecimal() else otherwise


class SharedUnits:
    """The unsealed units of a shared run, one claimed at a time, beginning at this shard's own part.

    Use as a context: within it a thread keeps the claims fresh; leaving it gives them back.
    """

    def __init__(self, run: Run, shard: Shard, *, lease_seconds: float = LEASE_SECONDS) -> None:
        units = run.units
        first = len(units) * shard.index // shard.count
        self._order = units[first:] + units[:first]
        self._run, self._shard, self._lease_seconds = run, shard, lease_seconds
        self._mine: dict[int, Path] = {}
        self._seen: dict[str, tuple[int, float]] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, daemon=True)

    def __enter__(self) -> SharedUnits:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for path in self._mine.values():
            with contextlib.suppress(OSError):
                path.unlink()

    def take(self) -> Assignment | None:
        """Claim the next unit that is neither sealed nor in living hands; None when there is none just now."""
        sealed, claims = self._look()
        for unit in self._order:
            if unit.number in sealed or unit.number in self._mine:
                continue
            held = claims.get(unit.number)
            if held is not None and not self._is_stale(self._run.claim_path(unit, held)):
                continue
            generation = 0 if held is None else held + 1
            path = self._run.claim_path(unit, generation)
            if create_once(path, self._label()):
                if self._run.sealed_path(unit).exists():
                    path.unlink(missing_ok=True)
                    continue
                with self._guard:
                    self._mine[unit.number] = path
                return Assignment(unit=unit, generation=generation, holder=_holder(generation))
        return None

    def again(self, assignment: Assignment) -> Assignment | None:
        """The same unit in the next generation, for when its worker was lost and may be alive after all.

        None when another launch has taken the unit over.
        """
        unit, generation = assignment.unit, assignment.generation + 1
        path = self._run.claim_path(unit, generation)
        claimed = create_once(path, self._label())
        with self._guard:
            self._mine.pop(unit.number, None)
            if claimed:
                self._mine[unit.number] = path
        return replace(assignment, generation=generation, holder=_holder(generation)) if claimed else None

    def finished(self) -> bool:
        """Is every unit sealed, whoever did it?"""
        sealed, _ = self._look()
        return len(sealed) == len(self._order)

    def sealed(self, assignment: Assignment) -> None:
        """Take away what is left of a sealed unit: every claim on it, and what earlier holders wrote."""
        unit = assignment.unit
        with self._guard:
            self._mine.pop(unit.number, None)
        claims = [self._run.claim_path(unit, generation) for generation in range(assignment.generation + 1)]
        for path in (*claims, *(self._run.folder / "units").glob(f"{unit.number:06d}.open*")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def finish(self, write: Callable[[], None], is_finished: Callable[[], bool]) -> None:
        """Have the results written by one launch alone, and wait until they are there, whoever it is."""
        generation = 0
        while not is_finished():
            path = self._run.folder / f"{FINISHING}-{generation}"
            if create_once(path, self._label()):
                with self._guard:
                    self._mine[-1] = path
                write()
                with self._guard:
                    del self._mine[-1]
                for left in range(generation + 1):
                    (self._run.folder / f"{FINISHING}-{left}").unlink(missing_ok=True)
            elif self._is_stale(path):
                generation += 1
            else:
                time.sleep(self._lease_seconds / 100)

    def _look(self) -> tuple[set[int], dict[int, int]]:
        """Numbers of the sealed units, and the newest generation of claim on each of the others."""
        folder = self._run.folder / "units"
        with io_errors(folder, "list"):
            names = os.listdir(folder)
        known = {unit.number for unit in self._order}
        sealed = {int(found[1]) for name in names if (found := _SEALED.fullmatch(name))} & known
        claims: dict[int, int] = {}
        for name in names:
            found = CLAIM.fullmatch(name)
            if found is not None:
                number = int(found[1])
                claims[number] = max(claims.get(number, 0), int(found[2]))
        return sealed, claims

    def _is_stale(self, path: Path) -> bool:
        try:
            touched = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        before = self._seen.get(path.name)
        if before is None or before[0] != touched:
            self._seen[path.name] = (touched, now)
            return False
        return now - before[1] > self._lease_seconds

    def _keep_fresh(self) -> None:
        while not self._stop.wait(self._lease_seconds / TOUCHES_A_LEASE):
            with self._guard:
                paths = list(self._mine.values())
            for path in paths:
                with contextlib.suppress(OSError):
                    os.utime(path)

    def _label(self) -> bytes:
        who = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "shard": f"{self._shard.index}/{self._shard.count}",
        }
        return json.dumps(who).encode() + b"\n"


def _holder(generation: int) -> str:
    return f"{generation}-{uuid.uuid4().hex[:12]}"
