"""A command's output folder: empty, or its own and started with the same things. Imports no torch.

Every command that can be resumed follows the same three steps: refuse a folder that holds something else, write down
once what the work is started with, and compare on every later start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ladm.errors import LadmError, StorageError
from ladm.storage.files import create_once, io_errors, remove_abandoned, sync_folder
from ladm.storage.holder_names import HOLDER_FILES
from ladm.storage.identity import CHANGED_REMEDY, require_same
from ladm.storage.json_object import json_with_checksum, parse_json_object, read_json_object

LOCK_FILES = rf"\.lock|{HOLDER_FILES.pattern}"
"""What a lock leaves, for the pattern of leftovers."""


class OutputFolder:
    """The folder `path`, which belongs to a command as soon as the file `record` is in it.

    `leftovers` matches the names that a command killed before that may leave. `remedy` ends the message
    about a folder of somebody else, `changed_remedy` that about work that was started with something else, in which
    `name_of_field` gives the fields that differ as flags.
    """

    def __init__(
        self,
        path: Path,
        *,
        record: str,
        leftovers: str,
        remedy: str = "give --output an empty folder",
        name_of_field: Callable[[str], str] | None = None,
        changed_remedy: str | Callable[[tuple[str, ...]], str] = CHANGED_REMEDY,
    ) -> None:
        self.path = path
        self.record = path / record
        self._leftovers = re.compile(leftovers)
        self._remedy = remedy
        self._name_of_field, self._changed_remedy = name_of_field, changed_remedy

    @property
    def is_started(self) -> bool:
        return self.record.is_file()

    def require_own_or_empty(self) -> None:
        """Raise LadmError when the folder holds anything but this command's work; nothing is written before.

        Raises StorageError when it could not be created or written to.
        """
        with io_errors(self.path, "use"):
            # Of a folder that does not exist the nearest existing parent decides whether it can be created.
            nearest = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
            if nearest != self.path or self.path.is_dir():
                _require_writable(nearest, self.path)
            if nearest != self.path:
                return
            if not self.path.is_dir():
                raise LadmError(f"{self.path} is a file; give --output a folder")
            if self.is_started:
                return
            others = sorted(name for name in os.listdir(self.path) if not self._leftovers.fullmatch(name))
        if others:
            raise LadmError(f"{self.path} belongs to something else (it holds {others[0]}); {self._remedy}")

    def start(self, identity: Mapping[str, Any]) -> bool:
        """Write down what the work is started with and return True; or, where that exists already, compare.

        `about`, which is for people, is not compared. Raises LadmError with every field that differs.
        """
        if self.claim(json_with_checksum(identity)):
            return True
        self.require_same(identity)
        return False

    def require_same(self, identity: Mapping[str, Any]) -> None:
        """Compare with what the work was started with. Raises LadmError with every field that differs."""
        # Compared as JSON gives it back: a tuple is a list there.
        now = parse_json_object(json_with_checksum(identity), path=self.record)
        require_same(
            self.path, self.started_with(), now, name_of_field=self._name_of_field, remedy=self._changed_remedy
        )

    def claim(self, content: bytes) -> bool:
        """Create the folder and the record. False where there is a record already."""
        with io_errors(self.path, "create"):
            folder = self.record.parent
            new = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            # The record's own name is made durable by `create_once`, those of the folders above it only here.
            sync_folder(self.path)
            for path in new:
                # A folder may allow new names without allowing that they are listed.
                with suppress(PermissionError):
                    sync_folder(path.parent)
        remove_abandoned(self.record)
        return create_once(self.record, content)

    def started_with(self) -> dict[str, Any]:
        """What the work was started with. Raises StorageError for a damaged record."""
        return read_json_object(self.record)


def _require_writable(nearest: Path, folder: Path) -> None:
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        action = "write to" if nearest == folder else "create"
        raise StorageError(f"cannot {action} {folder}: {nearest} is not a writable folder")
