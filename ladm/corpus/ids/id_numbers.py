"""A file with ids and numbers -> the numbers by the hashes of the ids, to be looked up by those of rows. No torch.

id,quality,pii              CSV: a column `id`, and columns of numbers
{"id": "d17", "pii": true}  JSONL: an object a line
id, quality: float32        Parquet

Shape suffixes: M ids of the file, B rows of the data, a batch of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladm.corpus.ids.files import Hashes, hashes_of, reading_file_of_ids, shown_id
from ladm.corpus.ids.value_readers import Floats, read_values
from ladm.errors import StorageError, UsageError, printable
from ladm.storage.digests import file_xxh3
from ladm.storage.file_states import file_states

NOT_FOUND = -1
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class IdValues:
    """Columns of a file by id, without repetitions."""

    xxh3_128: str
    """Of the bytes of the file."""
    hashes_M: Hashes
    """Ascending."""
    values: dict[str, Floats]
    """(M,) by column, in the order of `hashes_M`; NaN where an id has no number."""
    example: str
    """Its first id, for a message."""

    def __len__(self) -> int:
        return len(self.hashes_M)

    def places_of(self, hashes_B: Hashes) -> Ints:
        """Where in `hashes_M` each of some hashes is; NOT_FOUND where it is not."""
        at_B = np.minimum(np.searchsorted(self.hashes_M, hashes_B), len(self) - 1)
        at_B[self.hashes_M[at_B] != hashes_B] = NOT_FOUND
        return at_B


def read_id_values(name: str, keys: Sequence[str], *, option: str) -> IdValues:
    """The columns `keys` of a file. `option`: how the user named the file, for messages.

    Memory: 8 bytes an id, and as many for each column; about three times that while they are sorted.
    Raises as `read_values`, and UsageError for a file that is absent or empty, for an id with two values, and for a
    column without any number.
    """
    with reading_file_of_ids(name, option=option):
        states = file_states([name])
        digest = file_xxh3(Path(name))
        hashes, values, example = _read(name, keys)
        for key, column in values.items():
            if np.isnan(column).all():
                raise UsageError(f"its column {printable(key)} has no number")
        order = np.argsort(hashes, kind="stable")
        hashes_M = hashes[order]
        del hashes
        repeats_M = np.concatenate([[False], hashes_M[1:] == hashes_M[:-1]])
        for key in values:
            values[key] = values[key][order]
            _require_same(name, key, values[key], repeats_M, order)
        del order
        if repeats_M.any():
            hashes_M = hashes_M[~repeats_M]
            values = {key: column[~repeats_M] for key, column in values.items()}
        if file_states([name]) != states:
            raise changed_meanwhile(name)
    return IdValues(xxh3_128=digest, hashes_M=hashes_M, values=values, example=example)


def changed_meanwhile(name: str) -> StorageError:
    """The error for a file whose numbers do not belong together."""
    return StorageError(f"{name} changed while it was read; run the same command again")


def _read(name: str, keys: Sequence[str]) -> tuple[Hashes, dict[str, Floats], str]:
    """The hashes and values in the order of the file, and its first id."""
    hashes: list[Hashes] = []
    parts: dict[str, list[Floats]] = {key: [] for key in keys}
    example = None
    for batch in read_values(name, keys):
        hashes.append(hashes_of(batch.ids))
        for key, column in batch.values.items():
            parts[key].append(column)
        example = example or next(iter(batch.ids), None)
    if example is None:
        raise UsageError("it has no ids")
    values = {}
    for key in keys:
        values[key] = np.concatenate(parts.pop(key))
    return np.concatenate(hashes), values, example


def _require_same(name: str, key: str, column_M: Floats, repeats_M: npt.NDArray[np.bool_], order: Ints) -> None:
    """Raise UsageError for an id that is there twice, with two values."""
    before, after = column_M[:-1], column_M[1:]
    is_same = (before == after) | (np.isnan(before) & np.isnan(after))
    different = np.flatnonzero(repeats_M[1:] & ~is_same)
    if not len(different):
        return
    # Only hashes are in memory, so the two rows are looked for in the file.
    numbers = sorted(order[different[0] : different[0] + 2].tolist())
    found, first, repeated = [], 0, ""
    for batch in read_values(name, [key]):
        for k in (number - first for number in numbers if first <= number < first + len(batch.ids)):
            repeated = batch.ids[k]
            value = float(batch.values[key][k])
            shown = "none" if np.isnan(value) else repr(value).removesuffix(".0")
            found.append(f"{shown} ({batch.place(k)})")
        first += len(batch.ids)
    raise UsageError(
        f"the id {shown_id(repeated)} has two values of {printable(key)}, {' and '.join(found)}; keep one of them"
    )
