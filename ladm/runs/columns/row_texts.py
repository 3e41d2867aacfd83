"""A run and a column of its rows that holds no numbers -> the texts of the rows with a score. Imports no torch."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from ladm.corpus.files.data_set import reading_rows
from ladm.corpus.rows.number_columns import NoNumbersError, find_place, values_at
from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError, UsageError
from ladm.runs.columns.joined_columns import JoinedColumns
from ladm.settings.joins import ROWS


def read_numbers_and_texts(columns: JoinedColumns, names: list[str]) -> dict[str, Any]:
    """The named columns of the rows with a score, in the order of the run.

    A column of the rows without any number becomes one of texts, and null where a row has none.
    Raises as `JoinedColumns.read`, and LadmError for a key that no row has.
    """
    numbers, texts = list(names), list[str]()
    while True:
        try:
            positions_N, found = columns.read(numbers)
            break
        except NoNumbersError as error:
            name = f"{ROWS}.{error.key}"
            # A joined run or file has no texts to give.
            if name not in numbers:
                raise
            numbers.remove(name)
            texts.append(name)
    places = pa.array(positions_N)
    return found | {name: _texts(columns.rows, name.removeprefix(f"{ROWS}.")).take(places) for name in texts}


def _texts(rows: Rows, key: str) -> pa.Array:
    """The values of a column of all rows, or of a key inside one, as texts. Raises LadmError where there is none."""
    place = find_place(rows, key)
    if place is None:
        raise UsageError(f"{rows.name} has no column {key}")
    texts: list[str | None] = []
    for start, stop in rows.batches():
        with reading_rows(rows.name):
            texts += map(_text, values_at(rows, *place, start, stop))
    if all(text is None for text in texts):
        raise LadmError(f"no row of {rows.name} has a value in {key}")
    # Texts of millions of rows may be longer together than the 2 GiB of the short type.
    return pa.array(texts, pa.large_string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
