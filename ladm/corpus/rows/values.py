"""A column of rows and a guard of values -> which rows the guard keeps. Imports no torch.

Columns of texts, true and false, dates and times, and keys inside objects or JSON text, are compared as they are
stored, a batch at a time: no row is a Python object, except for keys of JSON text and class labels.

Shape suffix: T rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ladm.corpus.files.meta import whole_text
from ladm.corpus.rows.identity import ColumnDigest, prepared_domain_key
from ladm.corpus.rows.number_columns import find_place, is_number, kind_at, stored_at, values_at
from ladm.corpus.rows.reading import Rows
from ladm.corpus.rows.value_tests import (
    are_dates,
    as_whole_numbers,
    end_of_no_date,
    is_text,
    is_text_of_day,
    is_time,
    no_date,
    tests_of,
)
from ladm.errors import LadmError, UsageError
from ladm.settings.common import DOMAIN_COLUMN
from ladm.settings.fields import nearest
from ladm.settings.joins import ROWS, split_name
from ladm.settings.value_guards import TO, ValueGuard, spell_value

Floats = npt.NDArray[np.float64]

MOST_NAMED = 10
"""Of the values in a message, the most frequent ones."""
MOST_COUNTED = 10_000
"""Different values that are counted for it."""
LONGEST_NAMED = 40
"""Bytes of a value in it."""


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Which rows a guard keeps."""

    kept_T: Floats
    """1 where a row is kept, 0 where it is not, NaN where it has no value."""
    occurring: frozenset[int]
    """The places, among those of the guard, of values that some row has; ranges, true and false are all there."""
    digest: str
    """XXH3-128 of the values of all rows."""


def require_values(rows: Rows, guard: ValueGuard) -> None:
    """Raise UsageError where the rows have no such column, or one of numbers, lists or objects, before it is read."""
    _place(rows, guard)


def match_rows(rows: Rows, guard: ValueGuard) -> Matches:
    """Compare a column with the values of a guard. Memory: 8 bytes a row, and a batch of that column.

    Raises as `require_values`, UsageError for values that the type of the column does not have, and LadmError where no
    row has a value.
    """
    column, path, kind = _place(rows, guard)
    tests = tests_of(guard, kind)
    kept_T = np.full(len(rows), np.nan)
    digest, occurring = ColumnDigest(), {k for k, value in enumerate(guard.values) if not isinstance(value, str)}
    if pa.types.is_boolean(kind):
        occurring.update(range(len(tests)))
    # By its characters 2024-6 is above 2024-12-31: of dates such an end would keep, or drop, others than meant.
    no_end = end_of_no_date(guard) if is_text(kind) else None
    all_dates = no_end is not None
    for start, values in _batches(rows, column, path, kind, guard):
        all_dates = all_dates and are_dates(values)
        for chunk in (as_whole_numbers(values) if is_time(kind) else values).chunks:
            digest.add(chunk)
        is_named_B = np.zeros(len(values), dtype=np.bool_)
        for k, test in enumerate(tests):
            is_value_B = test(values).fill_null(False).to_numpy()
            if is_value_B.any():
                occurring.add(k)
            is_named_B |= is_value_B
        has_value_B = pc.is_valid(values).to_numpy()
        kept_T[start : start + len(values)][has_value_B] = (is_named_B != guard.leaves_out)[has_value_B]
    if np.isnan(kept_T).all():
        raise LadmError(f"no row of {rows.name} has a value in {_key(guard)}")
    if all_dates and no_end is not None:
        raise no_date(guard, no_end)
    whole = xxhash.xxh3_128_hexdigest(digest.hexdigest().encode())
    return Matches(kept_T=kept_T, occurring=frozenset(occurring), digest=whole)


def require_occurring(guard: ValueGuard, data: Sequence[Rows], found: Sequence[Matches]) -> None:
    """Raise UsageError for a value of a guard that no row of all data sets has, with some that they have."""
    there = frozenset().union(*(matches.occurring for matches in found))
    for k, value in enumerate(guard.values):
        if k not in there and isinstance(value, str):
            names, counts = ", ".join(rows.name for rows in data), _count_values(guard, data)
            hint = nearest(_shown(value), map(_shown, counts))
            if is_text_of_day(value) and any(each.startswith(value) for each in counts):
                hint = f"; for all of it give {value}{TO}{value}"
            frequent = [_shown(each) for each, _ in counts.most_common(MOST_NAMED)]
            more = ", .." if len(counts) > MOST_NAMED else ""
            listed = f"; the values are {', '.join(frequent)}{more}" if frequent else ""
            raise UsageError(
                f"--within {guard.text}: no row of {names} has {_shown(value)} in {_key(guard)}{listed}{hint}"
            )


