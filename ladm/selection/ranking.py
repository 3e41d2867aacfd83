"""Candidates, best first -> the documents of every domain, best first. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.selection.budget import Domains, DomainSelection
from ladm.selection.candidates import Candidates
from ladm.selection.domain_codes import DomainCodes
from ladm.storage.disk_arrays import array_on_disk

_COLUMNS = (("positions", "i8"), ("num_tokens", "i8"), ("scores", "f8"))

Ints = npt.NDArray[np.int64]


def rank_by_domain(candidates: Candidates, domains: DomainCodes, *, work: Path) -> Domains:
    """The candidates by domain, in the order of the domains' names, each domain best first.

    The columns are files in the folder `work`, 24 bytes a row, so that memory does not grow with the run.
    """
    counts = np.zeros(len(domains.names), dtype=np.int64)
    for rows, _, _ in candidates.batches():
        counts += np.bincount(domains.codes_T[rows], minlength=len(counts))
    positions, tokens, values = _group_by_domain(candidates, domains.codes_T, counts, work)
    stops = np.cumsum(counts).tolist()
    # [0, *stops] is one longer than stops: its last entry, the end of all, starts nothing.
    parts = {name: slice(start, stop) for name, start, stop in zip(domains.names, [0, *stops], stops, strict=False)}
    found = {}
    for name, part in sorted(parts.items()):
        if part.stop > part.start:
            found[name] = DomainSelection(positions=positions[part], num_tokens=tokens[part], scores=values[part])
    return found


def _group_by_domain(
    candidates: Candidates, codes_T: npt.NDArray[np.int32], counts: Ints, work: Path
) -> tuple[npt.NDArray[Any], ...]:
    """Row numbers, tokens and values with those of a domain together, domain by domain, still best first inside each.

    A counting sort in two passes over the candidates: it is stable, and needs no memory beyond a batch. With 3 rows of
    domain 0 and 2 of domain 1, domain 0 gets the places 0-2 and domain 1 the places 3-4, so `free` starts as [0, 3].
    A batch with the domains [1, 0, 0] is ordered as [0, 0, 1], goes to the places 0, 1 and 3, and leaves `free` as
    [2, 4], which are the next free places.
    """
    n = int(counts.sum())
    columns = tuple(array_on_disk(work / name, kind, n) for name, kind in _COLUMNS)
    free = np.cumsum(counts) - counts
    for batch in candidates.batches():
        codes = codes_T[batch[0]]
        order = np.argsort(codes, kind="stable")
        in_batch = np.bincount(codes, minlength=len(counts))
        first_in_batch = np.cumsum(in_batch) - in_batch
        # Of a row of the ordered batch: the next free place of its domain, plus its number among the batch's rows of
        # that domain.
        places = free[codes[order]] + np.arange(len(order)) - first_in_batch[codes[order]]
        for column, values in zip(columns, batch, strict=True):
            column[places] = values[order]
        free += in_batch
    return columns
