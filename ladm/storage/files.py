"""Bytes -> files that are complete or absent after any crash: the only module that writes into a run folder.

A finished file is written under a temporary name, fsynced, renamed, and its folder fsynced. The order matters: a
rename before the fsync could survive a power loss that the content does not, and a rename without the folder's fsync
may be undone by one.
Every OSError leaves as a StorageError that names the path.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from ladm.errors import StorageError, UsageError

PARTIAL_SUFFIX = ".partial"
OWN_PARTIAL = re.compile(r".+\.[0-9a-f]{32}\.partial")
"""A file that `replacing` or `create_once` had not finished."""
MARKED_BYTES = 1 << 16
"""How much of a file is searched for the mark that says which command wrote it."""


@contextlib.contextmanager
def io_errors(path: Path, action: str) -> Iterator[None]:
    """Turn an OSError into a StorageError that says what could not be done, and with which file."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot {action} {path}: {error.strerror or error}") from error


def arrow_path(path: str | Path) -> str:
    """The path as Arrow and DuckDB take it for a file of this machine, whatever its name.

    They take the relative path `a:b/run` for a URI of the scheme `a`; an absolute path begins with a slash.
    Raises UsageError for a name that is not UTF-8, which none of them can open.
    """
    absolute = str(Path(path).absolute())
    require_utf8(absolute)
    return absolute


def data_set_path(path: str | Path) -> str:
    """`arrow_path` of a folder that `datasets` reads or writes. Raises UsageError for one that it would misread."""
    whole = arrow_path(path)
    # For `datasets`, :: joins an address and one inside of it: it would write to a file in front of the two colons.
    if "::" in whole:
        raise UsageError(
            f"{whole} has :: in it, which the datasets library takes for nested addresses; rename the folder"
        )
    return whole


def require_utf8(name: str) -> None:
    """Raise UsageError for a name that is not UTF-8: to the system it may be any bytes, to Arrow and JSON a text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{name!a} is not UTF-8; rename the file or folder") from None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a file durable that a library or another process has written."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def require_place(path: str | Path | None, *, mark: str) -> None:
    """Raise an error now where a file could not be written later, after hours of work.

    StorageError for a folder that cannot be written to, and for a device or a pipe; UsageError for an existing file
    that has not `mark` near its beginning, and is therefore not one of the same kind.
    """
    if path is None:
        return
    path, parent = Path(path), Path(path).absolute().parent
    if path.is_dir():
        raise StorageError(f"cannot write {path}: it is a folder")
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise StorageError(f"cannot write {path}: {parent} is not a writable folder")
    if path.exists():
        # To read a pipe would wait for ever, and a file would take the place of a device such as /dev/null.
        if not path.is_file() or parent == Path("/dev"):
            raise StorageError(f"cannot write {path}: it is not a regular file; give another --output")
        with io_errors(path, "read"), path.open("rb") as file:
            front = file.read(MARKED_BYTES)
        if front and mark.encode() not in front:
            raise UsageError(f"--output {path} exists already and was not written by this command; give another")
    remove_abandoned(path)


def sync_tree(folder: Path) -> None:
    """Make everything below a folder durable."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sync_file(path)
        else:
            sync_folder(path)
    sync_folder(folder)


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Write the concatenated `chunks` to `path`, all or nothing, replacing an existing file."""
    with io_errors(path, "write"), replacing(path) as partial, partial.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on a clean exit it is fsynced and replaces `path`."""
    partial = _partial_of(path)
    with _marked_as_in_use(partial):
        try:
            yield partial
        except Exception:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        sync_file(partial)
        os.replace(partial, path)
    sync_folder(path.parent)


def _partial_of(path: Path) -> Path:
    # Random, because launches that share a folder may write the same file at once; in the same folder, because a rename
    # is atomic only within one file system.
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")


@contextlib.contextmanager
def _marked_as_in_use(partial: Path) -> Iterator[None]:
    """Create a temporary file and hold a lock on it, which the kernel releases when this process ends, however."""
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        # A file system without locks: then nothing is ever taken for abandoned there.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def remove_abandoned(path: Path) -> None:
    """Remove what killed processes left half written of `path`; what another process is writing now stays."""
    _remove_abandoned(path.parent, f"{glob.escape(path.name)}.*{PARTIAL_SUFFIX}")


def remove_all_abandoned(folder: Path) -> None:
    """`remove_abandoned` for every file of a folder."""
    _remove_abandoned(folder, f"*{PARTIAL_SUFFIX}")


def _remove_abandoned(folder: Path, pattern: str) -> None:
    for left in folder.glob(pattern):
        if not OWN_PARTIAL.fullmatch(left.name) or left.is_symlink():
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(left, os.O_WRONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def create_once(path: Path, content: bytes) -> bool:
    """Create `path` complete, or return False because it exists already. Safe against other processes.

    A link instead of a rename, because it fails where the name is taken: of several processes one wins.
    """
    partial = _partial_of(path)
    with io_errors(path, "create"):
        try:
            with _marked_as_in_use(partial), partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.link(partial, path)
        except FileExistsError:
            # NFS may repeat a request whose answer was lost, and then reports our own link as somebody else's.
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
        with io_errors(path, "open"), contextlib.ExitStack() as undo:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
            undo.callback(self.close)
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, size, os.SEEK_SET)
            # The rows found here count as done from now on, and whoever wrote them may have died before its fsync.
            os.fsync(self._descriptor)
            # The same for the name of a file that existed already.
            sync_folder(path.parent)
            undo.pop_all()

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
        # Best effort: the next reader trusts only whole lines, and cuts a tail that stays.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)

    def close(self) -> None:
        os.close(self._descriptor)