def _key(guard: ValueGuard) -> str:
    return split_name(guard.column)[1]


def column_of(rows: Rows, key: str) -> tuple[str, str]:
    """The column that a key is in, and its path inside that column. Raises UsageError without such a column."""
    found = find_place(rows, key)
    if found is not None:
        return found
    if key == prepared_domain_key(rows.name):
        raise UsageError(f"{rows.name} has {key} as {ROWS}.{DOMAIN_COLUMN}, because ladm prepare made it the domain")
    hint = nearest(key, rows.column_names) or f"; it has {', '.join(rows.column_names)}"
    raise UsageError(f"{rows.name} has no column {key}{hint}")


def _place(rows: Rows, guard: ValueGuard) -> tuple[str, str, pa.DataType]:
    """The column, the path inside it, and the type of the values; string where they are read as Python objects."""
    key = _key(guard)
    found = column_of(rows, key)
    kind = kind_at(rows, *found)
    if pa.types.is_boolean(kind) or is_text(kind) or is_time(kind):
        return *found, kind
    # A class label, or inside of JSON text.
    if pa.types.is_null(kind) or pa.types.is_dictionary(kind):
        return *found, pa.string()
    if is_number(kind):
        raise _numbers_error(rows, guard)
    if pa.types.is_struct(kind):
        raise objects_error(rows, key)
    raise UsageError(f"{key} of {rows.name} holds no texts, dates or booleans, but {kind}")


def objects_error(rows: Rows, key: str) -> UsageError:
    """The error for a column of objects, or a key inside one, where a single value is needed."""
    return UsageError(f"{key} of {rows.name} holds objects; give a key inside, such as {key}.NAME")


def _numbers_error(rows: Rows, guard: ValueGuard) -> UsageError:
    first = guard.values[0]
    example = f"{first}-{first}" if isinstance(first, str) and first.isdigit() else "0.2-0.5"
    return UsageError(
        f"--within {guard.text}: {_key(guard)} of {rows.name} holds numbers; give LOW-HIGH, such as "
        f"{ROWS}.{_key(guard)}:{example}"
    )


def _batches(
    rows: Rows, column: str, path: str, kind: pa.DataType, guard: ValueGuard
) -> Iterator[tuple[int, pa.ChunkedArray]]:
    """The first row of a batch, and its values of the type `kind`. Raises UsageError where all values are numbers."""
    if kind_at(rows, column, path) == kind:
        for start, stop in rows.batches():
            yield start, stored_at(rows, column, path, start, stop)
        return
    has_numbers = has_others = False
    for start, stop in rows.batches():
        found = list(values_at(rows, column, path, start, stop))
        are_numbers = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in found]
        texts = [text_of(value) for value in found]
        has_numbers |= any(are_numbers)
        has_others |= any(text is not None and not n for text, n in zip(texts, are_numbers, strict=True))
        yield start, pa.chunked_array([pa.array(texts, kind)])
    if has_numbers and not has_others:
        raise _numbers_error(rows, guard)


def text_of(value: object) -> str | None:
    """A value inside of JSON text, or a class label, as a text; None where it is none."""
    if value is None or isinstance(value, (dict, list, bytes)):
        return None
    return whole_text(str(value).lower() if isinstance(value, bool) else str(value))


def _count_values(guard: ValueGuard, data: Sequence[Rows]) -> Counter[str]:
    """Short values of the column, and how many rows have each; of the first rows where there are very many values."""
    counts: Counter[str] = Counter()
    for rows in data:
        column, path, kind = _place(rows, guard)
        for _, values in _batches(rows, column, path, kind, guard):
            # Without its zone, whose names are no part of Arrow.
            plain = values.cast(pa.timestamp(kind.unit)) if pa.types.is_timestamp(kind) else values
            texts = plain.cast(pa.string()) if not is_text(kind) else plain
            short = texts.filter(pc.less_equal(pc.binary_length(texts), LONGEST_NAMED))
            # As bytes, because texts of another origin may be no UTF-8.
            for each in pc.value_counts(short.cast(pa.binary())).to_pylist():
                counts[each["values"].decode("utf-8", "replace")] += each["counts"]
            if len(counts) > MOST_COUNTED:
                return counts
    return counts


def _shown(value: str) -> str:
    spelled = spell_value(value)
    return spelled if len(spelled) <= LONGEST_NAMED else f"{spelled[:LONGEST_NAMED]}…"
