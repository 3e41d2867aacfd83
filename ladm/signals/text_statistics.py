"""A row's token ids and text -> statistics that need no model: the baseline that every model score has to beat.

Milliseconds a row on a CPU. Imports no torch.

Shape suffixes: T tokens of a row, V vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ladm.runs.unigrams import digest_of_counts

Ids = npt.NDArray[np.int64]
LogProbabilities = npt.NDArray[np.float64]

RARE_LOG_PROBABILITY = -8.0
"""Natural logarithm of a token's share of the corpus below which it counts as rare: 1 in 3,000."""
FAR_SHARE = 8
"""An earlier occurrence is far when it is at least T / 8 tokens back."""
GZIP_LEVEL = 6
SHORT_NGRAM, LONG_NGRAM = 4, 13
SAMPLED_ROWS = 4096
"""Rows that the table of unigrams is counted on, evenly spaced over the data."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class TextStatistics:
    """The statistics of one row; NaN for those that need a text, or a table of unigrams, where there is none."""

    OF_TEXT: ClassVar[tuple[str, ...]] = ("characters_per_token", "digits")
    """Those that need a text."""
    gzip_ratio: float
    """Compressed bytes over bytes, of the text, or of the ids where there is none; low means repetitive."""
    far_rare: float
    """Share of the tokens that are rare in the corpus and whose last occurrence lies at least T / 8 tokens back."""
    unigram_entropy: float
    """Entropy of the row's own tokens, in nats."""
    repeated_4grams: float
    """Share of the 4-grams of tokens that occurred earlier in the row."""
    repeated_13grams: float
    """The same of 13-grams: long verbatim repetition."""
    characters_per_token: float
    """Characters of the text over its tokens."""
    digits: float
    """Share of the text's characters that are digits."""

    def columns(self) -> dict[str, float]:
        """The statistics by name, without those that could not be computed."""
        return {name: value for name, value in asdict(self).items() if not np.isnan(value)}


COLUMNS = tuple(field.name for field in fields(TextStatistics))


class UnigramTable:
    """How common every token is in a corpus: log of its share, with one count added to each token."""

    def __init__(self, counts_V: npt.NDArray[np.int64]) -> None:
        self._counts_V = counts_V
        # The last entry stands for every id beyond the table: rows added to a corpus may have ids that were never
        # counted.
        with_unknown = np.append(counts_V, 0) + 1
        self._log_probability: LogProbabilities = np.log(with_unknown / (counts_V.sum() + len(counts_V)))

    def log_probability(self, ids_T: Ids) -> LogProbabilities:
        """The log of the share of each token: (T,). An id that the table does not have counts as never seen."""
        return self._log_probability[np.minimum(ids_T, len(self._counts_V))]

    @classmethod
    def count(cls, rows: Iterable[Ids], *, vocab_size: int) -> UnigramTable:
        """Count the tokens of rows whose ids are all below `vocab_size`."""
        counts_V = np.zeros(vocab_size, dtype=np.int64)
        for ids_T in rows:
            counts_V += np.bincount(ids_T, minlength=vocab_size)
        return cls(counts_V)

    def file_content(self) -> bytes:
        """The counts as a file of numpy."""
        file = BytesIO()
        np.save(file, self._counts_V, allow_pickle=False)
        return file.getvalue()

    def digest(self) -> str:
        """XXH3 of the counts: part of the identity of whatever is made with them."""
        return digest_of_counts(self._counts_V)


def text_statistics(ids_T: Ids, text: str | None, *, unigrams: UnigramTable | None) -> TextStatistics:
    """The statistics of a row of at least one token; `text` None where the data has none."""
    T = len(ids_T)
    raw = ids_T.astype("<u4").tobytes() if text is None else text.encode("utf-8", errors="replace")
    counts = np.unique(ids_T, return_counts=True)[1]
    share = counts / T
    return TextStatistics(
        gzip_ratio=len(zlib.compress(raw, GZIP_LEVEL)) / max(len(raw), 1),
        far_rare=np.nan if unigrams is None else far_rare(ids_T, unigrams),
        unigram_entropy=float(-(share * np.log(share)).sum()),
        repeated_4grams=repeated_ngrams(ids_T, SHORT_NGRAM),
        repeated_13grams=repeated_ngrams(ids_T, LONG_NGRAM),
        characters_per_token=np.nan if text is None else len(text) / T,
        digits=np.nan if text is None else sum(map(text.count, "0123456789")) / max(len(text), 1),
    )


def far_rare(ids_T: Ids, unigrams: UnigramTable) -> float:
    """Share of the tokens that are rare in the corpus and whose last occurrence lies at least T / 8 tokens back."""
    rare_T = unigrams.log_probability(ids_T) < RARE_LOG_PROBABILITY
    return float((rare_T & (distance_to_last(ids_T) >= len(ids_T) / FAR_SHARE)).mean())


def distance_to_last(ids_T: Ids) -> npt.NDArray[np.int64]:
    """Tokens back to the last occurrence of each token in the row: (T,); 0 for a first occurrence.

    For the ids 5, 7, 5, 5 it is 0, 0, 2, 1.
    """
    # A stable sort puts the occurrences of one token side by side in their order, so no loop over the row is needed.
    order_T = np.argsort(ids_T, kind="stable")
    sorted_T = ids_T[order_T]
    distance_T = np.zeros(len(ids_T), dtype=np.int64)
    again = sorted_T[1:] == sorted_T[:-1]
    distance_T[order_T[1:][again]] = (order_T[1:] - order_T[:-1])[again]
    return distance_T


def repeated_ngrams(ids_T: Ids, n: int) -> float:
    """Share of the n-grams that occurred earlier in the row; 0 for a row of fewer than n tokens."""
    places = len(ids_T) - n + 1
    if places < 1:
        return 0.0
    # A 64-bit hash stands for an n-gram: two different ones among 10^5 share theirs once in 10^9 rows.
    hashes = np.zeros(places, dtype=np.uint64)
    for k in range(n):
        hashes = (hashes + ids_T[k : k + places].astype(np.uint64) + np.uint64(1)) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(29)
    return 1.0 - len(np.unique(hashes)) / places
