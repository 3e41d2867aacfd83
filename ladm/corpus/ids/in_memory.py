"""Ids that a program holds -> their hashes, as of a file: a set, an array of NumPy, or a column. Imports no torch.

{"d17", "d18"}   {17, 18}   pyarrow.array(["d17", "d18"])   frame["id"]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Set
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from ladm.corpus.files.tables import column_values
from ladm.corpus.ids.files import IdFile, hashes_of_batches
from ladm.corpus.ids.readers import BATCH_IDS, Batches, places, require_id_type
from ladm.errors import UsageError, one_line


def are_ids_in_memory(value: Any) -> bool:
    """Are these ids rather than names of files? A list of texts is not."""
    is_of_arrow = hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__")
    return isinstance(value, Set) or (is_of_arrow and not isinstance(value, type)) or _is_array(value)


def read_ids_in_memory(ids: Any, *, name: str, flag: str) -> IdFile:
    """The ids under the name that stands for them. `flag`: the option that they were given with, for messages.

    Raises UsageError where there are none, and for values that are no ids.
    """
    try:
        hashes, example = hashes_of_batches(_batches(ids))
    except UsageError as error:
        raise UsageError(f"{flag} {name}: {error}") from None
    # In the order of the hashes, because a set has another order in every process. Little-endian on every machine.
    digest = xxhash.xxh3_128(np.ascontiguousarray(hashes, dtype="<u8").data).hexdigest()
    return IdFile(name=name, xxh3_128=digest, hashes_M=hashes, example=example)


def _is_array(value: Any) -> bool:
    """Is it an array of NumPy, or a column or an array of pandas?"""
    # Whoever holds a column of pandas has imported the library.
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return isinstance(value, np.ndarray)
    # What `unique()` of a column of texts returns is an extension array.
    return isinstance(value, (np.ndarray, pandas.Series, pandas.Index, pandas.api.extensions.ExtensionArray))


def _batches(ids: Any) -> Batches:
    column = None if isinstance(ids, Set) else _column(ids)
    first = 0
    for values in _of_items(ids) if column is None else _of_column(column):
        yield values, places("item", range(first, first + len(values)))
        first += len(values)


def _column(ids: Any) -> pa.ChunkedArray | None:
    """The ids as a column of Arrow; None for texts and numbers together, which no column of Arrow holds."""
    if getattr(ids, "ndim", 1) == 0:
        raise UsageError("an array without dimensions holds one value; give ids in a set")
    try:
        # Before version 3, a Series of pandas has not the interface of Arrow.
        column = pa.chunked_array([pa.array(ids)]) if _is_array(ids) else pa.chunked_array(ids)
    except (pa.ArrowException, TypeError, ValueError) as error:
        if _is_array(ids):
            return None
        raise UsageError(f"they cannot be read as a column ({one_line(error)})") from None
    if pa.types.is_struct(column.type):
        names = [column.type.field(k).name for k in range(column.type.num_fields)]
        raise UsageError(f"this is a table, of the columns {', '.join(names)}; give the column that has the ids")
    require_id_type(column.type)
    return column


def _of_column(column: pa.ChunkedArray) -> Iterator[list[Any]]:
    for chunk in column.chunks:
        for start in range(0, len(chunk), BATCH_IDS):
            yield column_values(chunk.slice(start, BATCH_IDS))


def _of_items(ids: Iterable[Any]) -> Iterator[list[Any]]:
    items = iter(ids)
    while batch := list(islice(items, BATCH_IDS)):
        yield [each.item() if isinstance(each, np.generic) else each for each in batch]
