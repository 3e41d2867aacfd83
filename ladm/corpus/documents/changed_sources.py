"""The files that documents are read from -> an error once one of them was written to meanwhile. Imports no torch.

What rows are made from is recorded before the first document is read, and a large corpus is read for hours: a file that
is still being downloaded, or is written again, would otherwise pass for the one that is recorded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ladm.corpus.documents.sources import Source
from ladm.corpus.files.saved_shards import shards_of
from ladm.errors import LadmError
from ladm.storage.file_states import file_states


class SourceGuard:
    """Compares files of this machine with what they were when the guard was made; addresses are not looked at."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._before = [_states(source) for source in sources]

    def require_unchanged(self, numbers: Iterable[int]) -> None:
        """Raise LadmError where a file of one of these sources was written to. One that is gone has not changed."""
        for number in numbers:
            for path, state in _states(self._sources[number]).items():
                if self._before[number].get(path, state) != state:
                    raise LadmError(
                        f"{path} changed while it was being read; none of its changed rows were stored: restore the "
                        "file and run the same command again, or give another --output for the changed one"
                    )


def _states(source: Source) -> dict[str, tuple[int, int]]:
    """Size and time of modification, as in the key of a source: neither a copy nor a new link is another file."""
    if not source.has_place or source.is_remote:
        return {}
    name = source.name.removeprefix("file://")
    files: list[Path] = []
    if source.kind != "dataset":
        files = [Path(name)]
    elif os.path.isdir(name):
        files = shards_of(Path(name), source.split)
    return {path: (size, changed) for path, (_, size, changed, _) in file_states(files).items()}
