"""The digests of rows -> a note that later commands believe while no file of the rows changes. Imports no torch.

To compute them reads all ids, and all texts: minutes for each 100 GB, at every start of every launch.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladm.corpus.files.data_set import FILES_OF_A_SAVED_SET
from ladm.corpus.files.other_stages import MANIFEST
from ladm.corpus.rows.identity import PREPARED
from ladm.storage.checksum_list import CHECKSUM_FILE
from ladm.storage.file_states import FileStates, file_states
from ladm.storage.notes import SETTLED_SECONDS, note_of, read_note, write_note

_NOTE = "rows 1"
"""With a number to raise where digests are computed, or compared with what lies beside the rows, in another way."""
SMALLEST_BYTES = 1 << 25
"""Smaller rows are read faster than anybody notices."""


@dataclass(frozen=True, kw_only=True)
class Digests:
    """Those of the first rows of a data set; see `identity.py`."""

    rows: str
    content: str


class KnownDigests:
    """The digests of the first `count` rows of the data set `name`, whose shards are `files`."""

    def __init__(self, name: str, *, count: int, files: FileStates) -> None:
        # Absolute, because the rows may be named from any folder.
        files = {os.path.abspath(file): state for file, state in files.items()}
        folders = {Path(name).absolute(), *(Path(file).parent for file in files)}
        beside = (PREPARED, MANIFEST, CHECKSUM_FILE, *FILES_OF_A_SAVED_SET)
        # What was compared with the digests, and what decides how the shards are read, is part of what must not change.
        self._paths = sorted({*files, *(str(folder / each) for folder in folders for each in beside)})
        is_large = sum(size for _, size, _, _ in files.values()) >= SMALLEST_BYTES
        self._note = note_of(_NOTE, Path(name).absolute(), str(count)) if is_large else None
        self._files = files
        self._states = file_states(self._paths)

    def read(self) -> Digests | None:
        """The digests, where they were computed from these very files."""
        content = None if self._note is None else read_note(self._note)
        if content is None or content.get("files") != _as_json(self._states) or not self._are_open_ones():
            return None
        rows, of_content = content.get("rows"), content.get("content")
        is_whole = isinstance(rows, str) and isinstance(of_content, str)
        return Digests(rows=str(rows), content=str(of_content)) if is_whole else None

    def write(self, digests: Digests) -> Digests:
        """Note the digests, unless a file changed while they were computed, or a moment before; returns them."""
        if self._note is None or file_states(self._paths) != self._states or not self._are_open_ones():
            return digests
        newest = max(changed for _, _, *times in self._states.values() for changed in times)
        if time.time() - newest / 1e9 > SETTLED_SECONDS:
            write_note(self._note, {"files": _as_json(self._states), "rows": digests.rows, "content": digests.content})
        return digests

    def _are_open_ones(self) -> bool:
        """Were the shards that the names led to those that are open?"""
        return all(self._states.get(name) == state for name, state in self._files.items())


def _as_json(states: FileStates) -> dict[str, Any]:
    return {name: list(state) for name, state in states.items()}
