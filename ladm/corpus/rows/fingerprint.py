"""Rows that are being read -> whether their files still hold them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LackOfMemoryError, LadmError
from ladm.storage.file_states import FileStates

SAMPLED_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class RowsFingerprint:
    """The content that the files of rows must keep while the rows are scored."""

    name: str
    """A folder or a Hub id."""
    data: Mapping[str, Any]
    """As `Rows.identity`."""
    content: str
    """As `Rows.content`."""
    files: FileStates
    """When the rows were opened, before they were read for their digests."""

    @property
    def label(self) -> str:
        """How messages name them."""
        return f"the rows {self.name}"

    def require_same(self, _changed: Sequence[str]) -> None:
        """Raise LadmError where the files hold other rows now; rows that were appended behind them do not count."""
        try:
            are_same = open_rows(self.name).begin_with(self.data, content=self.content)
        except LackOfMemoryError:
            raise
        except LadmError as error:
            # Such as a folder that ladm prepare is writing again at this moment.
            raise type(error)(
                f"{self.label} cannot be read now ({error}); finished rows are safe: restore the data, and run the "
                "same command again to continue"
            ) from None
        if not are_same:
            raise LadmError(
                f"{self.label} changed while they were being read; no score of the changed rows was stored: restore "
                "them and run the same command again, or give another --output for the changed ones"
            )


def rows_fingerprint(rows: Rows, *, name: str) -> RowsFingerprint:
    """That of open rows. Reads all of them, unless their identity is known already."""
    return RowsFingerprint(name=name, data=rows.identity(), content=rows.content(), files=rows.files)


def sample_digest(rows: Rows) -> str:
    """A digest of the number of rows and of a few of them, quick to compute whenever they are opened."""
    import xxhash

    digest = xxhash.xxh3_128(str(len(rows)).encode())
    for position in sorted({len(rows) * k // SAMPLED_ROWS for k in range(SAMPLED_ROWS)}):
        (row,) = rows.read(position, position + 1)
        raw = row.raw_ids
        digest.update(raw.tobytes() if isinstance(raw, np.ndarray) else repr(raw).encode())
    return digest.hexdigest()


def absolute_name(name: str) -> str:
    """The absolute path of a folder; a Hub id as it is."""
    return str(Path(name).absolute()) if Path(name).exists() else name
