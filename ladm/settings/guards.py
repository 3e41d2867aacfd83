"""The text of `--within` -> a guard: the values of a column outside of which no document is selected.

gzip_ratio:20%-80%    copy_share:-0.2    gain:0-    score:-1.5--0.5    digits:profile    profile    pool
far_rare:-80%/domain    pool/domain

Of a column of the rows also values of another kind than numbers, which are in `value_guards`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ladm.errors import UsageError
from ladm.settings.joins import ROWS, split_name
from ladm.settings.value_guards import TO, ValueGuard, parse_value_guard, split_column

PROFILE = "profile"
POOL = "pool"
POOL_GUARDS = ("robust:-80%", "copy_share:-95%", "gzip_ratio:10%-")
"""What `pool` stands for: limits that need no calibration, measured by scripts/bench/quality/quantile_guards.py."""
TEXT_GUARDS = ("far_rare:-80%/domain", "gzip_ratio:10%-/domain")
"""The guards for a ranking by `far_rare` in a run without a model, measured by the same script."""
BY_DOMAIN = "/domain"
"""Behind limits whose quantiles are those of each domain; without it they are those of the whole pool."""
DOMAIN = "domain"
"""What people call the domain, which is no column of numbers."""
_NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?%?"
# Whichever part is absent, one dash stands between the two: `-0.2` is everything up to 0.2, `-0.5-` from -0.5 on.
_RANGE = re.compile(rf"(?P<low>{_NUMBER})?-(?P<high>{_NUMBER})?")

Band = dict[str, tuple[float, float, float]]
"""Of each column the 5th, 50th and 95th percentile of intact documents."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One end of a guard: a value, or a quantile from 0 to 1."""

    value: float
    is_quantile: bool = False


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Documents whose `column` lies outside of the limits, which are inclusive, are not selected. None: no limit."""

    text: str
    """As it was given."""
    column: str
    low: Limit | None = None
    high: Limit | None = None
    by_domain: bool = False
    """Are quantiles those of each domain, instead of the whole pool?"""


@dataclass(frozen=True, kw_only=True)
class BandGuard:
    """A guard whose limits are in a profile. `column` None: the column ranked by, and the copy share."""

    text: str
    column: str | None


AnyGuard = Guard | ValueGuard
"""A guard with its limits or its values, as `resolve_guards` has them."""

_NOT_VALUES = [f"{limits}{BY_DOMAIN}" for limits in ("", "-", PROFILE)]
"""Limits that nobody meant as values of a column of the rows."""
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


def parse_guards(texts: Iterable[str]) -> list[Guard | BandGuard | ValueGuard]:
    """The guards in their order, with those that `pool` stands for in its place. Raises UsageError for others."""
    shorthands = {POOL + end: tuple(guard + end for guard in POOL_GUARDS) for end in ("", BY_DOMAIN)}
    return [parse_guard(each) for text in texts for each in shorthands.get(text, (text,))]


def parse_guard(text: str) -> Guard | BandGuard | ValueGuard:
    """Parse `COLUMN:LOW-HIGH`, with `/domain` behind it or not, `COLUMN:profile`, `profile` or `rows.COLUMN:VALUES`.

    Raises UsageError for others.
    """
    if text == PROFILE:
        return BandGuard(text=text, column=None)
    column, colon, limits = text.rpartition(":")
    if not colon or not column:
        raise UsageError(
            f"--within {text!r} is not COLUMN:LOW-HIGH, such as gzip_ratio:20%-80%, nor {POOL}, {POOL}{BY_DOMAIN} or "
            f"{PROFILE}"
        )
    if limits == PROFILE:
        return BandGuard(text=text, column=column)
    found = _RANGE.fullmatch(limits.removesuffix(BY_DOMAIN))
    by_domain = limits.endswith(BY_DOMAIN)
    if limits.removesuffix(BY_DOMAIN) == "-":
        found = None
    elif found is None and split_name(split_column(text)[0])[0]:
        return parse_value_guard(text)
    if found is None:
        raise UsageError(
            f"--within {text!r}: {limits!r} is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or 0.2-"
            + ("" if limits in _NOT_VALUES else _way_to_values(*split_column(text)))
        )
    low, high = (_limit(found[name], text) for name in ("low", "high"))
    if low and high and low.is_quantile == high.is_quantile and low.value > high.value:
        quoted = _way_to_values(column, limits) if split_name(column)[0] else ""
        raise UsageError(f"--within {text!r}: {found['low']} is above {found['high']}{quoted}")
    if by_domain and not any(limit is not None and limit.is_quantile for limit in (low, high)):
        raise UsageError(
            f"--within {text!r}: {BY_DOMAIN} is for quantiles, such as {column}:-80%{BY_DOMAIN}; a value is the same "
            "in every domain"
        )
    return Guard(text=text, column=column, low=low, high=high, by_domain=by_domain)


def _way_to_values(column: str, values: str) -> str:
    """The end of a message where LOW-HIGH was expected, and a value of another kind may have been meant."""
    if split_name(column)[0]:
        month = f", all of a month as {column}:{values}{TO}{values}" if _MONTH.fullmatch(values) else ""
        return f'; a text is given in quotes: {column}:"{values}"{month}'
    if column == DOMAIN:
        return (
            f"; --exclude-domain leaves a domain out, and to take some alone, name the column of the rows that has "
            f"them, such as {ROWS}.{DOMAIN}:{values}"
        )
    is_value = TO in values or (values.strip("-") and not any(sign.isdigit() for sign in values))
    return f"; texts and dates are those of a column of the rows: {ROWS}.{column}:{values}" if is_value else ""


def require_of_rows(guards: Iterable[ValueGuard]) -> None:
    """Raise UsageError for values of a column of a run, whose columns have numbers alone."""
    for guard in guards:
        of, key = split_name(guard.column)
        if of != ROWS:
            # The names in a run, such as its ids, are those of its rows.
            raise UsageError(
                f"--within {guard.text}: the columns of a run, as {of} is, have numbers; give LOW-HIGH, or a column of "
                f"the rows, {ROWS}.{key}"
            )


def _limit(text: str | None, guard: str) -> Limit | None:
    if text is None:
        return None
    number = float(text.removesuffix("%"))
    if not math.isfinite(number):
        raise UsageError(f"--within {guard!r}: {text} is too large for a number; leave that end open")
    if not text.endswith("%"):
        return Limit(value=number)
    if not 0 <= number <= 100:
        raise UsageError(f"--within {guard!r}: {text} is not a quantile from 0% to 100%")
    return Limit(value=number / 100, is_quantile=True)


def band_guards(guard: BandGuard, band: Band, *, ranked_by: str, profile: str) -> list[Guard]:
    """The guards that a profile's band stands for.

    Of the column ranked by: from the 50th to the 95th percentile, because intact documents below the middle are not
    wanted and those above the 95th are mostly lists and repetition. Of the copy share: up to the 95th percentile. Of a
    column given by name: from the 5th to the 95th.
    Raises UsageError where the band does not have the column.
    """
    column = ranked_by if guard.column is None else guard.column
    if column not in band:
        raise UsageError(f"--within {guard.text}: the band of {profile} has no {column} (it has {', '.join(band)})")
    q05, q50, q95 = band[column]
    lowest = q50 if guard.column is None else q05
    found = [Guard(text=guard.text, column=column, low=Limit(value=lowest), high=Limit(value=q95))]
    if guard.column is None and column != "copy_share" and "copy_share" in band:
        found.append(Guard(text=guard.text, column="copy_share", high=Limit(value=band["copy_share"][2])))
    return found
