"""The `meta` of a document, whatever its shape -> JSON values, and one value by its path. Imports no torch."""

from __future__ import annotations

import json
from typing import Any

_PLAIN = (str, int, bool, type(None))
"""What JSON gives back as it is."""


def jsonable(value: Any) -> Any:
    """`value` as JSON gives it back: dates become text, NaN and infinity null."""
    # Nearly every meta is a flat dictionary of texts; the round trip through JSON would cost more than all else here.
    if type(value) is dict and all(type(k) is str and type(v) in _PLAIN for k, v in value.items()):
        return value
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=str))
    except ValueError:
        return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)


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
