"""Lengths and ids of rows -> the default span, and the rows that will have no score, by reason. Imports no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.corpus.files.id_columns import commonest
from ladm.corpus.rows.reading import Rows
from ladm.corpus.rows.row import token_ids
from ladm.errors import RowError, count_of
from ladm.method.grid import PAPER_N0_SPANS, Method, default_span_tokens
from ladm.modeling.facts import ModelFacts
from ladm.settings.score import ScoreSettings
from ladm.settings.signals import CDS, CONTEXT_GAIN, LONGATTN, PROLONG, TEXT
from ladm.signals.prolong import number_of_segments
from ladm.signals.scorer import LEAST_TOKENS

MOST_IDS, MOST_ROWS = 1 << 29, 100_000
"""In larger data only a random part is searched for invalid ids: all of it would take hours."""
_ROWS_AT_A_TIME = 256


@dataclass(frozen=True)
class RowLengths:
    """Tokens of every row; 0 where a row is no list of ids."""

    tokens: npt.NDArray[np.int64]

    @cached_property
    def counts(self) -> dict[int, int]:
        """Rows by length, ascending, without those that have no ids."""
        found, counts = np.unique(self.tokens[self.tokens > 0], return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))

    @property
    def common(self) -> int:
        return commonest(self.tokens)

    def common_within(self, facts: ModelFacts) -> int:
        """The commonest length among the rows that the model has positions for, or else its number of positions."""
        if facts.max_tokens is None:
            return self.common
        return commonest(self.tokens[self.tokens <= facts.max_tokens]) or min(self.common, facts.max_tokens)

    def refusals(self, settings: ScoreSettings, facts: ModelFacts) -> Counter[str]:
        """How many rows will have no score, by the type of the error, as far as their lengths say."""
        found: Counter[str] = Counter()
        for length, count in self.counts.items():
            kind = refusal(length, settings, facts)
            if kind is not None:
                found[kind] += count
        return found


@dataclass(frozen=True, kw_only=True)
class DefaultSpan:
    """The tokens of a span where no flag sets them."""

    span_tokens: int
    length_tokens: int
    """The commonest length of the rows, of which a span is 1/256."""

    @property
    def line(self) -> str:
        """The line that is printed about it."""
        span = count_of(self.span_tokens, "token")
        return f"spans     {span}: 1/256 of the commonest length, {self.length_tokens:,} tokens"


def default_span(lengths: RowLengths, facts: ModelFacts) -> DefaultSpan:
    """The default span for rows: the same in every command that scores them."""
    common = lengths.common_within(facts)
    return DefaultSpan(span_tokens=default_span_tokens(common), length_tokens=common)


def is_too_long(length: int, settings: ScoreSettings, facts: ModelFacts) -> bool:
    """Has a row of that length more tokens than the model has positions, for signals that need one for each?"""
    if settings.signal_names in ((TEXT,), (PROLONG,)):
        return False
    return facts.max_tokens is not None and length > facts.max_tokens


def refusal(length: int, settings: ScoreSettings, facts: ModelFacts) -> str | None:
    """The type of the error of every row of that length, as the scorer of those signals gives it; None: none.

    The length of a span must be known.
    """
    signals = settings.signal_names
    if signals == (TEXT,):
        return None
    if signals == (PROLONG,):
        # Only pairs of segments go through the model, so that no row is too long.
        return "too_short" if number_of_segments(length) < 2 else None
    if is_too_long(length, settings, facts):
        return "too_long"
    if CDS in signals and not settings.method.grid(length).J:
        return "too_short"
    return "too_short" if length < LEAST_TOKENS and {CONTEXT_GAIN, LONGATTN} & set(signals) else None


@dataclass(frozen=True, kw_only=True)
class BadIds:
    """The rows that will have no score because of their ids."""

    counts: Counter[str]
    """By the type of the error, of all rows; where only a part of them was read, in proportion."""
    good_lengths: RowLengths
    """The length of every row, 0 for each row that was found to be bad."""


def find_bad_ids(rows: Rows, lengths: RowLengths, *, vocab_size: int) -> BadIds:
    """Read the ids, and count the rows that will have no score because of them."""
    has_ids = np.flatnonzero(lengths.tokens > 0)
    share = min(1.0, MOST_ROWS / max(len(has_ids), 1), MOST_IDS / max(int(lengths.tokens.sum()), 1))
    count = max(int(len(has_ids) * share), min(len(has_ids), 1))
    # At random, because files and domains often alternate; the same draw for the same rows.
    looked_at = np.sort(np.random.default_rng(0).choice(has_ids, count, replace=False)) if share < 1 else has_ids
    counts = Counter(_problems(rows, np.flatnonzero(lengths.tokens == 0), vocab_size).values())
    problems = _problems(rows, looked_at, vocab_size)
    for kind, found in Counter(problems.values()).items():
        counts[kind] += round(found * len(has_ids) / count)
    good_lengths = lengths.tokens.copy()
    good_lengths[list(problems)] = 0
    return BadIds(counts=counts, good_lengths=RowLengths(good_lengths))


def _problems(rows: Rows, positions: npt.NDArray[np.int64], vocab_size: int) -> dict[int, str]:
    """The type of the error of each of these rows that has one."""
    found: dict[int, str] = {}
    # Neighbouring positions are read together: one read of a block costs hardly more than one of a row.
    for neighbours in np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1):
        # For no positions `np.split` returns one empty array, which has no part.
        for start in range(0, len(neighbours), _ROWS_AT_A_TIME):
            part = neighbours[start : start + _ROWS_AT_A_TIME].tolist()
            for row in rows.read(part[0], part[-1] + 1):
                try:
                    token_ids(row, vocab_size=vocab_size)
                except RowError as error:
                    found[row.position] = error.kind
    return found


def remedy_for_short_rows(method: Method, length: int) -> str:
    """What to do where rows of that length have no span to score, which starts with a verb."""
    default = default_span_tokens(length)
    if _leaves_a_span(method, length, span_tokens=default):
        return f"give --span-tokens {default}, or longer rows"
    # Before spans shorter than the default: single tokens would fit nearly any other setting.
    n0 = PAPER_N0_SPANS if method.variant == "paper" else None
    stride = Method().d_afs
    near = stride if method.n == method.d_afs else method.n
    usual: dict[str, dict[str, Any]] = {
        "n0": {"n0": n0},
        "m": {"m": Method().m},
        "n": {"n": method.d_afs},
        "d_afs": {"d_afs": stride, "n": near},
    }
    for name, changes in usual.items():
        if _leaves_a_span(method, length, **changes):
            return f"give a smaller --{name.replace('_', '-')} than {getattr(method, name)}, or longer rows"
    for span in range(method.span_tokens - 1, 0, -1):
        if _leaves_a_span(method, length, span_tokens=span):
            return f"give --span-tokens {span}, or longer rows"
    return "make longer rows (--length of ladm prepare)"


def _leaves_a_span(method: Method, length: int, **changes: Any) -> bool:
    return bool(replace(method, **changes).grid(length).J)
