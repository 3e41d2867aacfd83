"""A subset at an address such as s3://bucket/subset, behind fsspec. Imports no torch.

Such a store cannot rename a folder: `manifest.json` arrives last, and nothing without it is a subset.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ladm.errors import LadmError, StorageError, library_errors
from ladm.selection.manifest import MANIFEST_FILE
from ladm.selection.manifest_file import command_of
from ladm.storage.temporary import temporary_folder

UPLOADING = ".ladm-uploading.json"
"""The names of the files of an upload that is not finished."""


class RemoteFolder:
    """A folder of a store behind fsspec; a `Destination`."""

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
                raise LadmError(f"{self.name} exists already; give another --output")
            found = self._system.find(self._path) if self._system.exists(self._path) else []
        own = {f"{self._path}/{name}" for name in (UPLOADING, *self._unfinished())}
        others = sorted(path for path in map(str, found) if path not in own)
        if others:
            raise LadmError(f"{self.name} exists already (it holds {others[0]}); give another --output")
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

    def _errors(self, action: str) -> contextlib.AbstractContextManager[None]:
        # Each store behind fsspec raises exceptions of its own.
        return library_errors(self.name, action)
