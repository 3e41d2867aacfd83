"""The values of a guard and the type of a column -> what each value of the column is compared with. Imports no torch.

Texts are compared as they are, a range of them by their characters, so that ISO dates are in their order, with a T or
a space in front of the time. Dates and times are compared as such: `2024-02` is all of that month.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ladm.errors import UsageError
from ladm.settings.value_guards import ValueGuard, ValueRange

Test = Callable[[pa.ChunkedArray], pa.ChunkedArray]
"""Values -> which of them are what a guard names; null where there is no value."""

_TIME = re.compile(
    r"(?P<time>\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d{1,6})?)?)?)?)?)?)"
    r"(?P<zone>Z|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d))?"
)
_TEXTS_OF_DATES = r"^\d{4}-\d\d-\d\d([T ]\d\d:.*)?$"
_DAY_CHARACTERS = len("2024-12-31")
_DAY_AND_TIME = r"^(\d{4}-\d\d-\d\d)[T ]"
_MICROSECONDS = {"D": 86_400_000_000, "s": 1_000_000, "ms": 1000, "us": 1}
"""In a unit that a column may count in."""
_MOST = 2**63 - 1


def is_text(kind: pa.DataType) -> bool:
    """Does a column of this type hold texts?"""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_time(kind: pa.DataType) -> bool:
    """Does a column of this type hold dates, or times of a day?"""
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def is_text_of_day(text: str) -> bool:
    """Is it a year, a month or a day, of which a text may hold a day or a time?"""
    return len(text) <= _DAY_CHARACTERS and _moment(text) is not None


def end_of_no_date(guard: ValueGuard) -> str | None:
    """The first end of a range that is no date, such as 2024-6; None where there is none."""
    ends = (end for value in guard.values if isinstance(value, ValueRange) for end in (value.low, value.high))
    return next((end for end in ends if end and _moment(end[:_DAY_CHARACTERS]) is None), None)


def are_dates(texts: pa.ChunkedArray) -> bool:
    """Are all texts that are there ISO dates, with or without a time?"""
    return bool(pc.all(pc.match_substring_regex(texts, _TEXTS_OF_DATES)).as_py() is not False)


def tests_of(guard: ValueGuard, kind: pa.DataType) -> list[Test]:
    """A test for each of the guard's values; `kind` is that of a column of texts, booleans, dates or times.

    Raises UsageError for a value that no column of the type has, and a range whose ends are the wrong way round.
    """
    make = _time_test if is_time(kind) else _text_test if is_text(kind) else _boolean_test
    return [make(value, guard, kind) for value in guard.values]


def as_whole_numbers(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dates or times as they are counted in their column, from 1970 on."""
    return times.cast(pa.int32() if pa.types.is_date32(times.type) else pa.int64()).cast(pa.int64())


def _text_test(value: str | ValueRange, guard: ValueGuard, kind: pa.DataType) -> Test:
    if isinstance(value, str):
        return lambda texts: pc.equal(texts, pa.scalar(value, kind))
    # What Python prints has a space where ISO 8601 has a T.
    low, high = (end and re.sub(_DAY_AND_TIME, r"\1T", end) for end in (value.low, value.high))
    # What begins with the upper end is included, as 2024-12-31T23:00 is in ..2024-12-31.
    if low is not None and high is not None and low > high and not low.startswith(high):
        raise _above(guard, value)
    has_time = any(end and re.match(_DAY_AND_TIME, end) for end in (low, high))

    def is_inside(texts: pa.ChunkedArray) -> pa.ChunkedArray:
        found = pc.is_valid(texts)
        if has_time:
            texts = pc.replace_substring_regex(texts, _DAY_AND_TIME, r"\1T")
        if low is not None:
            found = pc.and_(found, pc.greater_equal(texts, pa.scalar(low, kind)))
        if high is not None:
            is_below = pc.less_equal(texts, pa.scalar(high, kind))
            found = pc.and_(found, pc.or_(is_below, pc.starts_with(texts, high)) if high else is_below)
        return found

    return is_inside


def _boolean_test(value: str | ValueRange, guard: ValueGuard, kind: pa.DataType) -> Test:
    word = str(value).lower()
    if word not in ("true", "false"):
        raise UsageError(f"--within {guard.text}: {guard.column} holds true and false, not {value}")
    return lambda booleans: pc.equal(booleans, pa.scalar(word == "true", kind))


def _time_test(value: str | ValueRange, guard: ValueGuard, kind: pa.DataType) -> Test:
    ends = ValueRange(low=value, high=value) if isinstance(value, str) else value
    unit = "D" if pa.types.is_date32(kind) else "ms" if pa.types.is_date64(kind) else kind.unit
    first = -_MOST if ends.low is None else _counted(_span(ends.low, guard)[0], unit)
    behind = _MOST if ends.high is None else _counted(_span(ends.high, guard)[1], unit)
    if ends.low is not None and ends.high is not None and _span(ends.low, guard)[0] >= _span(ends.high, guard)[1]:
        raise _above(guard, ends)

    def is_inside(times: pa.ChunkedArray) -> pa.ChunkedArray:
        numbers = as_whole_numbers(times)
        return pc.and_(pc.greater_equal(numbers, first), pc.less(numbers, behind))

    return is_inside


def _above(guard: ValueGuard, value: ValueRange) -> UsageError:
    return UsageError(f"--within {guard.text}: {value.low} is above {value.high}")


def _span(text: str, guard: ValueGuard) -> tuple[int, int]:
    """The first microsecond, counted from 1970 on, of a year, month, day or time, and the one behind its last."""
    found, start = _TIME.fullmatch(text), _moment(text)
    if found is None or start is None:
        raise no_date(guard, text)
    zone = 0
    if found["sign"]:
        minutes = 60 * int(found["hours"]) + int(found["minutes"])
        zone = 60 * _MICROSECONDS["s"] * (minutes if found["sign"] == "+" else -minutes)
    # Times without a zone, here and in columns, are those of UTC.
    first, behind = (int(moment.astype("datetime64[us]").astype(np.int64)) for moment in (start, start + 1))
    return first - zone, behind - zone


def _moment(text: str) -> np.datetime64 | None:
    """A year, month, day or time in its own unit, without its zone; None for what is none, such as 2024-6."""
    found = _TIME.fullmatch(text)
    try:
        # NumPy knows from the digits that 2024-02 is a month, so that 1 more is the next one.
        return None if found is None else np.datetime64(found["time"].replace(" ", "T"))
    except ValueError:
        return None


def no_date(guard: ValueGuard, text: str) -> UsageError:
    """The error for a value or an end of a range in a column of dates."""
    return UsageError(
        f"--within {guard.text}: {guard.column} holds dates, and {text!r} is not one, such as 2024, 2024-12-31 or "
        "2024-12-31T18:30"
    )


def _counted(microseconds: int, unit: str) -> int:
    """A moment in the unit of a column, rounded up: both ends are compared with values from there on."""
    found = 1000 * microseconds if unit == "ns" else -(-microseconds // _MICROSECONDS[unit])
    return max(-_MOST, min(found, _MOST))
