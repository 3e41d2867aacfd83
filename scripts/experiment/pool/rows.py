"""Documents -> rows of a fixed number of tokens; and the rule that no two rows share much of their text."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRAM_WORDS = 13
MOST_SHARED = 0.2
ROWS_A_DOCUMENT = 2
CHARACTERS_A_TOKEN = 4.5
"""Enough for most texts at a first try; where it is not, twice as many are tokenised, and so on."""


ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class RowText:
    text: str
    ids: NDArray[np.uint16]


def cut_rows(text: str, tokenizer: Any, *, tokens: int, most: int = ROWS_A_DOCUMENT) -> list[RowText]:
    """Up to `most` rows of exactly `tokens` tokens, one after the other, each beginning at the start of a line.

    `tokenizer` is a `tokenizers.Tokenizer`; its offsets give each row's text exactly.
    """
    rows: list[RowText] = []
    start = 0
    while len(rows) < most and start < len(text):
        size = round(tokens * CHARACTERS_A_TOKEN)
        encoded = tokenizer.encode(text[start : start + size], add_special_tokens=False)
        while len(encoded.ids) <= tokens and start + size < len(text):
            size *= 2
            encoded = tokenizer.encode(text[start : start + size], add_special_tokens=False)
        if len(encoded.ids) < tokens:
            break
        stop = start + encoded.offsets[tokens - 1][1]
        rows.append(RowText(text=text[start:stop], ids=np.array(encoded.ids[:tokens], np.uint16)))
        following = text.find("\n", stop)
        start = len(text) if following < 0 else following + 1
    return rows


def grams(text: str) -> NDArray[np.uint64]:
    """The distinct 13-grams of a text's words, as sorted 64-bit hashes; case and punctuation do not count."""
    words = re.findall(r"\w+", text.lower())
    if len(words) < GRAM_WORDS:
        return np.array([], np.uint64)
    # 64 bits of each word, mixed to 64 bits of each 13-gram: among the 10^7 of a pool the probability that any two
    # different ones collide is about 10^-5.
    of_word = {
        word: int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little") for word in set(words)
    }
    values = np.array([of_word[word] for word in words], np.uint64)
    windows = len(words) - GRAM_WORDS + 1
    hashes = np.zeros(windows, np.uint64)
    with np.errstate(over="ignore"):
        for k in range(GRAM_WORDS):
            hashes = (hashes ^ values[k : k + windows]) * ODD
            hashes ^= hashes >> np.uint64(32)
    return np.unique(hashes)


class SharedText:
    """Which rows may stand beside those that were admitted before: none that shares too many 13-grams with one of them.

    An inverted index from 13-gram to the rows that have it, kept as sorted blocks, so that a new row is compared with
    every earlier row exactly and at once.
    """

    def __init__(self, *, most_shared: float = MOST_SHARED) -> None:
        self.most_shared = most_shared
        self.largest = 0.0
        """The largest share of 13-grams that any two admitted rows have in common."""
        self.sizes: list[int] = []
        self.recent: list[tuple[NDArray[np.uint64], NDArray[np.int32]]] = []

    def admit(self, row_grams: NDArray[np.uint64]) -> bool:
        """Whether a row is admitted; it is remembered if so."""
        share = self.largest_share(row_grams)
        if share > self.most_shared:
            return False
        self.largest = max(self.largest, share)
        self.recent.append((row_grams, np.full(len(row_grams), len(self.sizes), np.int32)))
        self.sizes.append(len(row_grams))
        if len(self.recent) > 40:
            hashes = np.concatenate([each for each, _ in self.recent])
            owners = np.concatenate([each for _, each in self.recent])
            order = np.argsort(hashes, kind="stable")
            self.recent = [(hashes[order], owners[order])]
        return True

    def largest_share(self, row_grams: NDArray[np.uint64]) -> float:
        """The largest share of 13-grams with one earlier row, in the smaller of the two."""
        if not len(row_grams) or not self.sizes:
            return 0.0
        shared = np.zeros(len(self.sizes), np.int64)
        for hashes, owners in self.recent:
            first, last = np.searchsorted(hashes, row_grams, "left"), np.searchsorted(hashes, row_grams, "right")
            hits = np.flatnonzero(last > first)
            # A 13-gram of several earlier rows stands in the index once for each of them.
            for k in hits:
                shared[owners[first[k] : last[k]]] += 1
        smaller = np.minimum(np.array(self.sizes), len(row_grams))
        return float(np.max(shared / np.maximum(smaller, 1)))
