"""The fields of a document, whatever their shape -> JSON values, and one value by its path. Imports no torch."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

_PLAIN = (str, int, bool, type(None))
"""What JSON gives back as it is."""
_MISSING_TYPES = ("NaTType", "NAType")
_LARGEST, _SMALLEST = 2**63 - 1, -(2**63)
MOST_LEVELS = 200
"""Of lists and objects inside each other. Python's own limit differs between its versions, and so would the rows."""


def plain(value: Any, *, levels: int = MOST_LEVELS) -> Any:
    """The value as Arrow and JSON can hold it: a number beyond 64 bits as text, U+FFFD for a half of a character.

    Raises RecursionError for lists and objects nested more than `levels` deep.
    """
    if levels < 0:
        raise RecursionError("nested too deep")
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return value
    if is_missing(value):
        return None
    if isinstance(value, int):
        return value if _SMALLEST <= value <= _LARGEST else str(value)
    if isinstance(value, dict):
        return {whole_name(str(key)): plain(part, levels=levels - 1) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part, levels=levels - 1) for part in value]
    return None if isinstance(value, (bytes, bytearray)) else str(value)


def is_missing(value: Any) -> bool:
    """Is it None, NaN, or what stands for them in other types, such as pandas.NaT, pandas.NA and Decimal("NaN")?"""
    # pandas.NA has no truth value, also compared with itself.
    if type(value).__name__ in _MISSING_TYPES:
        return True
    return value is None or (isinstance(value, (float, Decimal)) and value != value)


def jsonable(value: Any) -> Any:
    """`value` as JSON gives it back: dates become text, NaN and infinity null."""
    # Nearly every meta is a flat dictionary of texts; the round trip through JSON would cost more than all else here.
    if type(value) is dict and all(type(k) is str and type(v) in _PLAIN for k, v in value.items()):
        return value
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=str))
    except ValueError:
        return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)


def value_at(fields: Any, key: str) -> Any:
    """What a key such as `meta.title` leads to, or None; `meta.title` may also be the name of a column itself."""
    if not isinstance(fields, dict):
        return None
    if key in fields:
        return fields[key]
    head, _, rest = key.partition(".")
    while rest:
        found = value_at(fields.get(head), rest)
        if found is not None:
            return found
        more, _, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def text_at(fields: Any, key: str) -> Any:
    """The text of a document, as `decoded` gives it."""
    return decoded(value_at(fields, key))


def decoded(text: Any) -> Any:
    """Parquet by older writers has texts as bytes, which are decoded; whatever else as it is."""
    return text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text


def reason_of_text(text: Any) -> str | None:
    """Why a document with this text cannot have a row, in the word of `dropped.jsonl`; None where it may have one."""
    if text is None:
        return "no_text"
    if not isinstance(text, str):
        return "not_text"
    return None if text.isascii() or text == whole_text(text) else "bad_text"


def look_up(value: Any, path: list[str]) -> str | None:
    """`{"a": {"b": 1}}` and `["a", "b"]` -> `"1"`; None where there is no such value. JSON text is parsed."""
    for key in path:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        value = value.get(key) if isinstance(value, dict) else None
    # The JSON of a text may spell half of a surrogate pair, which neither Arrow nor a file can hold.
    return None if value is None or isinstance(value, (dict, list)) else whole_text(str(value))


def whole_text(text: str) -> str:
    """The text with U+FFFD in place of what is no character: half of a surrogate pair, as in JSON's "\\ud83d"."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def whole_name(name: str) -> str:
    """The name of a field as `whole_text`, with U+FFFD for a zero character too, at which Arrow would end it."""
    return whole_text(name).replace("\0", "\ufffd")
