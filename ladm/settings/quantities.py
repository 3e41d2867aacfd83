"""Quantities as people write them -> numbers: `1B` tokens, windows of `2048,4096` tokens."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from ladm.errors import UsageError

MOST_EXPONENT = MOST_DIGITS = 18
MOST_BITS = 1 << 13
"""A whole number of more bits has over 2,400 decimal digits, and is no setting."""
_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def parse_whole(text: str) -> int | None:
    """Decimal digits as a number; None for any other text, and for more digits than any number here has."""
    # Python refuses to read 4,300 digits and more, with a ValueError.
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None


def is_beyond_text(value: Any) -> bool:
    """Is it a whole number of thousands of digits?

    Python may have computed it, or read it from hexadecimal digits, but refuses to write 4,300 decimal ones, also in a
    message.
    """
    return isinstance(value, int) and value.bit_length() > MOST_BITS


def abbreviation_hint(text: str) -> str:
    """What to put behind the error for a number such as `32k`, which may be 32,000 or 32,768; empty for others."""
    is_short = text[-1:].lower() in _SUFFIXES and parse_whole(text[:-1]) is not None
    return "; write all its digits, such as 32768" if is_short else ""


def parse_tokens(text: str) -> int:
    """`1B` -> 1,000,000,000; also 500M, 250k, 1.5T and plain numbers with _ or , between digits.

    Raises UsageError for anything else, for zero, and for a part of a token; the caller puts the flag's name in front.
    """
    bare = text.strip().lower().replace("_", "").replace(",", "")
    suffix = bare[-1:] if bare[-1:].isalpha() else ""
    try:
        # 1e9 is a number of tokens, and 1e999999999 would fill the memory with its digits.
        _, _, exponent = bare.removesuffix(suffix).partition("e")
        if exponent and not 0 <= int(exponent) <= MOST_EXPONENT:
            raise ValueError
        # A float would turn 1.1B into 1100000000.0000002 tokens.
        tokens = Fraction(bare.removesuffix(suffix)) * _SUFFIXES[suffix]
    except (ValueError, KeyError, ZeroDivisionError):
        raise UsageError(f"{text!r} is not a number of tokens such as 1B, 500M, 250k or 1073741824") from None
    if tokens <= 0 or tokens.denominator != 1:
        raise UsageError(f"{text!r} must be a whole number of tokens, at least 1")
    return int(tokens)


def parse_percent(text: str) -> float:
    """`20%` -> 20.0. Raises UsageError for anything but a percentage above 0 and up to 100."""
    bare = text.strip().removesuffix("%").strip()
    try:
        percent = float(bare)
    except ValueError:
        raise UsageError(f"{text!r} is not a percentage such as 20%") from None
    if not 0 < percent <= 100:
        raise UsageError(f"{text!r} must be above 0% and at most 100%")
    return percent


def parse_token_budget(text: str) -> int | str:
    """`1B` -> 1,000,000,000; `50 %` -> `50%`, which stands for half of the tokens there are. Raises UsageError."""
    if not text.strip().endswith("%"):
        return parse_tokens(text)
    # Every digit: of a trillion tokens a millionth of a percent is 10,000.
    return f"{parse_percent(text)!r}".removesuffix(".0") + "%"


def bare_share_warning(given: str, top: float) -> str | None:
    """A line where `top`, a percentage like every number there, may have been meant as a share of 1; else None.

    `given`: as it was written, `0.1`.
    """
    if top >= 1 or "%" in given:
        return None
    return f"warning   --top {given} is {top:g} %; if {100 * top:g} % is meant, write {100 * top:g}%"


def parse_windows(text: str) -> tuple[int, ...]:
    """`4096,2048` -> (2048, 4096): numbers of tokens above 1, each once, ascending. Raises UsageError otherwise."""
    numbers = {parse_whole(part.strip()) or 0 for part in text.split(",")}
    if min(numbers) < 2:
        raise UsageError(f"{text!r} is not a list of numbers of tokens such as 2048,4096")
    return tuple(sorted(numbers))
