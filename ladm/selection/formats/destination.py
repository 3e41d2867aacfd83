"""Where a subset goes: a folder of this machine, or an address such as s3://bucket/subset. Imports no torch.

A subset is written into a staging folder and is at its destination whole or not at all, as far as the destination
allows: a folder is renamed; of an address `manifest.json` arrives last, and nothing without it is a subset.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import fsspec

from ladm.errors import LadmError, LockedError, StorageError, one_line, raise_if_out_of_memory
from ladm.selection.manifest import MANIFEST_FILE
from ladm.selection.manifest_file import command_of
from ladm.storage.files import io_errors, sync_folder, sync_tree
from ladm.storage.locks import locked
from ladm.storage.temporary import temporary_folder

UPLOADING = ".ladm-uploading.json"
"""The names of the files of an upload that is not finished."""


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
            is_old = self._replaces and (self.path / MANIFEST_FILE).is_file()
            is_taken = self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))
        if is_taken and not is_old:
            raise LadmError(f"{self.path} exists already; give --output another folder")
        # "." has no name of its own: the system calls it busy, as it does a mount point.
        is_current = not self.path.name
        if is_current or os.path.ismount(self.path):
            what = "the current folder" if is_current else "a mount point"
            raise LadmError(
                f"{self.path} is {what}, which a finished subset cannot replace; give --output a folder in it"
            )
        # Of an old subset the link itself is moved away.
        if self.path.is_symlink() and not is_old:
            raise LadmError(
                f"{self.path} is a symbolic link, which a finished subset cannot replace; give --output the folder "
                "that it stands for"
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


class RemoteFolder:
    """A folder of a store behind fsspec, which has no rename of folders."""

    def __init__(self, name: str, system: Any, path: str) -> None:
        self.name = name.rstrip("/")
        self._system, self._path = system, path.rstrip("/")

    def require_free(self, *, unless: str | None = None) -> bool:
        """Raise LadmError where another subset is than that of `unless`, or files that no upload of ours lists."""
        with self._errors("read"):
            self._system.invalidate_cache()
            if self._system.exists(f"{self._path}/{MANIFEST_FILE}"):
                with self.read_manifest() as file:
                    if unless is not None and command_of(file) == unless:
                        return True
                raise LadmError(f"{self.name} exists already; give --output another folder")
            found = self._system.find(self._path) if self._system.exists(self._path) else []
        own = {f"{self._path}/{name}" for name in (UPLOADING, *self._unfinished())}
        others = sorted(path for path in map(str, found) if path not in own)
        if others:
            raise LadmError(f"{self.name} exists already (it holds {others[0]}); give --output another folder")
        return False

    @contextlib.contextmanager
    def read_manifest(self) -> Iterator[BinaryIO]:
        """The manifest of the subset that exists there, opened."""
        with self._errors("read"), self._system.open(f"{self._path}/{MANIFEST_FILE}", "rb") as file:
            yield file

    def file_names(self) -> set[str]:
        """The names of all files of the subset that exists there, without those of their folders."""
        with self._errors("read"):
            return {str(path).rpartition("/")[2] for path in self._system.find(self._path)}

    def work_folder(self) -> contextlib.AbstractContextManager[Path]:
        """A folder for temporary files (TMPDIR)."""
        return temporary_folder()

    def write(self, fill: Callable[[Path], None], *, after: Callable[[Path], None] | None = None) -> None:
        """Fill a temporary folder, and upload its files, the manifest last."""
        with self.work_folder() as work:
            staging = work / "subset"
            staging.mkdir()
            try:
                fill(staging)
            except OSError as error:
                reason = error.strerror or error
                raise StorageError(
                    f"cannot write {staging}: {reason}; set TMPDIR to a folder with more room"
                ) from error
            names = sorted(str(path.relative_to(staging)) for path in staging.rglob("*") if path.is_file())
            with self._errors("write"):
                for old in self._unfinished():
                    if self._system.exists(f"{self._path}/{old}"):
                        self._system.rm_file(f"{self._path}/{old}")
                self._system.makedirs(self._path, exist_ok=True)
                self._system.pipe_file(f"{self._path}/{UPLOADING}", json.dumps(names).encode())
                for name in sorted(names, key=lambda name: name == MANIFEST_FILE):
                    place = f"{self._path}/{name}"
                    self._system.makedirs(place.rpartition("/")[0], exist_ok=True)
                    self._system.put_file(str(staging / name), place)
                self._system.rm_file(f"{self._path}/{UPLOADING}")
            if after is not None:
                after(staging)

    def _unfinished(self) -> list[str]:
        """The files of an upload that was stopped."""
        path = f"{self._path}/{UPLOADING}"
        with self._errors("read"):
            if not self._system.exists(path):
                return []
            content = self._system.cat_file(path)
        try:
            return [str(name) for name in json.loads(content)]
        except ValueError:
            # Stopped while that list itself was written: no other file can be there yet.
            return []

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except LadmError:
            raise
        except Exception as error:
            raise_if_out_of_memory(error, action=f"{action} {self.name}")
            # Each store behind fsspec raises exceptions of its own.
            raise StorageError(f"cannot {action} {self.name}: {one_line(error)}") from None
