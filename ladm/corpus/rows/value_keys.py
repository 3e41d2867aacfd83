"""A column of rows, or a key inside one -> a number for each row that rows with the same value share. No torch.

Shape suffix: T rows.
"""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from ladm.corpus.files.data_set import reading_rows
from ladm.corpus.files.meta import is_missing
from ladm.corpus.rows.hosts import host_of
from ladm.corpus.rows.identity import ColumnDigest
from ladm.corpus.rows.number_columns import find_place, is_number, kind_at, stored_at, values_at
from ladm.corpus.rows.reading import Rows
from ladm.corpus.rows.value_tests import as_whole_numbers, is_text, is_time
from ladm.corpus.rows.values import column_of, objects_error, text_of
from ladm.errors import LadmError, UsageError
from ladm.settings.joins import ROWS
from ladm.settings.value_caps import HOST

Ints = npt.NDArray[np.int64]

URL = "url"
"""The column in which FineWeb, as most crawls, has the URL of a document."""
NO_VALUE = -1
"""The number of a row without a value."""


def require_keys(rows: Rows, key: str, *, of_host: bool = False) -> None:
    """Raise UsageError where the rows have no such column, or one of lists or objects, before it is read.

    `of_host`: and where it holds no texts.
    """
    _place(rows, key, of_host=of_host)


def read_value_keys(rows: Rows, key: str, *, of_host: bool = False) -> tuple[Ints, str]:
    """A number of at least 0 by the value of each row, or NO_VALUE, (T,); and the XXH3-128 of all values.

    Equal values have equal numbers, of other data sets too: a 63-bit hash of their texts. A row has no value where it
    has null, NaN or an empty text. The numbers 7 and 7.0 are equal; dates and times are only where they are stored in
    one unit. `of_host`: the value is the host of the URL that the column holds, and text without one is no value; the
    digest is of the URLs. Memory: 8 bytes a row, and a batch of that column.
    Raises as `require_keys`, and LadmError where no row has a value.
    """
    column, path, kind = _place(rows, key, of_host=of_host)
    keys_T = np.empty(len(rows), dtype=np.int64)
    digest = ColumnDigest()
    for start, stop in rows.batches():
        with reading_rows(rows.name):
            if pa.types.is_null(kind):
                values = pa.chunked_array([pa.array(map(_text, values_at(rows, column, path, start, stop)), "string")])
            else:
                values = stored_at(rows, column, path, start, stop)
                # Without its zone, whose names are no part of Arrow.
                values = as_whole_numbers(values) if is_time(kind) else values
        for chunk in values.chunks:
            digest.add(chunk)
        keys_T[start:stop] = _keys(values, of_host=of_host)
    if (keys_T == NO_VALUE).all():
        what = "a URL with a host" if of_host else "a value"
        raise LadmError(f"no row of {rows.name} has {what} in {key}")
    return keys_T, xxhash.xxh3_128_hexdigest(digest.hexdigest().encode())


def _place(rows: Rows, key: str, *, of_host: bool) -> tuple[str, str, pa.DataType]:
    """The column, the path inside it, and the type of the values; null where they are read as Python objects."""
    # What the documentation calls the column that a crawl seldom has.
    if key == "host" and not of_host and URL in rows.column_names and find_place(rows, key) is None:
        raise UsageError(f"{rows.name} has no column {key}; the host of its column {URL} is {HOST}({ROWS}.{URL})")
    column, path = column_of(rows, key)
    kind = kind_at(rows, column, path)
    if of_host and (is_number(kind) or is_time(kind) or pa.types.is_list(kind)):
        raise UsageError(f"{HOST}() takes one text column, and {key} of {rows.name} holds {kind}")
    if is_number(kind) or is_text(kind) or is_time(kind) or pa.types.is_null(kind):
        return column, path, kind
    # A class label.
    if pa.types.is_dictionary(kind):
        return column, path, pa.null()
    if pa.types.is_struct(kind):
        raise objects_error(rows, key)
    raise UsageError(f"{key} of {rows.name} holds no texts, numbers, dates or booleans, but {kind}")


def _keys(values: pa.ChunkedArray, *, of_host: bool) -> Ints:
    """The numbers of some rows. Each value that occurs is read and hashed once."""
    encoded = values.combine_chunks().dictionary_encode()
    own = encoded.dictionary
    # As bytes, because texts of another origin may be no UTF-8.
    texts = own.cast(pa.binary() if pa.types.is_string(own.type) else pa.large_binary()) if is_text(own.type) else own
    # One more, for rows of null.
    of_values: Ints = np.array([*map(_host_key if of_host else _key, texts.to_pylist()), NO_VALUE], dtype=np.int64)
    places = encoded.indices.fill_null(len(own)).to_numpy(zero_copy_only=False)
    keys: Ints = of_values[places]
    return keys


def _text(value: object) -> str | None:
    """A value as text; None where it is missing."""
    if is_missing(value):
        return None
    # As for ids: pandas makes a column of whole numbers one of floats as soon as one is missing.
    if isinstance(value, (float, Decimal)) and math.isfinite(value) and value == int(value):
        value = int(value)
    return text_of(value)


def _key(value: object) -> int:
    if not isinstance(value, bytes):
        value = (_text(value) or "").encode()
    # Shifted, because int64 has no room for the last bit.
    return xxhash.xxh3_64_intdigest(value) >> 1 if value else NO_VALUE


def _host_key(url: bytes) -> int:
    # A number inside of JSON text is read as the text that spells it, which is no host.
    return _key((host_of(url.decode("utf-8", "replace")) or "").encode())
