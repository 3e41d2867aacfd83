"""A process that scores -> a small file that says how far it is; `ladm status` computes the rate from it. No torch.

`RUN/.progress-3` belongs to the launch with shard 3, which removes it when it ends, unless it is killed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ladm.storage.holder_names import holder_name, is_of_this_machine
from ladm.storage.locks import LOCK_FILE

PROGRESS = ".progress-"
WRITE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class LaunchProgress:
    """How far one launch is, in rows that it has scored itself. Times are seconds of a monotonic clock."""

    process: int
    host: str
    start: float
    first_batch: float
    first_rows: int
    latest: float
    rows: int

    @property
    def rows_a_second(self) -> float | None:
        """Since the first batch; with a single batch since the start, so that loading the model counts too."""
        if self.rows > self.first_rows and self.latest > self.first_batch:
            return (self.rows - self.first_rows) / (self.latest - self.first_batch)
        return self.rows / (self.first_batch - self.start) if self.first_batch > self.start else None


class Heartbeat:
    """Writes the file of one launch, at its first batch and then every few seconds."""

    def __init__(self, folder: Path, *, shard: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = folder / f"{PROGRESS}{shard}"
        self._clock = clock
        self._start = clock()
        self._first: tuple[float, int] | None = None
        self._rows, self._written = 0, -math.inf

    def advance(self, rows: int) -> None:
        """Count rows that are durable. A file that cannot be written never stops a run."""
        # The Ray engine makes an empty report at every tick, also before the model is loaded: that is no batch.
        if not rows:
            return
        now = self._clock()
        self._rows += rows
        self._first = self._first or (now, rows)
        if now - self._written < WRITE_SECONDS:
            return
        self._written = now
        progress = LaunchProgress(
            process=os.getpid(), host=socket.gethostname(), start=self._start, first_batch=self._first[0],
            first_rows=self._first[1], latest=now, rows=self._rows,
        )  # fmt: skip
        with contextlib.suppress(OSError):
            self._path.write_text(json.dumps(asdict(progress)), encoding="utf-8")

    def close(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def read_heartbeats(folder: Path) -> list[LaunchProgress]:
    """The progress of every launch that shares the run; a file that is half written or of a killed one is skipped."""
    found = []
    for path in sorted(folder.glob(f"{PROGRESS}*")):
        with contextlib.suppress(OSError, ValueError, TypeError, OverflowError):
            progress = LaunchProgress(**json.loads(path.read_text(encoding="utf-8")))
            if not _has_ended(progress):
                found.append(progress)
    return found


def _has_ended(launch: LaunchProgress) -> bool:
    """Was the launch one of this machine, whose process is gone? A killed one cannot remove its file."""
    if launch.host != socket.gethostname():
        return False
    try:
        # No signal is sent: it only shows whether there is such a process.
        os.kill(launch.process, 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return False


def is_locked(folder: Path) -> bool | None:
    """Is a process of this machine at work in the folder? None where the system does not say.

    Reads the kernel's list of locks: to try the lock would make a command fail that starts at this moment.
    """
    try:
        found = (folder / LOCK_FILE).stat()
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except FileNotFoundError:
        return False if Path("/proc/locks").exists() else None
    except (OSError, ValueError):
        return None
    # Such as `1: FLOCK  ADVISORY  WRITE 708 00:2f:13 0 EOF`: the inode is the last part of the sixth word. A file
    # system of layers shows another device number there than `stat` does, so the inode alone is compared.
    inodes = {
        line.split()[5].rpartition(":")[2] for line in locks.splitlines() if " FLOCK " in line and "->" not in line
    }
    return str(found.st_ino) in inodes


def launch_at_work(folder: Path, *, is_shared: bool = False) -> tuple[bool | None, str | None]:
    """Whether a launch is at work in the folder, and the name of that launch, where it is known.

    The first is None where a launch on another machine may be at work, which cannot be seen from here.
    `is_shared`: does any launch hold a claim there? It may be one on another machine.
    """
    who, is_held = holder_name(folder) or None, is_locked(folder)
    if is_held:
        return True, who
    is_elsewhere = is_shared or (who is not None and not is_of_this_machine(who))
    return (None, who) if is_elsewhere or is_held is None else (False, None)
