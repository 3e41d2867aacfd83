"""Intact documents -> a contrast set: the same tokens with their long-range structure destroyed, in known ways.

Every kind is a different fault of a document, because a score that orders one of them well may fail on the next.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.calibration.packages import Halves
from ladm.corpus.rows.row import Ids
from ladm.errors import LadmError

INTACT, SHUFFLED, MADE_LIST, REAL_LIST = "intact", "shuffled", "made list", "real list"
PIECES = (2, 4, 8, 16)
PASTED = tuple(f"{pieces} pieces" for pieces in PIECES)
SAME_PACKAGE_PIECES = 4
SAME_PACKAGE = f"{SAME_PACKAGE_PIECES} pieces, same package"
REPEATS = (16, 5)
"""Periods of the repeated block, as parts of a row: a sixteenth is whole spans, a fifth is out of phase with every
stride over spans, which a stride could otherwise mistake for structure or miss altogether."""
REPEATED = tuple(f"repeated T/{repeats}" for repeats in REPEATS)
KINDS = (*PASTED, SAME_PACKAGE, SHUFFLED, *REPEATED, MADE_LIST, REAL_LIST)
"""All kinds that intact documents are compared with, in the order of the tables."""
RECORDS = 64
FIXED_SHARE_OF_RECORD = 2 / 3
"""The share of a made list's record that is the same in all records."""
MIN_DOCUMENTS = 2 * max(PIECES)
"""So that each half has 16 different documents to paste together."""


@dataclass(frozen=True, kw_only=True)
class ContrastRow:
    """One row of a contrast set.

    `document` is the number of the document that its first token comes from; real lists are numbered after the
    documents. `packages` are the sources of its tokens, that of the first token first.
    """

    kind: str
    half: int
    document: int
    packages: tuple[str, ...]
    ids: Ids


def contrast_set(
    documents: list[Ids],
    halves: Halves,
    *,
    span_tokens: int,
    seed: int,
    kinds: tuple[str, ...] = KINDS,
    lists: list[Ids] | None = None,
) -> list[ContrastRow]:
    """The rows of the wanted kinds, the intact ones always. The documents have one length, which is that of all rows.

    - intact: the document itself.
    - k pieces: each k-th from another document of the same half, and of another package where there are enough, at the
      position that it had in its own. All rows of one k together hold exactly the tokens of the intact documents.
    - 4 pieces, same package: the same within one package, where a package has 4 documents in the half.
    - shuffled: the document's spans in random order. A first token that all documents share (BOS) stays in front, here
      and in the next two kinds.
    - repeated T/16, T/5: a block of the document, repeated until the row is full.
    - made list: 64 records, of which two thirds are the same tokens in the same places and the rest its own tokens.
    - real list: `lists`, unchanged.

    A kind that the documents do not allow has no rows. Raises LadmError where a half has fewer documents than the
    largest number of pieces.
    """
    rows: list[ContrastRow] = []
    for half in sorted({int(half) for half in halves.of_documents}):
        members = [int(k) for k in np.flatnonzero(halves.of_documents == half)]
        most = max((pieces for pieces, kind in zip(PIECES, PASTED, strict=True) if kind in kinds), default=1)
        if len(members) < most:
            first, second = ((halves.of_documents == each).sum() for each in (0, 1))
            raise LadmError(
                f"{len(documents)} documents make halves of {first} and {second}; "
                f"each half needs {most} different ones to paste together"
            )
        maker = _Maker(documents, halves.packages, half, span_tokens=span_tokens, seed=seed)
        rows += maker.rows(members, kinds)
    if REAL_LIST in kinds:
        rows += [
            ContrastRow(
                kind=REAL_LIST,
                half=int(halves.of_lists[k]),
                document=len(documents) + k,
                packages=(halves.list_packages[k],),
                ids=ids,
            )
            for k, ids in enumerate(lists or [])
        ]
    return rows


