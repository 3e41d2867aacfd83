"""Guards of texts, dates, true and false -> which documents each keeps, run after run. Imports no torch.

Shape suffix: N documents with a score.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladm.corpus.rows.number_columns import NoNumbersError
from ladm.corpus.rows.values import require_occurring
from ladm.errors import LadmError
from ladm.selection.sources import SelectionSource
from ladm.settings.guards import AnyGuard, BandGuard, Guard
from ladm.settings.joins import ROWS
from ladm.settings.value_guards import ValueGuard
from ladm.storage.disk_arrays import array_on_disk

Floats = npt.NDArray[np.float64]


def read_values(
    sources: Sequence[SelectionSource],
    guards: Sequence[AnyGuard],
    rows_N: npt.NDArray[np.int64],
    parts: Sequence[slice],
    *,
    work: Path,
) -> dict[str, Floats]:
    """By the text of each guard of values: 1 for a document that it keeps, 0 for others, NaN without a value.

    `parts`: where the documents of each run stand in `rows_N`, which has their rows as `Candidates` does. The results
    are files in `work`. Raises UsageError as `match_rows`, and for a value that no row has.
    """
    found: dict[str, Floats] = {}
    for guard in guards:
        if not isinstance(guard, ValueGuard) or guard.text in found:
            continue
        kept_N = array_on_disk(work / f"values-{len(found)}", "f8", len(rows_N))
        matches = []
        for source, part in zip(sources, parts, strict=True):
            matches.append(source.columns.match(guard))
            kept_N[part] = matches[-1].kept_T[rows_N[part] - source.first]
        require_occurring(guard, [source.rows for source in sources], matches)
        found[guard.text] = kept_N
    return found


@contextlib.contextmanager
def naming_values(guards: Sequence[Guard | BandGuard | ValueGuard]) -> Iterator[None]:
    """Add to the error for a column without a number, where a guard wanted a range of them, how values are given."""
    try:
        yield
    except NoNumbersError as error:
        column = f"{ROWS}.{error.key}"
        given = next((guard.text for guard in guards if isinstance(guard, Guard) and guard.column == column), None)
        if given is None:
            raise
        limits = given.rpartition(":")[2]
        raise LadmError(
            f"{error}; texts and dates are given as --within {column}:A,B or {column}:A..B, and {limits} as a text in "
            f'quotes, {column}:"{limits}"'
        ) from None
