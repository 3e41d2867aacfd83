"""The files that a worker scores from -> an error once one of them has another content. Imports no torch.

Rows are stored only after a check: what a run folder holds was computed from the model and the rows that its identity
names, however the launch ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ladm.scoring.engines.events import InputRecheckStarted
from ladm.storage.file_states import FileStates, file_states


class Fingerprint(Protocol):
    """What files have to hold: `ModelFingerprint` and `RowsFingerprint`."""

    @property
    def label(self) -> str: ...

    @property
    def files(self) -> FileStates: ...

    def require_same(self, changed: Sequence[str]) -> None:
        """Raise LadmError where the files have another content."""
        ...


class InputGuard:
    """Compares the state of files with the last one in which their content was known."""

    def __init__(self, *fingerprints: Fingerprint) -> None:
        self._known = [(each, dict(each.files)) for each in fingerprints]

    def check(self) -> Iterator[InputRecheckStarted]:
        """Raise LadmError where a file was changed; yields an event before files are read, which may take minutes.

        A file that is removed changes nothing for a worker that has opened it.
        """
        for fingerprint, known in self._known:
            now = file_states(known)
            changed = sorted(path for path, state in now.items() if state != known[path])
            if changed:
                name = Path(changed[0]).name
                yield InputRecheckStarted(
                    f"checking  {fingerprint.label} by checksum once more: {name} was touched while it was in use"
                )
                fingerprint.require_same(changed)
                # The state from before the reading: a change during the reading is noticed by the next check.
                known.update(now)