class _Maker:
    """Makes the rows of one half."""

    def __init__(
        self, documents: list[Ids], packages: tuple[str, ...], half: int, *, span_tokens: int, seed: int
    ) -> None:
        self._documents, self._packages, self._half = documents, packages, half
        # A BOS token stays at the front of every row: models pay much of their attention to it, so a row without it
        # would differ from an intact one for a reason that has nothing to do with its structure.
        self._leading_tokens = int(len({int(ids[0]) for ids in documents}) == 1)
        self._span_tokens, self._seed = span_tokens, seed

    def rows(self, members: list[int], kinds: tuple[str, ...]) -> Iterator[ContrastRow]:
        for k in members:
            yield self._row(INTACT, [k], self._documents[k])
        for pieces, kind in zip(PIECES, PASTED, strict=True):
            if kind in kinds:
                yield from self._pasted(kind, self._by_package(members, kind), pieces)
        if SAME_PACKAGE in kinds:
            yield from self._same_package(members)
        for kind in (SHUFFLED, *REPEATED, MADE_LIST):
            # One generator a kind and a half, so that leaving out a kind or a half changes no other rows.
            draw = self._draw(kind)
            for k in members if kind in kinds else ():
                yield self._row(kind, [k], self._degraded(kind, self._documents[k], draw))

    def _draw(self, kind: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, self._half, (INTACT, *KINDS).index(kind)])

    def _row(self, kind: str, sources: list[int], ids: Ids) -> ContrastRow:
        packages = tuple(dict.fromkeys(self._packages[k] for k in sources))
        return ContrastRow(kind=kind, half=self._half, document=sources[0], packages=packages, ids=ids)

    def _by_package(self, members: list[int], kind: str) -> list[int]:
        """The documents in random order, those of a package side by side.

        `_pasted` takes the pieces of a row at equal distances of this order, so none of them share a package unless a
        package is longer than that distance.
        """
        draw = self._draw(kind)
        names = sorted({self._packages[k] for k in members})
        place = dict(zip(names, draw.permutation(len(names)).tolist(), strict=True))
        return sorted(draw.permutation(members).tolist(), key=lambda k: place[self._packages[k]])

    def _same_package(self, members: list[int]) -> Iterator[ContrastRow]:
        draw = self._draw(SAME_PACKAGE)
        for package in sorted({self._packages[k] for k in members}):
            own = [k for k in members if self._packages[k] == package]
            if len(own) >= SAME_PACKAGE_PIECES:
                yield from self._pasted(SAME_PACKAGE, draw.permutation(own).tolist(), SAME_PACKAGE_PIECES)

    def _pasted(self, kind: str, order: list[int], pieces: int) -> Iterator[ContrastRow]:
        """Part p of row r is from the (r + p s)-th document of `order`, with s = n // pieces.

        With 6 documents and 2 pieces, s is 3: row 0 is documents 0 and 3, row 1 is 1 and 4, ..., row 5 is 5 and 2.
        Every document gives every part once, and no row has two parts of one document.
        """
        n, T = len(order), len(self._documents[order[0]])
        # Whole tokens without a gap: 10 tokens in 4 pieces have the bounds 0, 2, 5, 7 and 10.
        bounds = [T * p // pieces for p in range(pieces + 1)]
        stride = n // pieces
        for r in range(n):
            # p * stride is below n for every p, so the sources of a row are all different.
            sources = [order[(r + p * stride) % n] for p in range(pieces)]
            ids = [self._documents[k][bounds[p] : bounds[p + 1]] for p, k in enumerate(sources)]
            yield self._row(kind, sources, np.concatenate(ids))

    def _degraded(self, kind: str, document: Ids, draw: np.random.Generator) -> Ids:
        leading, body = np.split(document, [self._leading_tokens])
        return np.concatenate([leading, self._degraded_body(kind, body, draw)])

    def _degraded_body(self, kind: str, ids: Ids, draw: np.random.Generator) -> Ids:
        T = len(ids)
        if kind == SHUFFLED:
            # At least two spans, or there is nothing to shuffle.
            spans = np.array_split(ids, max(2, T // self._span_tokens))
            return np.concatenate([spans[k] for k in draw.permutation(len(spans))])
        if kind == MADE_LIST:
            return _list_row(ids, draw)
        block = max(1, T // REPEATS[REPEATED.index(kind)])
        start = int(draw.integers(0, T - block + 1))
        # np.resize repeats the block until it fills the row.
        return np.resize(ids[start : start + block], T)


def _list_row(ids: Ids, draw: np.random.Generator) -> Ids:
    """Records of one form: the same tokens at the fixed positions of each, the document's own at the others."""
    T = len(ids)
    record_tokens = max(3, T // RECORDS)
    start = int(draw.integers(0, T - record_tokens + 1))
    form = np.resize(ids[start : start + record_tokens], T)
    is_own: npt.NDArray[np.bool_] = draw.random(record_tokens) >= FIXED_SHARE_OF_RECORD
    return np.where(np.resize(is_own, T), ids, form)


def absent_kinds(rows: list[ContrastRow], kinds: tuple[str, ...] = KINDS, *, by_halves: bool = True) -> list[str]:
    """A line for each wanted kind without rows, with `by_halves` also for one without rows in a half: name and why."""
    reasons = {
        SAME_PACKAGE: f"no package has {SAME_PACKAGE_PIECES} documents in one half; see --package-key",
        REAL_LIST: "give rows of them with --lists",
    }
    in_one_half = {
        SAME_PACKAGE: f"no package of one of the halves has {SAME_PACKAGE_PIECES} documents; see --package-key",
        REAL_LIST: "all are in one half; give more with --lists, or see --package-key",
    }
    both = {row.half for row in rows}
    lines = []
    for kind in kinds:
        halves = {row.half for row in rows if row.kind == kind}
        if not halves:
            lines.append(f"{kind}: {reasons[kind]}")
        elif by_halves and halves != both:
            lines.append(f"{kind}: {in_one_half[kind]}")
    return lines
