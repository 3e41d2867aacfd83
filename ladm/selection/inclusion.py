"""Documents -> those that a selection takes into account: excluded domains and lists of ids leave the others out.

What is left out counts for no rank, mean, quantile or share. Imports no torch.
Shape suffixes: N documents with a score, T rows of all runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.errors import LadmError
from ladm.selection.budget import BATCH_DOCUMENTS
from ladm.selection.domain_codes import DomainCodes
from ladm.selection.id_lists import IdListManifest, MatchedIds
from ladm.selection.sources import SelectionSource

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Inclusion:
    """Which documents are left, and how many are not."""

    included_N: npt.NDArray[np.bool_] | None = None
    """None: all of them."""
    domains: dict[str, int] = field(default_factory=dict)
    """Excluded domains, with their documents."""
    id_lists: list[IdListManifest] = field(default_factory=list)
    outside_only_ids: int = 0
    """Documents that no list of --only-ids has."""

    def compact(self, values_N: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The values of the included documents, moved to the front of the same array."""
        return values_N if self.included_N is None else compacted(values_N, self.included_N)


def find_included(
    codes_N: npt.NDArray[np.int32],
    rows_N: Ints,
    domains: DomainCodes,
    *,
    excluded: Sequence[str],
    ids: MatchedIds | None,
    sources: Sequence[SelectionSource],
) -> Inclusion:
    """Which documents are outside of the `excluded` domains, and left by the lists of ids.

    Raises UsageError for a domain that no row has, and LadmError where no document is left.
    """
    if not excluded and ids is None:
        return Inclusion()
    codes = domains.codes_of(excluded, where=", ".join(source.rows.name for source in sources))
    included_N = ~np.isin(codes_N, codes)
    if not included_N.any():
        raise LadmError("--exclude-domain leaves no document; exclude fewer domains")
    counts = np.bincount(codes_N[~included_N], minlength=len(domains.names))
    id_lists, outside = ([], 0) if ids is None else ids.apply(rows_N, included_N)
    return Inclusion(
        included_N=included_N,
        domains={domains.names[code]: int(counts[code]) for code in sorted(set(codes))},
        id_lists=id_lists,
        outside_only_ids=outside,
    )


def wanted_rows(
    domains: DomainCodes, *, excluded: Sequence[str], ids: MatchedIds | None
) -> npt.NDArray[np.bool_] | None:
    """The rows outside of the `excluded` domains and in the lists of --only-ids: (T,); None: all of them.

    Also those that --exclude-ids drops, of which no copy is wanted either.
    """
    wanted_T = None if ids is None else ids.wanted_T
    if excluded:
        outside_T = ~np.isin(domains.codes_T, [domains.names.index(name) for name in excluded])
        wanted_T = outside_T if wanted_T is None else wanted_T & outside_T
    return wanted_T


def compacted(values_N: npt.NDArray[Any], included_N: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """The values of the included documents, moved to the front of the same array."""
    stop = 0
    # In place and a batch at a time, because the array may be a file that is larger than memory.
    for start in range(0, len(values_N), BATCH_DOCUMENTS):
        kept = values_N[start : start + BATCH_DOCUMENTS][included_N[start : start + BATCH_DOCUMENTS]]
        values_N[stop : stop + len(kept)] = kept
        stop += len(kept)
    return values_N[:stop]
