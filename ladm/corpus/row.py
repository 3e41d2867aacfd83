"""One row of a data set -> its token ids, checked against a vocabulary. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ladm.errors import RowError

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One document as it is scored. `raw_ids` is whatever the column holds; see `token_ids`."""

    position: int
    index: int | str
    chunked_index: int | str | None
    meta: Any
    raw_ids: Any
    names: Mapping[str, str | None] = field(default_factory=dict)
    """Those of `id`, `domain` and `source` that the data set has as columns."""

    @property
    def num_tokens(self) -> int | None:
        """Length of the ids, where they have one."""
        return len(self.raw_ids) if isinstance(self.raw_ids, (list, np.ndarray)) else None


def lengths_of(ids: pa.Array) -> npt.NDArray[np.int64]:
    """The number of ids of each row: (rows,); 0 where there is no list."""
    if is_integer_list(ids.type):
        return np.asarray(pc.list_value_length(ids).fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64)
    lengths = (len(raw) if isinstance(raw, list) else 0 for raw in map(raw_ids_of, ids))
    return np.fromiter(lengths, dtype=np.int64)


def token_ids(row: Row, *, vocab_size: int) -> Ids:
    """The ids of a row as int64: (T,).

    Raises RowError for anything that is not a list of ids of the vocabulary: `no_ids`, `wrong_type`, `empty`,
    `outside_vocabulary`.
    """
    raw = row.raw_ids
    if raw is None:
        raise RowError("no_ids", "input_ids is None")
    ids = raw if isinstance(raw, np.ndarray) else _as_array(raw)
    if len(ids) == 0:
        raise RowError("empty", "input_ids is empty")
    outside = (ids < 0) | (ids >= vocab_size)
    if outside.any():
        token = int(outside.argmax())
        raise RowError(
            "outside_vocabulary",
            f"id {ids[token]} at token {token} is outside the model's vocabulary of {vocab_size}; "
            "was the data made with another tokenizer?",
        )
    return ids.astype(np.int64)


def _as_array(raw: Any) -> Ids:
    """A Python list of integers as an array; anything else is described in a RowError."""
    if not isinstance(raw, list):
        raise RowError("wrong_type", f"input_ids is {type(raw).__name__}, not a list of integers")
    # `type(x) is int` and not isinstance: True is an int to Python, and never a token id.
    wrong = next((k for k, x in enumerate(raw) if type(x) is not int), None)
    if wrong is not None:
        name = "None" if raw[wrong] is None else type(raw[wrong]).__name__
        raise RowError("wrong_type", f"input_ids holds {name} at token {wrong}, not an integer")
    try:
        return np.asarray(raw, dtype=np.int64)
    except OverflowError:
        raise RowError("outside_vocabulary", "an id does not fit 64 bits") from None


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


def commonest(lengths: npt.NDArray[np.int64]) -> int:
    """The commonest length above 0, the longest of several; 0 when there is none."""
    found, counts = np.unique(lengths[lengths > 0], return_counts=True)
    return int(found[len(counts) - 1 - counts[::-1].argmax()]) if len(found) else 0
