"""Intact documents -> the contrast set of the first measurements, kept so that their committed files can be made again.

`ladm calibrate` makes a harder one now (`ladm/calibration/contrast.py`): it pastes within packages too, keeps packages
in one half, and repeats blocks with a second period.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.corpus.rows.row import Ids
from ladm.errors import LadmError

INTACT, SHUFFLED, REPEATED, LIST = "intact", "shuffled", "repeated", "list"
PIECES = (2, 4, 8, 16)
PASTED = tuple(f"{pieces} pieces" for pieces in PIECES)
REPEATS = 16
RECORDS = 64
FIXED_SHARE_OF_RECORD = 2 / 3
"""How much of a record in a `list` row is the same in all records."""
MIN_DOCUMENTS = 2 * max(PIECES)
"""So that each half has 16 different documents to paste together."""
DEGRADED_EVERY = 4
"""Every fourth document also gives a shuffled, a repeated and a list row. Results report their AUC, but no score is
chosen by it: they are no model of real lists."""


@dataclass(frozen=True, kw_only=True)
class ContrastRow:
    """One row of a contrast set. `document` is the number of the document that its first token comes from."""

    kind: str
    half: int
    document: int
    ids: Ids


def halves(groups: list[str], *, seed: int) -> npt.NDArray[np.int64]:
    """0 or 1 for each document, in equal numbers; documents of one group, such as parts of a book, stay together."""
    draw = np.random.default_rng(seed)
    names = sorted(set(groups))
    draw.shuffle(names)
    counts = {name: groups.count(name) for name in names}
    sizes, half_of = [0, 0], {}
    # Largest group first, each into the smaller half, which keeps the halves even. The sort is stable, so that groups
    # of equal size stay in the order that was drawn.
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
) -> list[ContrastRow]:
    """All rows of the set. The documents have one length, which is that of every row.

    - intact: the document itself.
    - k pieces: each k-th from another document of the same half, at the position that it had in its own. All pasted
      rows of one k together hold exactly the tokens of the intact documents.

    With `degraded`, every fourth document also gives
    - shuffled: its spans in random order.
    - repeated: one sixteenth of it, sixteen times.
    - list: 64 records, of which two thirds are the same tokens in the same places and the rest its own tokens.

    Raises LadmError where a half has fewer documents than the largest number of pieces.
    """
    rows: list[ContrastRow] = []
    for half in sorted({int(half) for half in half_of}):
        members = [int(k) for k in np.flatnonzero(half_of == half)]
        if len(members) < max(pieces):
            raise LadmError(
                f"{len(documents)} documents make halves of {(half_of == 0).sum()} and {(half_of == 1).sum()}; "
                f"each half needs {max(pieces)} different ones to paste together"
            )
        # A generator for each half, so that the rows of one do not depend on the size of the other.
        draw = np.random.default_rng([seed, half])
        rows += [ContrastRow(kind=INTACT, half=half, document=k, ids=documents[k]) for k in members]
        for count in pieces:
            rows += _pasted(documents, members, count, half=half, draw=draw)
        for k in members[::DEGRADED_EVERY] if degraded else ():
            for kind, ids in _degraded(documents[k], span_tokens, draw):
                rows.append(ContrastRow(kind=kind, half=half, document=k, ids=ids))
    return rows


def _pasted(
    documents: list[Ids], members: list[int], pieces: int, *, half: int, draw: np.random.Generator
) -> Iterator[ContrastRow]:
    """Part p of row r is from the (r + p s)-th document of a random order, with s = n // pieces.

    With 6 documents and 2 pieces, s is 3: row 0 is documents 0 and 3, row 1 is 1 and 4, ..., row 5 is 5 and 2. Every
    document gives every part once, and no row has two parts of one document.
    """
    order = draw.permutation(members)
    n, T = len(order), len(documents[members[0]])
    # Whole tokens without a gap: 10 tokens in 4 pieces have the bounds 0, 2, 5, 7 and 10.
    bounds = [T * p // pieces for p in range(pieces + 1)]
    stride = n // pieces
    for r in range(n):
        # p * stride is below n for every p, so the sources of a row are all different.
        sources = [int(order[(r + p * stride) % n]) for p in range(pieces)]
        ids = [documents[k][bounds[p] : bounds[p + 1]] for p, k in enumerate(sources)]
        yield ContrastRow(kind=f"{pieces} pieces", half=half, document=sources[0], ids=np.concatenate(ids))


def _degraded(ids: Ids, span_tokens: int, draw: np.random.Generator) -> Iterator[tuple[str, Ids]]:
    T = len(ids)
    # At least two spans, or there is nothing to shuffle.
    spans = np.array_split(ids, max(2, T // span_tokens))
    yield SHUFFLED, np.concatenate([spans[k] for k in draw.permutation(len(spans))])
    block = max(1, T // REPEATS)
    start = int(draw.integers(0, T - block + 1))
    # np.resize repeats the block until it fills the row.
    yield REPEATED, np.resize(ids[start : start + block], T)
    yield LIST, _list_row(ids, draw)


def _list_row(ids: Ids, draw: np.random.Generator) -> Ids:
    """Records of one form: the same tokens at the fixed positions of each, the document's own at the others."""
    T = len(ids)
    record_tokens = max(3, T // RECORDS)
    start = int(draw.integers(0, T - record_tokens + 1))
    form = np.resize(ids[start : start + record_tokens], T)
    is_own = draw.random(record_tokens) >= FIXED_SHARE_OF_RECORD
    return np.where(np.resize(is_own, T), ids, form)
