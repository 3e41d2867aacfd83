"""A row and the parts of its score -> what is written of it: the pairs that make the score, and their words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ladm.corpus.rows import Row, token_ids
from ladm.corpus.tokenization import spell
from ladm.errors import LadmError, RowError
from ladm.explain.decompose import Parts
from ladm.method.grid import Grid, Method
from ladm.method.reduction import Floats
from ladm.runs.folder import INSPECTED_FORMAT
from ladm.scoring.engines.work import is_out_of_memory

EXCERPT_TOKENS, AROUND_TOKENS = 80, 32

TakeApart = Callable[..., Parts]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A document to look at, as the run has it."""

    rank: int
    position: int
    score: float
    num_tokens: int
    index: int | str
    meta: str
    cds: list[float] | None
    """CDS of all layers or heads that the run kept of those that make the score; None: it kept none of them."""


@dataclass(frozen=True, kw_only=True)
class Explainer:
    """A model at work on single documents, and what is said of them."""

    take: TakeApart
    method: Method
    vocab_size: int
    kept_at: list[int]
    """Where, among the kept CDS, those of the score stand."""
    names: list[str]
    tolerance: float
    tokenizer: Any
    made_with: dict[str, str]

    def is_explained(self, path: Path, wanted: Wanted) -> bool:
        """Is it there already, made in the same way, of this document?"""
        try:
            found = json.loads(path.read_bytes())
            same = {"format": INSPECTED_FORMAT, "score": wanted.score, "made_with": self.made_with}
            told = bool(found["excerpt"]) == (self.tokenizer is not None)
            return told and same == {name: found[name] for name in same}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def explain(self, row: Row, wanted: Wanted, source: str) -> dict[str, Any]:
        """What is to be known of a document. Raises LadmError where it is not the one that was scored."""
        try:
            ids = token_ids(row, vocab_size=self.vocab_size)
        except RowError as error:
            raise LadmError(f"row {row.position} of {source}: {error}") from None
        if (row.index, row.meta, len(ids)) != (wanted.index, json.loads(wanted.meta), wanted.num_tokens):
            raise LadmError(f"{source} are not the rows of the run: row {row.position} is another document")
        parts = self._take(torch.from_numpy(ids).unsqueeze(0), self.method.grid(len(ids)), row.position)
        self._require_same(parts, wanted, source)
        listed = ids.tolist()
        return {
            "format": INSPECTED_FORMAT,
            "made_with": self.made_with,
            "position": row.position,
            "index": row.index,
            "chunked_index": row.chunked_index,
            "num_tokens": len(ids),
            "score": wanted.score,
            "score_here": parts.score,
            "span_tokens": parts.grid.l,
            "first_token": parts.grid.start(0),
            "columns": [
                {"name": name, "cds": _short(cds), "weight": _short(w)}
                for name, cds, w in zip(self.names, parts.cds_P, parts.w_P, strict=True)
            ],
            "j": list(parts.grid.J),
            "i": [list(spans) for spans in parts.grid.I],
            "pfs": _used(parts.pfs_JN, parts.grid),
            "part": _used(parts.part_JN, parts.grid),
            "excerpt": "".join(self._spell(listed[:EXCERPT_TOKENS])),
            "pairs": [self._pair(listed, parts, k) for k in range(len(parts.pairs))],
        }

    def _take(self, ids_BT: Tensor, grid: Grid, position: int) -> Parts:
        for low_memory in (False, True):
            try:
                return self.take(ids_BT, grid, low_memory=low_memory)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
        raise LadmError(f"row {position}: its {grid.T:,} tokens do not fit the device's memory; try another --device")

    def _require_same(self, parts: Parts, wanted: Wanted, source: str) -> None:
        """Raise LadmError where the CDS, or without them the score, are not those of the run."""
        if wanted.cds is None:
            here, there = np.array([parts.score]), np.array([wanted.score])
        else:
            here, there = parts.cds_P, np.array(wanted.cds)[self.kept_at]
        if not _norm(here - there) <= self.tolerance * _norm(there):
            raise LadmError(
                f"row {wanted.position} of {source} has the score {parts.score:.6g} here and {wanted.score:.6g} in the "
                "run: it is another document"
            )

    def _pair(self, ids: list[int], parts: Parts, k: int) -> dict[str, Any]:
        """A pair of spans: its part of the score, and how much of that is each token's, on both sides."""
        (row, i), weights_ll = parts.pairs[k], parts.tokens[k]
        j = parts.grid.J[row]
        return {
            "j": j,
            "i": i,
            "part": _short(parts.part_JN[row, i]),
            "pfs": _short(parts.pfs_JN[row, i]),
            "later": self._span(ids, parts.grid.tokens(j), weights_ll.sum(dim=1)),
            "earlier": self._span(ids, parts.grid.tokens(i), weights_ll.sum(dim=0)),
        }

    def _span(self, ids: list[int], tokens: slice, weights_l: Tensor) -> dict[str, Any]:
        """Texts of the tokens of a span, what each adds to the score, and a little of what stands around it."""
        start = max(0, tokens.start - AROUND_TOKENS)
        pieces = self._spell(ids[start : tokens.stop + AROUND_TOKENS])
        first, last = tokens.start - start, tokens.stop - start
        return {
            "first_token": tokens.start,
            "tokens": pieces[first:last],
            "weights": [_short(w) for w in weights_l],
            "before": "".join(pieces[:first]),
            "after": "".join(pieces[last:]),
        }

    def _spell(self, ids: list[int]) -> list[str]:
        return [] if self.tokenizer is None else spell(self.tokenizer, ids)


def _norm(values: Floats) -> float:
    return float(np.linalg.norm(values))


def _used(values_JN: Tensor, grid: Grid) -> list[list[float]]:
    """The values of the pairs that are used, a list for each scored span."""
    return [[_short(x) for x in values_JN[row, list(spans)]] for row, spans in enumerate(grid.I)]


def _short(value: Any) -> float:
    """Six digits of a number."""
    return float(f"{float(value):.6g}")
