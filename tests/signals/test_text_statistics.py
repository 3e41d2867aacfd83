"""Statistics without a model: each against a plain count of its definition."""

from __future__ import annotations

import math
import zlib
from collections import Counter

import numpy as np
import pytest

from ladm.settings.signals import COLUMNS_OF, TEXT
from ladm.signals.text_statistics import (
    COLUMNS,
    UnigramTable,
    distance_to_last,
    repeated_ngrams,
    text_statistics,
)


def test_distance_to_the_last_occurrence() -> None:
    assert distance_to_last(np.array([5, 7, 5, 5, 7])).tolist() == [0, 0, 2, 1, 3]


@pytest.mark.parametrize("n", [1, 2, 4, 13])
def test_repeated_ngrams_are_those_seen_before(n: int) -> None:
    ids = np.random.default_rng(n).integers(0, 6, 400)
    seen: set[tuple[int, ...]] = set()
    repeated = 0
    for start in range(len(ids) - n + 1):
        ngram = tuple(ids[start : start + n].tolist())
        repeated += ngram in seen
        seen.add(ngram)
    assert repeated_ngrams(ids, n) == pytest.approx(repeated / (len(ids) - n + 1))


def test_a_row_shorter_than_an_ngram_repeats_nothing() -> None:
    assert repeated_ngrams(np.array([1, 1, 1]), 4) == 0.0


def test_far_rare_counts_rare_tokens_whose_last_occurrence_is_far_back() -> None:
    T, vocabulary = 800, 50_000
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 40, T)
    ids[[10, 700, 705]] = 40_000
    corpus = [draw.integers(0, 40, 20_000)]
    table = UnigramTable.count(corpus, vocab_size=vocabulary)
    last: dict[int, int] = {}
    expected = 0
    for t, x in enumerate(ids.tolist()):
        expected += table.log_probability(np.array([x])).item() < -8 and x in last and t - last[x] >= T / 8
        last[x] = t
    assert expected == 1
    found = text_statistics(ids, None, unigrams=table)
    assert found.far_rare == pytest.approx(1 / T)


def test_statistics_of_the_text_and_of_the_ids() -> None:
    ids = np.array([3, 1, 4, 1, 5, 9, 2, 6])
    text = "pi is 3.14159, more or less: é"
    table = UnigramTable.count([ids], vocab_size=10)
    found = text_statistics(ids, text, unigrams=table)
    raw = text.encode()
    assert found.gzip_ratio == len(zlib.compress(raw, 6)) / len(raw)
    assert found.characters_per_token == len(text) / 8
    assert found.digits == 6 / len(text)
    shares = [count / 8 for count in Counter(ids.tolist()).values()]
    assert found.unigram_entropy == pytest.approx(-sum(p * math.log(p) for p in shares))
    assert tuple(found.columns()) == COLUMNS
    without = text_statistics(ids, None, unigrams=table).columns()
    assert {"characters_per_token", "digits"} & set(without) == set()
    assert without["gzip_ratio"] > 0


def test_the_table_adds_one_to_every_count() -> None:
    table = UnigramTable.count([np.array([0, 0, 1])], vocab_size=3)
    assert np.exp(table.log_probability(np.arange(3))) == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert table.digest() != UnigramTable.count([np.array([0, 1, 1])], vocab_size=3).digest()


def test_an_id_that_the_table_lacks_counts_as_never_seen() -> None:
    table = UnigramTable.count([np.array([0, 0, 1])], vocab_size=3)
    assert np.exp(table.log_probability(np.array([2, 3, 4_000]))) == pytest.approx([1 / 6] * 3)


def test_the_columns_are_those_that_the_settings_know() -> None:
    assert COLUMNS_OF[TEXT] == COLUMNS
