"""Token ids and texts as a program holds them -> rows and texts for the engines. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ladm.errors import LadmError

if TYPE_CHECKING:
    from ladm.corpus.rows.row import Row

_TO_LISTS = ("to_pylist", "to_list")
"""What a column of Arrow, pandas or polars makes a list with."""


def rows_of(ids: Any) -> list[Row]:
    """One or several rows, whatever holds them, as the engines have them. Raises LadmError for what holds none."""
    import numpy as np

    from ladm.corpus.rows.row import Row

    ids = _plain(ids)
    if not isinstance(ids, (list, np.ndarray)) or (isinstance(ids, np.ndarray) and ids.ndim not in (1, 2)):
        kind = f"array of shape {ids.shape}" if isinstance(ids, np.ndarray) else f"object of type {type(ids).__name__}"
        remedy = next((f"; give what its {name}() returns" for name in _TO_LISTS if hasattr(ids, name)), "")
        raise LadmError(
            f"ladm.Scorer scores a list or an array of token ids, or several of them, not an {kind}{remedy}"
        )
    several = isinstance(ids, np.ndarray) and ids.ndim == 2
    if isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype == object:
        # How `datasets` gives a column of lists of different lengths as an array.
        ids = list(ids)
    if isinstance(ids, list):
        ids = [_number(_plain(part)) for part in ids]
        # Any: one row that is None, as a table has it, must not make one row of all the others.
        several = not ids or any(isinstance(part, (list, np.ndarray)) for part in ids)
    return [
        Row(position=k, index=k, chunked_index=None, meta=None, raw_ids=_raw(row))
        for k, row in enumerate(ids if several else [ids])
    ]


def texts_of(texts: Any, count: int) -> Sequence[str | None]:
    """A text, or None, for each of `count` rows; Arrow's columns as lists, bytes decoded, NaN as None.

    Raises LadmError for what is no list of that many, and for what is no text in it.
    """
    import numpy as np

    from ladm.corpus.files.meta import decoded, is_missing

    if texts is None:
        return [None] * count
    name = next((name for name in _TO_LISTS if hasattr(texts, name)), None)
    given = getattr(texts, name)() if name is not None else texts
    is_list = isinstance(given, Sequence) and not isinstance(given, (str, bytes))
    is_list = is_list or (isinstance(given, np.ndarray) and given.ndim > 0)
    if not is_list or len(given) != count:
        kind = "a single text" if isinstance(given, str) else f"an object of type {type(given).__name__}"
        found = f"{len(given)}" if is_list else kind
        raise LadmError(f"texts must be a list with the text of each of the {count} rows, not {found}")
    plain = [None if is_missing(text) else decoded(text) for text in given]
    for row, text in enumerate(plain):
        if text is not None and not isinstance(text, str):
            raise LadmError(
                f"texts must hold a text or None for each row; that of row {row} is of type {type(text).__name__}"
            )
    return plain


def _plain(value: Any) -> Any:
    """Tensors as arrays, other sequences as lists; numbers and whatever else as they are."""
    import numpy as np

    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if isinstance(value, (np.ndarray, str, bytes)):
        return value
    return list(value) if isinstance(value, Sequence) else value


def _raw(row: Any) -> Any:
    """A row as `token_ids` checks it: an array of whole numbers, a list of whatever it holds, or what is no row."""
    import numpy as np

    if not isinstance(row, (list, np.ndarray)):
        return row
    if isinstance(row, np.ndarray):
        return row if row.ndim == 1 and np.issubdtype(row.dtype, np.integer) else row.tolist()
    return [_number(token) for token in row]


def _number(value: Any) -> Any:
    """A number of NumPy, or one that an array or a tensor holds alone, as Python's own; whatever else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value
