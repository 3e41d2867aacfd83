"""Bytes -> files that are whole or absent after any crash: the only module that writes into a run folder.

A finished file is written beside its place, fsynced, renamed, and its folder fsynced.
Every OSError leaves as a StorageError that names the path.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from ladm.errors import StorageError, UsageError

PARTIAL_SUFFIX = ".partial"
OWN_PARTIAL = re.compile(r".+\.[0-9a-f]{32}\.partial")
"""A file that `replacing` or `create_once` was still writing."""
SORTING = re.compile(r"\.sorting-[a-z0-9_]{8}")
MARKED_BYTES = 1 << 16
SORTING_PREFIX = ".sorting-"
"""Of a throw-away folder for a sort."""


@contextlib.contextmanager
def io_errors(path: Path, action: str) -> Iterator[None]:
    """Turn an OSError into a StorageError that says what could not be done, and to which file."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot {action} {path}: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a file durable that somebody else has written."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def require_place(path: str | Path | None, *, mark: str) -> None:
    """Raise an error now where a file could not be written later, after hours of work.

    StorageError where its folder does not let it, UsageError where a file is there that is not one of
    the same kind, which has `mark` near its beginning.
    """
    if path is None:
        return
    path, parent = Path(path), Path(path).absolute().parent
    if path.is_dir():
        raise StorageError(f"cannot write {path}: it is a folder")
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise StorageError(f"cannot write {path}: {parent} is not a folder that can be written to")
    if path.exists():
        with io_errors(path, "read"), path.open("rb") as file:
            front = file.read(MARKED_BYTES)
        if front and mark.encode() not in front:
            raise UsageError(f"--output {path} is there already and is no file of this command; give another")


def sync_tree(folder: Path) -> None:
    """Make everything durable that others have written below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sync_file(path)
        else:
            sync_folder(path)
    sync_folder(folder)


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Put the concatenated `chunks` at `path`, all or nothing, replacing what is there."""
    with io_errors(path, "write"), replacing(path) as partial, partial.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A partial path of one's own to write to; on a clean exit it is fsynced and takes the place of `path`."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
    try:
        yield partial
    except Exception:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_file(partial)
    os.replace(partial, path)
    sync_folder(path.parent)


def create_once(path: Path, content: bytes) -> bool:
    """Create `path` whole, or return False because it exists already. Safe against other processes."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
    with io_errors(path, "create"):
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(partial, path)
        except FileExistsError:
            # A network file system may say so of a link of ours that it made, when it was asked twice.
            if partial.stat().st_nlink != 2:
                return False
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)
    return True


class Appender:
    """A file that grows by whole blocks: after a failed `append` it is cut back to the last good one.

    `size` is the number of durable bytes.
    """

    def __init__(self, path: Path, *, size: int) -> None:
        self.path = path
        self.size = size
        with io_errors(path, "open"):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, size, os.SEEK_SET)
            # What is trusted must be durable: whoever wrote it may have been stopped before it was.
            os.fsync(self._descriptor)
            # Also of a file that is there: who made it may have been stopped before its name was durable.
            sync_folder(path.parent)

    def append(self, block: bytes) -> None:
        """Write one block and make it durable."""
        try:
            self._write(block)
        except OSError as error:
            self._cut_back()
            raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from error
        except BaseException:
            self._cut_back()
            raise
        self.size += len(block)

    def _write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fsync(self._descriptor)

    def _cut_back(self) -> None:
        # Best effort: a tail that stays is cut by the next reader, which trusts only whole lines.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)

    def close(self) -> None:
        os.close(self._descriptor)
