"""The lines of a run's units -> digests of them, which the result files are compared with. Imports no torch.

Shape suffix: T rows of the data.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xxhash

from ladm.runs.lines import StoredLine
from ladm.runs.records import ScoredRow


class UnitDigests:
    """What the units of a run hold, as digests: 8 bytes a row in place of the hundreds of its line."""

    def __init__(self, num_rows: int) -> None:
        self.is_unfinished = self.is_damaged = False
        self._lines_T = np.zeros(num_rows, dtype=np.uint64)
        self._is_scored_T = np.zeros(num_rows, dtype=np.bool_)
        self._errors = xxhash.xxh3_128()

    def add(self, lines: Iterable[StoredLine]) -> None:
        """The lines of a unit, in the order of the data."""
        for line in lines:
            if isinstance(line.record, ScoredRow):
                self._lines_T[line.record.position] = xxhash.xxh3_64_intdigest(line.result.encode())
                self._is_scored_T[line.record.position] = True
            else:
                self._errors.update(line.text.encode() + b"\n")

    def holds(self, line: bytes, *, rank: int, position: int | None) -> bool:
        """Is a line of the sorted file that of the row at `position`?"""
        front = f'{{"rank": {rank}, '.encode()
        if position is None or not 0 <= position < len(self._lines_T) or not self._is_scored_T[position]:
            return False
        if not line.startswith(front):
            return False
        return xxhash.xxh3_64_intdigest(line[len(front) : -1]) == int(self._lines_T[position])

    @property
    def is_complete(self) -> bool:
        """Are the lines of all rows among them? Otherwise the results would seem damaged in a comparison with these."""
        return not (self.is_unfinished or self.is_damaged)

    @property
    def errors_digest(self) -> str:
        """The digest of the file with the rows without a score."""
        return self._errors.hexdigest()
