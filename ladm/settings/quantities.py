"""Quantities as people write them -> numbers: `1B` tokens. Imports no torch."""

from __future__ import annotations

from fractions import Fraction

from ladm.errors import UsageError

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def parse_tokens(text: str) -> int:
    """`1B` -> 1,000,000,000; also 500M, 250k, 1.5T and plain numbers with _ or , between digits.

    Raises UsageError for anything else, for zero, and for a part of a token.
    """
    bare = text.strip().lower().replace("_", "").replace(",", "")
    suffix = bare[-1:] if bare[-1:].isalpha() else ""
    try:
        tokens = Fraction(bare.removesuffix(suffix)) * _SUFFIXES[suffix]
    except (ValueError, KeyError, ZeroDivisionError):
        raise UsageError(f"--tokens {text!r} is not a number of tokens such as 1B, 500M, 250k or 1073741824") from None
    if tokens <= 0 or tokens.denominator != 1:
        raise UsageError(f"--tokens {text!r} must be a whole number of tokens, at least 1")
    return int(tokens)
