"""The text of `--within` for texts, dates, true and false -> the values of a column that are selected, or left out.

rows.lang:en,de    rows.lang:!en    rows.is_clean:true    rows.date:2024-01-01..2024-06-30    rows.title:"a, b"
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ladm.errors import UsageError

LEAVE_OUT = "!"
"""In front of values that are left out."""
TO = ".."
"""Between the ends of a range."""
_QUOTE = '"'
# Up to a comma or the two dots of a range.
_BARE = re.compile(r"(?:(?!\.\.)[^,])*")
# A column whose name has a colon needs its values in quotes, in front of which it ends.
_QUOTED_VALUES = re.compile(rf"(?P<column>[^{_QUOTE}]+?):(?P<values>\s*{LEAVE_OUT}?\s*{_QUOTE}.*)", re.DOTALL)
# Behind a colon these would be read as a range of numbers, or as the band of a profile.
_OTHER_GUARD = re.compile(r"(.*:)?(-?[\d.eE+%]*--?[\d.eE+%]*(/domain)?|profile)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ValueRange:
    """Values from `low` to `high`, both included. None: that end is open."""

    low: str | None = None
    high: str | None = None

    def __str__(self) -> str:
        low, high = ("" if end is None else spell_value(end, alone=False) for end in (self.low, self.high))
        return f"{low}{TO}{high}"


@dataclass(frozen=True, kw_only=True)
class ValueGuard:
    """Documents whose value in `column` is none of `values` are not selected; with `leaves_out`, those where it is."""

    text: str
    """As it was given."""
    column: str
    values: tuple[str | ValueRange, ...]
    leaves_out: bool = False


def split_column(text: str) -> tuple[str, str]:
    """`rows.lang:en` -> the column and its values: at the first colon, or in front of the first that has quotes."""
    found = _QUOTED_VALUES.fullmatch(text)
    if found is not None:
        return found["column"], found["values"]
    column, _, values = text.partition(":")
    return column, values


def parse_value_guard(text: str) -> ValueGuard:
    """Parse `COLUMN:VALUES`, with at least one colon in it. Raises UsageError for values that cannot be read."""
    column, rest = split_column(text)
    rest = rest.strip()
    leaves_out = rest.startswith(LEAVE_OUT)
    try:
        values = _Reader(rest.removeprefix(LEAVE_OUT)).values()
        # JSON can spell half of a character, which no column holds.
        "".join(map(str, values)).encode()
    except UnicodeEncodeError:
        raise UsageError(f"--within {text!r}: a value has half of a surrogate pair") from None
    except ValueError as error:
        raise UsageError(f"--within {text!r}: {error}") from None
    return ValueGuard(text=text, column=column, values=values, leaves_out=leaves_out)


def spell_value(value: str, *, alone: bool = True) -> str:
    """The value as a guard takes it: as it is, or in quotes with the escapes of JSON. `alone`: not of a range."""
    other = _OTHER_GUARD.fullmatch(value)
    is_plain = value.isprintable() and _BARE.fullmatch(value) and not (other and (alone or other[1]))
    # A dot at either end would join those of a range.
    if is_plain and value and value == value.strip(" .") and value[0] != LEAVE_OUT and _QUOTE not in value:
        return value
    return json.dumps(value, ensure_ascii=not value.isprintable())


class _Reader:
    """Reads values from left to right. Raises ValueError, with what is wrong, where there are none."""

    def __init__(self, text: str) -> None:
        self._text, self._place = text, 0

    def values(self) -> tuple[str | ValueRange, ...]:
        found = [self._value()]
        while self._skip(","):
            found.append(self._value())
        if self._place < len(self._text):
            raise ValueError(f"a comma is missing before {self._text[self._place :]!r}")
        return tuple(found)

    def _value(self) -> str | ValueRange:
        low = self._end()
        if not self._skip(TO):
            if low is None:
                raise ValueError('a value is missing; an empty text is ""')
            return low
        high = self._end()
        if low is None and high is None:
            raise ValueError("a range needs one end at least, such as 2024-01-01.. or ..2024-12-31")
        return ValueRange(low=low, high=high)

    def _end(self) -> str | None:
        self._skip_blanks()
        if self._text.startswith(_QUOTE, self._place):
            try:
                value, self._place = json.JSONDecoder().raw_decode(self._text, self._place)
            except json.JSONDecodeError:
                quoted = self._text[self._place :]
                raise ValueError(f"{quoted} does not begin with a quoted JSON string") from None
            return str(value)
        found = _BARE.match(self._text, self._place)
        assert found is not None, "it matches nothing at all too"
        self._place = found.end()
        return found[0].strip() or None

    def _skip(self, sign: str) -> bool:
        self._skip_blanks()
        is_there = self._text.startswith(sign, self._place)
        self._place += len(sign) if is_there else 0
        return is_there

    def _skip_blanks(self) -> None:
        while self._text[self._place : self._place + 1].isspace():
            self._place += 1
