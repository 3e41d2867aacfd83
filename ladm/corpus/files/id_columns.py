"""A column of token ids -> its type, its lengths and the ids of each row, however they are stored. Imports no torch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def is_integer_list(kind: pa.DataType) -> bool:
    """Is it a column type of lists of integers, of whatever width and kind of list?"""
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(listed and pa.types.is_integer(kind.value_type))


def may_hold_ids(kind: pa.DataType) -> bool:
    """Lists of integers; or a column of nulls or of mixed JSON, whose rows are judged one by one."""
    if is_integer_list(kind) or pa.types.is_null(kind) or _is_json(kind):
        return True
    # The extension types of `datasets` have a `value_type` too, which is a text.
    inner = None if isinstance(kind, pa.BaseExtensionType) else getattr(kind, "value_type", None)
    return inner is not None and (pa.types.is_null(inner) or _is_json(inner))


def _is_json(kind: pa.DataType) -> bool:
    """Is it Arrow's JSON? The arrays of several dimensions by `datasets` are extension types too."""
    return isinstance(kind, pa.BaseExtensionType) and (
        pa.types.is_string(kind.storage_type) or pa.types.is_large_string(kind.storage_type)
    )


def lengths_of(ids: pa.Array) -> npt.NDArray[np.int64]:
    """The number of ids of each row: (rows,); 0 where there is no list."""
    if is_integer_list(ids.type):
        return np.asarray(pc.list_value_length(ids).fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64)
    lengths = (len(raw) if isinstance(raw, list) else 0 for raw in map(raw_ids_of, ids))
    return np.fromiter(lengths, dtype=np.int64)


def commonest(lengths: npt.NDArray[np.int64]) -> int:
    """The commonest length above 0, the longest of several; 0 when there is none."""
    found, counts = np.unique(lengths[lengths > 0], return_counts=True)
    return int(found[len(counts) - 1 - counts[::-1].argmax()]) if len(found) else 0


def split_ids(ids: pa.Array) -> list[Any]:
    """A column as one value a row, as `raw_ids_of` makes them."""
    values = ids.flatten() if is_integer_list(ids.type) else None
    # With a null anywhere, rows and values no longer line up; the slow way looks at each row.
    if values is None or ids.null_count or values.null_count:
        return [raw_ids_of(scalar) for scalar in ids]
    stops = np.cumsum(pc.list_value_length(ids).to_numpy(zero_copy_only=False))
    return np.split(values.to_numpy(zero_copy_only=False), stops[:-1])


def raw_ids_of(scalar: pa.Scalar) -> Any:
    """A numpy array where the row is a list of integers; otherwise plain Python values for `token_ids` to describe."""
    if not scalar.is_valid:
        return None
    if is_integer_list(scalar.type) and not scalar.values.null_count:
        return scalar.values.to_numpy(zero_copy_only=False)
    value = scalar.as_py()
    # The extension type is Arrow's JSON: `datasets` stores a column of mixed values as JSON texts.
    if isinstance(scalar.type, pa.BaseExtensionType):
        return json.loads(value)
    if isinstance(value, list) and isinstance(scalar.type.value_type, pa.BaseExtensionType):
        return [None if item is None else json.loads(item) for item in value]
    return value
