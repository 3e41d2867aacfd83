"""Intact documents -> a contrast set: the same tokens with the long-range structure taken out, in known ways.

Every document gives its rows to one half only, and pieces are exchanged within a half only, so that what is chosen on
one half can be judged on the other. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.corpus.rows import Ids
from ladm.errors import LadmError

INTACT, SHUFFLED, REPEATED, LIST = "intact", "shuffled", "repeated", "list"
PIECES = (2, 4, 8, 16)
PASTED = tuple(f"{pieces} pieces" for pieces in PIECES)
REPEATS = 16
RECORD_SHARE_FIXED = 2 / 3
RECORDS = 64
FEWEST_DOCUMENTS = 2 * max(PIECES)
"""So that each half can paste together 16 different documents."""
DEGRADED_EVERY = 4
"""One document in so many also gives a shuffled, a repeated and a list row: they are reported, never chosen by."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One row of a contrast set. `document` is the number of the document that its first token comes from."""

    kind: str
    half: int
    document: int
    ids: Ids


def halves(groups: list[str], *, seed: int) -> npt.NDArray[np.int64]:
    """0 or 1 for each document, half of them each; documents of one group, such as parts of a book, stay together."""
    draw = np.random.default_rng(seed)
    names = sorted(set(groups))
    draw.shuffle(names)
    counts = {name: groups.count(name) for name in names}
    sizes, half_of = [0, 0], {}
    for name in sorted(names, key=lambda name: -counts[name]):
        half = int(sizes[1] < sizes[0])
        half_of[name] = half
        sizes[half] += counts[name]
    return np.array([half_of[group] for group in groups])


def contrast_set(
    documents: list[Ids],
    half_of: npt.NDArray[np.int64],
    *,
    span_tokens: int,
    seed: int,
    pieces: tuple[int, ...] = PIECES,
    degraded: bool = True,
) -> list[Contrast]:
    """All rows of the set, each as long as the documents, which are all equally long.

    - intact: the document itself.
    - k pieces: the k-th parts of k different documents of the same half, each where it was in its own; all the
      pasted rows of a k together hold exactly the tokens of the intact ones.

    With `degraded`, of every fourth document also
    - shuffled: the spans of one document in random order.
    - repeated: one sixteenth of a document, sixteen times.
    - list: 64 records, two thirds of each the same words in the same places, the rest from the document.

    Raises LadmError where a half is too small to paste so many different documents together.
    """
    rows: list[Contrast] = []
    for half in sorted({int(half) for half in half_of}):
        members = [int(k) for k in np.flatnonzero(half_of == half)]
        if len(members) < max(pieces):
            raise LadmError(
                f"{len(documents)} documents make halves of {(half_of == 0).sum()} and {(half_of == 1).sum()}; "
                f"each half needs {max(pieces)} to paste different ones together"
            )
        draw = np.random.default_rng([seed, half])
        rows += [Contrast(kind=INTACT, half=half, document=k, ids=documents[k]) for k in members]
        for count in pieces:
            rows += _pasted(documents, members, count, half=half, draw=draw)
        for k in members[::DEGRADED_EVERY] if degraded else ():
            for kind, ids in _degraded(documents[k], span_tokens, draw):
                rows.append(Contrast(kind=kind, half=half, document=k, ids=ids))
    return rows


def _pasted(
    documents: list[Ids], members: list[int], pieces: int, *, half: int, draw: np.random.Generator
) -> Iterator[Contrast]:
    """Part p of row r comes from the (r + p s)-th document of a random order: no document twice in a row."""
    order = draw.permutation(members)
    n, T = len(order), len(documents[members[0]])
    bounds = [T * p // pieces for p in range(pieces + 1)]
    stride = n // pieces
    for r in range(n):
        sources = [int(order[(r + p * stride) % n]) for p in range(pieces)]
        ids = [documents[k][bounds[p] : bounds[p + 1]] for p, k in enumerate(sources)]
        yield Contrast(kind=f"{pieces} pieces", half=half, document=sources[0], ids=np.concatenate(ids))


def _degraded(ids: Ids, span_tokens: int, draw: np.random.Generator) -> Iterator[tuple[str, Ids]]:
    T = len(ids)
    spans = np.array_split(ids, max(2, T // span_tokens))
    yield SHUFFLED, np.concatenate([spans[k] for k in draw.permutation(len(spans))])
    block = max(1, T // REPEATS)
    start = int(draw.integers(0, T - block + 1))
    yield REPEATED, np.resize(ids[start : start + block], T)
    yield LIST, _list(ids, draw)


def _list(ids: Ids, draw: np.random.Generator) -> Ids:
    """Records of one form: the same tokens in the fixed places of each, the document's own in the others."""
    T = len(ids)
    record = max(3, T // RECORDS)
    start = int(draw.integers(0, T - record + 1))
    form = np.resize(ids[start : start + record], T)
    free = draw.random(record) >= RECORD_SHARE_FIXED
    return np.where(np.resize(free, T), ids, form)
