"""A folder locked against other processes, by one run alone or by launches that share it. Imports no torch."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ladm.errors import LockedError, StorageError
from ladm.storage.files import io_errors, remove_all_abandoned
from ladm.storage.holder_names import holder_name, leave_name

LOCK_FILE = ".lock"
WORKERS_FILE = ".workers"
WORKERS_END_SECONDS = 10.0
SORTING_PREFIX = ".sorting-"
"""The name of the temporary folder of a sort begins with it."""
SORTING = re.compile(rf"{re.escape(SORTING_PREFIX)}[a-z0-9_]{{8}}")


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Lock the folder against other runs; with `shared`, against all but those that share it too.

    Raises LockedError at once, naming a holder.
    """
    with io_errors(folder, "create"):
        folder.mkdir(parents=True, exist_ok=True)
    with io_errors(folder / LOCK_FILE, "lock"):
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _flock(descriptor, folder, shared=shared)
    except BaseException:
        os.close(descriptor)
        raise
    try:
        # For the message to others only. The lock itself is the kernel's, so that a stale name blocks nobody.
        with leave_name(folder, shared=shared):
            if not shared:
                _wait_for_workers(folder)
                with io_errors(folder, "write to"):
                    _tidy(folder)
            yield
    finally:
        os.close(descriptor)


def _tidy(folder: Path) -> None:
    """Remove what killed runs left half written."""
    # Not all of them: a report is written without the lock of the folder.
    remove_all_abandoned(folder)
    for left in folder.iterdir():
        if SORTING.fullmatch(left.name):
            shutil.rmtree(left, ignore_errors=True)


def hold_as_worker(folder: Path) -> None:
    """Mark the run folder, for as long as this process lives, as one that a worker may still write to."""
    # The descriptor is never closed on purpose: the kernel releases its lock with the process, however that ends.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder / WORKERS_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _wait_for_workers(folder: Path) -> None:
    """Wait for the workers of a killed supervisor to end: they die with it, unless they hang in a write.

    Raises LockedError when they are still alive after `WORKERS_END_SECONDS`: two writers would mix their rows.
    """
    try:
        descriptor = os.open(folder / WORKERS_FILE, os.O_RDWR)
    except OSError:
        return
    until = time.monotonic() + WORKERS_END_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # The kernel kills the workers of a dead supervisor within milliseconds; a write to NFS may take longer.
                if time.monotonic() > until:
                    raise LockedError(
                        f"{folder} is in use by workers that do not end although their run was killed; find out what "
                        "they hang in"
                    ) from None
                time.sleep(0.05)
            except OSError:
                return
            else:
                return
    finally:
        os.close(descriptor)


def _flock(descriptor: int, folder: Path, *, shared: bool) -> None:
    """Lock the open file for as long as it is open; the kernel releases it when the process ends."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(f"{folder} is in use by {holder_name(folder) or 'another process'}") from None
    except OSError as error:
        # Some cluster file systems have no locks. Launches that share a run have claims; a run alone has nothing else.
        if not shared:
            raise StorageError(
                f"cannot lock {folder / LOCK_FILE}: {error.strerror or error}; use a folder on another file system"
            ) from error
