"""The processes that work in a folder -> their names, for the messages of others. Imports no torch.

`.holder` is of a process that has the folder alone, `.holder-5f3c..` of each launch that shares it. A process locks its
file and removes it at its end. What a killed one leaves is recognised by the lock that is gone, and removed by the next
process that works there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from ladm.storage.files import io_errors

HOLDER_FILE = ".holder"
OLD_SECONDS = 7 * 24 * 3600.0
HOLDER_FILES = re.compile(r"\.holder(-[0-9a-f]{32})?")


@contextlib.contextmanager
def leave_name(folder: Path, *, shared: bool) -> Iterator[None]:
    """Write the name of this process into the folder, whose lock it holds, and remove it when the block ends.

    Raises StorageError where it cannot be written.
    """
    _remove_abandoned(folder)
    path = folder / (f"{HOLDER_FILE}-{uuid.uuid4().hex}" if shared else HOLDER_FILE)
    with io_errors(folder, "write to"):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        with io_errors(folder, "write to"):
            if _is_lockable(descriptor):
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            else:
                # On a file system without locks nobody could distinguish it from what a killed launch has left, and the
                # names of those would add up. The claims on units name the launches there.
                path.unlink(missing_ok=True)
        yield
    finally:
        try:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def holder_name(folder: Path) -> str:
    """The process that works in the folder, or else one that may; empty where none has left its name."""
    possible = ""
    for path in _files(folder):
        # ValueError: a name that is no UTF-8.
        with contextlib.suppress(OSError, ValueError):
            name = path.read_text(encoding="utf-8").strip()
            if name and _is_locked(path):
                return name
            # The locks of another machine may not be seen here, and earlier versions did not lock `.holder`.
            if path.name == HOLDER_FILE or not is_of_this_machine(name):
                possible = possible or name
    return possible


def is_of_this_machine(name: str) -> bool:
    """Is this the name of a process of this machine?"""
    return name.endswith(f" on {socket.gethostname()}")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{HOLDER_FILE}*") if HOLDER_FILES.fullmatch(path.name))


def _remove_abandoned(folder: Path) -> None:
    """Remove the names of processes that were killed."""
    for path in _files(folder):
        # ValueError: a name that is no UTF-8.
        with contextlib.suppress(OSError, ValueError):
            # The locks of another machine may not be seen here; what was killed there goes when it is old.
            name = path.read_text(encoding="utf-8").strip()
            is_old = time.time() - path.stat().st_mtime > OLD_SECONDS
            # One that is written at this very moment may be among them: that launch then has no name, and no harm.
            if not path.is_symlink() and not _is_locked(path) and (not name or is_of_this_machine(name) or is_old):
                path.unlink(missing_ok=True)


def _is_lockable(descriptor: int) -> bool:
    """Lock an open file for as long as it is open. False where that is not possible."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    """Is the process alive that has written its name? Raises OSError where the file cannot be read."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
