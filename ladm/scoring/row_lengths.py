"""Tokens of every row -> how many rows there are of a length, and which will have no score. Imports no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ladm.corpus.rows import commonest
from ladm.modeling.facts import ModelFacts
from ladm.settings.score import ScoreSettings
from ladm.settings.signals import CDS, CONTEXT_GAIN, LONGATTN, PROLONG, TEXT
from ladm.signals.prolong import number_of_segments
from ladm.signals.scorer import LEAST_TOKENS


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

    def refusals(self, settings: ScoreSettings, facts: ModelFacts) -> Counter[str]:
        """How many rows will have no score, by the type of the error, as far as their lengths say."""
        found: Counter[str] = Counter()
        for length, count in self.counts.items():
            kind = refusal(length, settings, facts)
            if kind is not None:
                found[kind] += count
        return found


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
    if facts.max_tokens is not None and length > facts.max_tokens:
        return "too_long"
    if CDS in signals and not settings.method.grid(length).J:
        return "too_short"
    return "too_short" if length < LEAST_TOKENS and {CONTEXT_GAIN, LONGATTN} & set(signals) else None
