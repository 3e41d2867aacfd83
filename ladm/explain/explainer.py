"""A row and its score in a run -> an inspected document: the pairs of spans that make the score, and their words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ladm.corpus.preparation.tokenization import spell
from ladm.corpus.rows.identity import own_keys
from ladm.corpus.rows.row import Row, token_ids
from ladm.errors import LadmError, RowError, is_out_of_memory
from ladm.explain.decompose import Decomposer, Decomposition
from ladm.explain.inspected_document import InspectedDocument, ScoreColumn, SpanPair, SpanText, read_inspected
from ladm.method.grid import Grid, Method
from ladm.method.reduction import Floats

EXCERPT_TOKENS, AROUND_TOKENS = 80, 32


@dataclass(frozen=True, kw_only=True)
class ScoredDocument:
    """A document to inspect, as the run's results have it."""

    rank: int
    id: str
    """Its own id, or its index; with its part, where it is cut into windows."""
    name: str
    """As `ladm top` shows it: with its file, where `id` is only a number."""
    position: int
    score: float
    num_tokens: int
    index: int | str
    meta: str
    """JSON text."""
    cds: list[float] | None
    """CDS of all layers or heads that the run stored for the score's form; None where it stored none."""


@dataclass(frozen=True, kw_only=True)
class Explainer:
    """Explains the scores of one run, document by document."""

    decomposer: Decomposer
    method: Method
    vocab_size: int
    stored_at: list[int]
    """Where the score's columns are among the stored CDS."""
    column_names: list[str]
    tolerance: float
    """How far CDS may differ from the run's, relatively, before it is another document."""
    tokenizer: Any
    """None: no texts."""
    made_with: dict[str, str]

    def is_explained(self, path: Path, document: ScoredDocument) -> bool:
        """Does the file already explain this score, made in the same way?"""
        try:
            found = read_inspected(path)
        except LadmError:
            return False
        # Files of an earlier call without a tokenizer are written again once there is one.
        has_text = bool(found.excerpt)
        return (found.score, found.made_with, has_text) == (
            document.score, self.made_with, self.tokenizer is not None,
        )  # fmt: skip

    def explain(self, row: Row, document: ScoredDocument, source: str) -> InspectedDocument:
        """Decompose the score of `row`. Raises LadmError where the row is not the document that was scored."""
        try:
            ids = token_ids(row, vocab_size=self.vocab_size)
        except RowError as error:
            raise LadmError(f"row {row.position} of {source}: {error}") from None
        # Without nulls: rows that were added later may have given all rows the keys of their meta.
        here = (row.index, own_keys(row.meta), len(ids))
        if here != (document.index, own_keys(json.loads(document.meta)), document.num_tokens):
            raise LadmError(f"{source} are not the rows of the run: row {row.position} is another document")
        grid = self.method.grid(len(ids))
        found = self._decompose(torch.from_numpy(ids).unsqueeze(0), grid, row.position)
        self._require_same(found, document, source)
        listed = ids.tolist()
        return InspectedDocument(
            made_with=self.made_with,
            position=row.position,
            index=row.index,
            chunked_index=row.chunked_index,
            num_tokens=len(ids),
            score=document.score,
            score_here=found.score,
            span_tokens=grid.l,
            first_token=grid.start(0),
            columns=[
                ScoreColumn(name=name, cds=_six_digits(cds), weight=_six_digits(w))
                for name, cds, w in zip(self.column_names, found.cds_P, found.w_P, strict=True)
            ],
            j=list(grid.J),
            i=[list(spans) for spans in grid.I],
            pfs=_values_of_pairs(found.pfs_JN, grid),
            part=_values_of_pairs(found.part_JN, grid),
            excerpt="".join(self._spell(listed[:EXCERPT_TOKENS])),
            pairs=[self._pair(listed, found, k) for k in range(len(found.pairs))],
        )

    def _decompose(self, ids_BT: Tensor, grid: Grid, position: int) -> Decomposition:
        # Slower with less memory, so only for a document that does not fit otherwise.
        for low_memory in (False, True):
            try:
                return self.decomposer.decompose(ids_BT, grid, low_memory=low_memory)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
        raise LadmError(
            f"row {position}: its {grid.T:,} tokens do not fit in the device's memory; try another --device"
        )

    def _require_same(self, found: Decomposition, document: ScoredDocument, source: str) -> None:
        """Raise LadmError where the CDS, or without them the score, are not those of the run."""
        # Two documents may have the same score by chance, but hardly the same CDS in every layer.
        if document.cds is None:
            here, there = np.array([found.score]), np.array([document.score])
        else:
            here, there = found.cds_P, np.array(document.cds)[self.stored_at]
        # Negated, so that a NaN here counts as different.
        if not _norm(here - there) <= self.tolerance * _norm(there):
            raise LadmError(
                f"row {document.position} of {source} has the score {found.score:.6g} here and {document.score:.6g} "
                "in the run: it is another document"
            )

    def _pair(self, ids: list[int], found: Decomposition, k: int) -> SpanPair:
        """The k-th strongest pair: what it adds to the score, and what each token on both sides adds."""
        (row, i), part_ll = found.pairs[k], found.token_parts[k]
        j = found.grid.J[row]
        return SpanPair(
            j=j,
            i=i,
            part=_six_digits(found.part_JN[row, i]),
            pfs=_six_digits(found.pfs_JN[row, i]),
            later=self._span(ids, found.grid.tokens(j), part_ll.sum(dim=1)),
            earlier=self._span(ids, found.grid.tokens(i), part_ll.sum(dim=0)),
        )

    def _span(self, ids: list[int], tokens: slice, weights_l: Tensor) -> SpanText:
        """Texts of the tokens of a span, what each adds to the score, and some text around it."""
        # Spelled in one piece with the text around: a token's text may depend on the one before, such as a space.
        start = max(0, tokens.start - AROUND_TOKENS)
        pieces = self._spell(ids[start : tokens.stop + AROUND_TOKENS])
        first, last = tokens.start - start, tokens.stop - start
        return SpanText(
            first_token=tokens.start,
            tokens=pieces[first:last],
            weights=[_six_digits(w) for w in weights_l],
            before="".join(pieces[:first]),
            after="".join(pieces[last:]),
        )

    def _spell(self, ids: list[int]) -> list[str]:
        return [] if self.tokenizer is None else spell(self.tokenizer, ids)


def _norm(values: Floats) -> float:
    return float(np.linalg.norm(values))


def _values_of_pairs(values_JN: Tensor, grid: Grid) -> list[list[float]]:
    """The values of the pairs that are used, a list for each scored span."""
    return [[_six_digits(x) for x in values_JN[row, list(spans)]] for row, spans in enumerate(grid.I)]


def _six_digits(value: Tensor | np.float64) -> float:
    # More digits would be noise of float32, and make the file twice as long.
    return float(f"{float(value):.6g}")
