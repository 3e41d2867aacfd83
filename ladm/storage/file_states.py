"""Paths -> the states of their files, which differ once a file was written to; no file is read. Imports no torch."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from ladm.errors import StorageError
from ladm.storage.gone import is_gone

FileStates = dict[str, tuple[int, int, int, int]]
"""Inode, size, and the times of modification and of change in nanoseconds, of files by path."""

TRIES = 3
SECONDS_BETWEEN_TRIES = 1.0


def file_states(paths: Iterable[str | Path]) -> FileStates:
    """The states of those files that are there. Raises StorageError where the file system does not answer."""
    found: FileStates = {}
    for path in paths:
        try:
            stat = _stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if is_gone(error):
                continue
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        # The time of change beside that of modification: a copy that keeps the dates sets the one, never the other.
        found[str(path)] = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return found


def _stat(path: str | Path) -> os.stat_result:
    for _ in range(TRIES - 1):
        try:
            return os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError:
            # A file server that does not answer for a moment should not end a run of days.
            time.sleep(SECONDS_BETWEEN_TRIES)
    return os.stat(path)
