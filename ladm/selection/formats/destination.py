"""Where a subset goes: a folder of this machine, or an address such as s3://bucket/subset. Imports no torch.

A subset is written into a staging folder and is at its destination whole or not at all, as far as the destination
allows: a folder is renamed; for an address see `remote_folder.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import fsspec

from ladm.errors import LadmError, LockedError, StorageError, one_line
from ladm.selection.formats.remote_folder import RemoteFolder
from ladm.selection.manifest import MANIFEST_FILE
from ladm.selection.manifest_file import command_of
from ladm.storage.files import io_errors, sync_folder, sync_tree
from ladm.storage.locks import locked


class Destination(Protocol):
    """A place for a subset."""

    name: str

    def require_free(self, *, unless: str | None = None) -> bool:
        """Raise LadmError where something exists already.

        Returns False; or True where it is a subset that the command `unless` made, which does not raise.
        """

    def read_manifest(self) -> contextlib.AbstractContextManager[BinaryIO]:
        """The manifest of the subset that exists there, opened."""

    def file_names(self) -> set[str]:
        """The names of all files of the subset that exists there, without those of their folders."""

    def work_folder(self) -> contextlib.AbstractContextManager[Path]:
        """A folder of this machine for files that are not part of the subset, removed at the end."""

    def write(self, fill: Callable[[Path], None], *, after: Callable[[Path], None] | None = None) -> None:
        """Write what `fill` puts into the empty folder that it is given; `after` gets a folder that holds it."""


def destination(name: str) -> Destination:
    """The folder or the address of that name. Raises LadmError for an address that nothing here can open."""
    if "://" not in name:
        return LocalFolder(Path(name))
    try:
        system, path = fsspec.url_to_fs(name)
    except (ValueError, ImportError, OSError) as error:
        raise LadmError(f"--output {name}: {one_line(error)}") from None
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    return LocalFolder(Path(path)) if "file" in protocols else RemoteFolder(name, system, path)


def _is_there(path: Path) -> bool:
    """Does it exist? Unlike `Path.exists`, raises OSError where the system refuses to look, with every Python."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


class LocalFolder:
    """A folder of this machine. `replaces`: a subset that is there is replaced when the new one is whole."""

    def __init__(self, path: Path, *, replaces: bool = False) -> None:
        self.path, self.name = path, str(path)
        self._replaces = replaces
        self._prefix = f".{path.name}.ranking-"

    def require_free(self, *, unless: str | None = None) -> bool:
        """Raise LadmError for anything but an empty folder, or a subset that may be replaced or is that of `unless`.

        And for a name onto which no folder can be renamed. Raises StorageError for one that the system refuses.
        """
        with io_errors(self.path, "use"):
            self.tidy()
            if unless is not None and (self.path / MANIFEST_FILE).is_file():
                with self.read_manifest() as file:
                    if command_of(file) == unless:
                        return True
            is_subset = (self.path / MANIFEST_FILE).is_file()
            is_old = self._replaces and is_subset
            is_taken = _is_there(self.path) and (not self.path.is_dir() or any(self.path.iterdir()))
        if is_taken and not is_old:
            replacing = ", or --overwrite to replace the subset" if is_subset else ""
            raise LadmError(f"{self.path} exists already; give another --output{replacing}")
        # "." has no name of its own: the system calls it busy, as it does a mount point.
        is_current = not self.path.name
        if is_current or os.path.ismount(self.path):
            what = "the current folder" if is_current else "a mount point"
            raise LadmError(
                f"{self.path} is {what}, which a finished subset cannot replace; give --output a folder inside it"
            )
        # Of an old subset the link itself is moved away.
        if self.path.is_symlink() and not is_old:
            raise LadmError(
                f"{self.path} is a symbolic link, which a finished subset cannot replace; give --output the folder "
                "that it points to"
            )
        return False

    def read_manifest(self) -> contextlib.AbstractContextManager[BinaryIO]:
        """The manifest of the subset that exists there, opened."""
        return (self.path / MANIFEST_FILE).open("rb")

    def file_names(self) -> set[str]:
        """The names of all files of the subset that exists there, without those of their folders."""
        with io_errors(self.path, "read"):
            return {path.name for path in self.path.rglob("*") if path.is_file()}

    def tidy(self) -> None:
        """Remove what selections into this folder that were killed have left beside it."""
        if self.path.parent.is_dir():
            _remove_abandoned(self.path.parent, self._prefix)

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[Path]:
        """A folder beside the subset."""
        # Rather than in /tmp, which is often small and in memory: a disk with room for the subset has room for its
        # ranking.
        with io_errors(self.path.parent, "write in"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self.path.parent))
        try:
            with locked(work):
                yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def write(self, fill: Callable[[Path], None], *, after: Callable[[Path], None] | None = None) -> None:
        """Fill a folder beside it, and rename that."""
        # In a folder of its own, so that two selections into one place do not mix their files.
        with self.work_folder() as work, io_errors(self.path, "write"):
            partial = work / "subset"
            partial.mkdir()
            fill(partial)
            # The rename is the commit, so everything under the name has to be durable before it.
            sync_tree(partial)
            if self._replaces and self.path.exists():
                # A stop between the two renames leaves no subset, and the same command selects again.
                self.path.rename(work / "replaced")
            self._put_in_place(partial)
            sync_folder(self.path.parent)
        if after is not None:
            after(self.path)

    def _put_in_place(self, partial: Path) -> None:
        """Rename the folder, onto an empty one if there is one. Raises LadmError for one that is not empty by now."""
        try:
            partial.rename(self.path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise LadmError(f"{self.path} exists already: another command wrote it meanwhile") from None


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove the work folders of selections that were killed; that of one that is at work is locked."""
    pattern = re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}")
    for left in parent.iterdir():
        if pattern.fullmatch(left.name) and left.is_dir() and not left.is_symlink():
            with contextlib.suppress(LockedError, StorageError), locked(left):
                shutil.rmtree(left, ignore_errors=True)
