"""What a scorer returns for its rows -> the numbers to store; what its author must change otherwise. Imports no torch.

A scorer may be the user's own, see `ladm.Scorer.from_signal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from ladm.errors import LadmError, count_of
from ladm.runs.records import Column, float32_column
from ladm.signals.scorer import ScorerOutput


def outputs_of(results: Any, *, rows: int, signal: str) -> list[ScorerOutput]:
    """The results of a batch as a list. Raises LadmError where they are not one `ScorerOutput` for each row."""
    found = list(results) if isinstance(results, Iterable) else [results]
    wrong = [type(each).__name__ for each in found if not isinstance(each, ScorerOutput)]
    if len(found) != rows or wrong:
        what = f"an object of type {wrong[0]}" if wrong else count_of(len(found), "result")
        raise _mistake(signal, f"gives {what} for {count_of(rows, 'row')}", "one ScorerOutput for each row, in a list")
    return found


def columns_of(extras: Any, row_columns: Mapping[str, float], *, signal: str) -> dict[str, Column]:
    """The columns of a row as float32: those of its output, and those that needed no forward pass.

    Raises LadmError for what is neither a number nor a list of numbers.
    """
    if not isinstance(extras, Mapping):
        raise _mistake(signal, f"gives the extras as {_kind(extras)}", "a dict of columns by name")
    values_by_name: dict[str, Any] = {**extras, **row_columns}
    for name, values in values_by_name.items():
        if not _are_numbers(values):
            raise _mistake(signal, f"gives the column {name!r} as {_kind(values)}", "a number or a list of numbers")
    # A number beyond the range of float32 becomes infinite, which the caller reports.
    with np.errstate(over="ignore"):
        return {name: float32_column(values) for name, values in values_by_name.items()}


def score_of(score: Any, columns: Mapping[str, Column], *, signal: str) -> float:
    """The score of a row: without one of its own its first column. Raises LadmError where that is no number."""
    if score is None:
        first = next(iter(columns.values()), None)
        if not isinstance(first, float):
            what = "no column" if first is None else "a list as its first column"
            raise _mistake(signal, f"gives no score and {what}", "a number as the score or as the first of the extras")
        return first
    if getattr(score, "ndim", None) == 0:
        # A number of NumPy, or one that an array or a tensor holds alone.
        score = score.item()
    # True is 1 to Python.
    if isinstance(score, bool) or not isinstance(score, Real):
        raise _mistake(signal, f"gives the score as {_kind(score)}", "a number such as float(score)")
    return float(score)


def require_function(pending: Any, *, signal: str) -> None:
    """Raise LadmError where a scorer has returned anything but the function that waits for the scores."""
    if not callable(pending):
        raise _mistake(signal, f"returns {_kind(pending)} from score", "a function that returns the results")


def _mistake(signal: str, mistake: str, remedy: str) -> LadmError:
    return LadmError(f"the signal {signal} {mistake}; return {remedy} (ladm.signals.scorer.SignalScorer)")


def _kind(value: Any) -> str:
    """Such as `None`, `a list`, `a str`."""
    return "None" if value is None else f"a {type(value).__name__}"


def _are_numbers(values: Any) -> bool:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        # Lists of different lengths, or a tensor of a GPU or with a gradient.
        return False
    return array.ndim <= 1 and array.dtype.kind in "iuf"
