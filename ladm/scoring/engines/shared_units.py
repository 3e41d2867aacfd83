"""A run folder that several launches share -> the units that this launch may score: claims with leases. No torch.

A claim is a file that only one launch can create. Its holder updates the file's time regularly; a claim that nobody
updates for a lease is taken over by the next generation. Clocks of other machines are not trusted: what counts is for
how long this launch has seen no change. Nothing is lost if a holder comes back, because each generation writes a file
of its own, and the first to seal a unit wins.

    launch A claims unit 7      000007.claim-0, writes 000007.open-0-5f3c
    launch A is paused; B sees no change of claim-0 for a lease
    launch B claims it again    000007.claim-1, copies A's rows to 000007.open-1-9a20 and goes on
    launch A wakes up           appends to its own file, which nobody reads any more
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ladm.errors import StorageError
from ladm.runs.folder import Run
from ladm.runs.layout import CLAIM, FINISHING, SEALED_UNIT, UNITS
from ladm.scoring.engines.assignments import Assignment
from ladm.scoring.engines.placement import Shard
from ladm.storage.files import create_once, io_errors
from ladm.storage.gone import is_gone

LEASE_SECONDS = 120.0
UPDATES_A_LEASE = 8


class SharedUnits:
    """The unsealed units of a shared run, one claimed at a time, starting at this shard's own part.

    Use as a context: inside it a thread renews the claims; leaving it releases them.
    """

    def __init__(self, run: Run, shard: Shard, *, lease_seconds: float = LEASE_SECONDS) -> None:
        units = run.units
        # Each shard starts elsewhere, so that launches seldom try to claim the same unit; at its end each helps others.
        first = len(units) * shard.index // shard.count
        self._order = units[first:] + units[:first]
        self._run, self._shard, self._lease_seconds = run, shard, lease_seconds
        self._mine: dict[int, Path] = {}
        self._seen: dict[str, tuple[int, float]] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> SharedUnits:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        # Released, so that others need not wait for a lease to take over what this launch leaves unfinished.
        for path in self._mine.values():
            with contextlib.suppress(OSError):
                path.unlink()

    def take(self) -> Assignment | None:
        """Claim the next unit that is neither sealed nor under a live lease; None when there is none at the moment."""
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
                # Sealed since the folder was listed: whoever did it has removed its claim, so the name was free again.
                if self._run.sealed_path(unit).exists():
                    path.unlink(missing_ok=True)
                    continue
                with self._guard:
                    self._mine[unit.number] = path
                return Assignment(unit=unit, generation=generation, holder=_holder(generation))
        return None

    def again(self, assignment: Assignment) -> Assignment | None:
        """The same unit in the next generation, for a worker that was lost and may be alive after all.

        None where another launch has taken the unit over.
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
        """Is every unit sealed, by whichever launch?"""
        sealed, _ = self._look()
        return len(sealed) == len(self._order)

    def sealed(self, assignment: Assignment) -> None:
        """Remove what is left of a sealed unit: every claim on it, and what earlier holders wrote."""
        unit = assignment.unit
        with self._guard:
            self._mine.pop(unit.number, None)
        claims = [self._run.claim_path(unit, generation) for generation in range(assignment.generation + 1)]
        for path in (*claims, *(self._run.folder / UNITS).glob(f"{unit.number:06d}.open*")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def finish(self, write: Callable[[], None], is_finished: Callable[[], bool]) -> None:
        """Write the results, or wait until the launch that does it has finished; a lost one is replaced."""
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
        folder = self._run.folder / UNITS
        with io_errors(folder, "list"):
            names = os.listdir(folder)
        known = {unit.number for unit in self._order}
        sealed = {int(found[1]) for name in names if (found := SEALED_UNIT.fullmatch(name))} & known
        claims: dict[int, int] = {}
        for name in names:
            found = CLAIM.fullmatch(name)
            if found is not None:
                number = int(found[1])
                claims[number] = max(claims.get(number, 0), int(found[2]))
        return sealed, claims

    def _is_stale(self, path: Path) -> bool:
        try:
            changed = path.stat().st_mtime_ns
        except OSError as error:
            if is_gone(error):
                return False
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        now = time.monotonic()
        # A change of the time is compared, never the time itself: it is the file server's or another machine's.
        before = self._seen.get(path.name)
        if before is None or before[0] != changed:
            self._seen[path.name] = (changed, now)
            return False
        return now - before[1] > self._lease_seconds

    def _renew(self) -> None:
        while not self._stop.wait(self._lease_seconds / UPDATES_A_LEASE):
            with self._guard:
                paths = list(self._mine.values())
            for path in paths:
                with contextlib.suppress(OSError):
                    os.utime(path)

    def _label(self) -> bytes:
        label = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "shard": f"{self._shard.index}/{self._shard.count}",
        }
        return json.dumps(label).encode() + b"\n"


def _holder(generation: int) -> str:
    # Random as well, because a claim that was released may be made again in the same generation.
    return f"{generation}-{uuid.uuid4().hex[:12]}"
