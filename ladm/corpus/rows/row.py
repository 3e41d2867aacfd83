"""One row of a data set -> its token ids, checked against a vocabulary. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

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
