"""Candidates -> those that are left where few rows of a document, or of a value of a column, may be taken. No torch.

Shape suffixes: N documents with a score, T rows of all runs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.corpus.rows.value_keys import NO_VALUE
from ladm.errors import count_of
from ladm.selection.candidates import Candidates
from ladm.selection.domain_codes import DomainCodes
from ladm.selection.sources import SelectionSource
from ladm.selection.windows import first_of_each, read_windows
from ladm.settings.value_caps import ValueCap


@dataclass(frozen=True, kw_only=True)
class CapManifest:
    """A cap of --max-per as the manifest repeats it."""

    column: str
    """As the flag has it: rows.repo, or host(rows.url)."""
    most: int
    left_out: int
    """Rows that could not be selected, because `most` others of the same value rank higher."""
    without_value: int
    """Rows without a value in the column, or without a host in it, which are not limited."""


@dataclass(frozen=True, kw_only=True)
class LimitedCandidates:
    """What the limits leave, and how many rows each left out."""

    candidates: Candidates
    repeating: int
    """Windows of which more than half is in a better one of their document."""
    most: int | None
    """Rows of one document at most."""
    beyond: int
    """Rows beyond that number."""
    caps: list[CapManifest]

    @property
    def text(self) -> str:
        """Why the pool has fewer rows than the run, behind another text; nothing where it has not."""
        text = ""
        if self.repeating:
            rows = count_of(self.repeating, "row")
            text += f"; {rows} left out because more than half is in a better row of the document"
        if self.beyond:
            text += f"; --max-per-document {self.most} leaves {count_of(self.beyond, 'row')} out"
        for cap in self.caps:
            if cap.left_out:
                text += f"; --max-per {cap.column}:{cap.most} leaves {count_of(cap.left_out, 'row')} out"
        return text


def limit_rows(
    candidates: Candidates,
    sources: Sequence[SelectionSource],
    domains: DomainCodes,
    *,
    most: int | None,
    caps: Sequence[ValueCap],
    no_share: Collection[str],
) -> LimitedCandidates:
    """Leave out windows that repeat better ones, rows beyond the best `most` of their document, then those of `caps`.

    Each limit counts the rows that those before it leave, over all domains and runs. `no_share`: domains of which
    nothing is taken, whose rows take no place of others. Memory: about 60 bytes a row, for one column at a time.
    """
    has_share = ~np.isin(np.array(domains.names), list(no_share))

    def count(rows: npt.NDArray[np.int64]) -> int:
        # What nothing would be taken of anyway is not what a limit costs.
        return int(np.count_nonzero(has_share[domains.codes_T[rows]]))

    repeating = beyond = 0
    if most is not None:
        # Read only where they are needed: it is a number for every row of the corpus.
        windows = read_windows([source.rows for source in sources])
        different = candidates.without_repeating(windows)
        kept = first_of_each(windows.documents_T[different.ranked_rows], most)
        repeating = count(candidates.ranked_rows) - count(different.ranked_rows)
        beyond = count(different.ranked_rows[~kept])
        candidates = different.only(kept)
        del windows
    found = []
    for cap in caps:
        # Those of one column at a time.
        keys_T = np.concatenate([source.columns.value_keys(cap) for source in sources])
        keys = keys_T[candidates.ranked_rows]
        del keys_T
        is_free = keys == NO_VALUE
        without_value = count(candidates.ranked_rows[is_free])
        is_free |= ~has_share[domains.codes_T[candidates.ranked_rows]]
        kept = within_caps(keys, cap.most, is_free=is_free)
        found.append(
            CapManifest(
                column=cap.column,
                most=cap.most,
                left_out=count(candidates.ranked_rows[~kept]),
                without_value=without_value,
            )
        )
        candidates = candidates.only(kept)
    return LimitedCandidates(candidates=candidates, repeating=repeating, most=most, beyond=beyond, caps=found)


def within_caps(keys: npt.NDArray[np.int64], most: int, *, is_free: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of ranked rows the first `most` of each key, and all that are free: (n,)."""
    kept = is_free.copy()
    counted = np.flatnonzero(~is_free)
    kept[counted] = first_of_each(keys[counted], most)
    return kept
