"""One row of a run as a typed record, and the JSON object that stands for it on disk. Imports no torch.

A float32 number has at most nine significant digits. Columns are stored with exactly those: the shortest decimal that
becomes the same float32 again. Half the size of a float64's digits, and nothing is lost:

    np.float32(0.1) widened to float64    0.10000000149011612
    as stored                             0.1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.settings.common import NAME_COLUMNS

Column = float | list[float]
"""What a row has in one column: a number, or one for each layer or head."""


Names = Mapping[str, str | None]
"""What identifies the document of a row; a record has those of NAME_COLUMNS that its data set has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRow:
    """A row with its score. `columns` are the CDS and whatever else the scorer computed, of float32 precision."""

    position: int
    index: int | str
    chunked_index: int | str | None
    score: float
    meta: Any
    num_tokens: int
    columns: Mapping[str, Column]
    names: Names = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The object as units and results hold it; what a person reads first comes first."""
        return {
            "position": self.position,
            "status": "ok",
            "index": self.index,
            "chunked_index": self.chunked_index,
            "score": self.score,
            "meta": self.meta,
            **self.names,
            "num_tokens": self.num_tokens,
            **self.columns,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorRow:
    """A row without a score. `stage` is `check` or `score`, `error_type` a short stable word, `message` says why."""

    position: int
    index: int | str
    chunked_index: int | str | None
    meta: Any
    num_tokens: int | None
    stage: str
    error_type: str
    message: str
    names: Names = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The object as units and `errors.jsonl` hold it."""
        return {
            "position": self.position,
            "status": "error",
            "index": self.index,
            "chunked_index": self.chunked_index,
            "meta": self.meta,
            **self.names,
            "num_tokens": self.num_tokens,
            "stage": self.stage,
            "error_type": self.error_type,
            "message": self.message,
        }


Record = ScoredRow | ErrorRow

_OWN_KEYS = frozenset(("position", "status", "index", "chunked_index", "score", "meta", "num_tokens", *NAME_COLUMNS))


def record_from_json(found: dict[str, Any]) -> Record:
    """The record of a decoded line. Raises KeyError or TypeError where it is not a row's."""
    names = {name: found[name] for name in NAME_COLUMNS if name in found}
    if found["status"] == "ok":
        columns = {name: value for name, value in found.items() if name not in _OWN_KEYS}
        return ScoredRow(
            position=found["position"],
            index=found["index"],
            chunked_index=found["chunked_index"],
            score=found["score"],
            meta=found["meta"],
            num_tokens=found["num_tokens"],
            columns=columns,
            names=names,
        )
    fixed = {name: value for name, value in found.items() if name != "status" and name not in names}
    return ErrorRow(**fixed, names=names)


def float32_column(values: npt.ArrayLike) -> Column:
    """A number or a list of numbers, each as the shortest decimal of its float32."""
    narrow = np.asarray(values, dtype=np.float32)
    # numpy prints the shortest decimal of a float32; the float64 made of it prints as the same text.
    texts = narrow.astype(str)
    return float(texts.item()) if narrow.ndim == 0 else [float(text) for text in texts.tolist()]
