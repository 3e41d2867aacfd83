"""A throw-away folder where the system has its temporary files (TMPDIR), removed also after a kill. Imports no torch.

A process that is killed cannot remove its folder, which may hold as much as the columns of a whole run. The next one
that needs such a folder removes it: the folder of a live process is locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ladm.storage.files import io_errors

PREFIX = "ladm-tmp-"
_OWN = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new empty folder, removed at the end. Raises StorageError where none can be made."""
    with io_errors(Path(os.environ.get("TMPDIR", "/tmp")), "make a temporary folder in"):
        place = Path(tempfile.gettempdir())
        _remove_abandoned(place)
        work, descriptor = _make_locked(place)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(descriptor)


def _make_locked(place: Path) -> tuple[Path, int]:
    """A new folder with an open descriptor of it that holds a lock."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        # Until the lock is held, another process may take the folder for an abandoned one and remove it.
        try:
            descriptor = os.open(work, os.O_RDONLY)
        except FileNotFoundError:
            continue
        # A file system without locks: then nothing is ever taken for abandoned there.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if work.exists():
            return work, descriptor
        os.close(descriptor)


def _remove_abandoned(place: Path) -> None:
    """Remove the folders of this user's processes that were killed."""
    for left in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            found = left.lstat()
            if not _OWN.fullmatch(left.name) or not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)
