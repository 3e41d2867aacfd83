"""Documents of known kinds and their columns -> the AUC of the intact ones over each other kind. Imports no torch.

Shape suffixes: A intact documents, B rows of another kind, N documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.calibration.estimates import Estimate, estimate_aucs
from ladm.corpus.rows.domains import all_domains, has_column_of
from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError

MOST_NAMED = 12
"""Kinds that an error names."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class KindAUC:
    """One kind: its rows, and for every column the AUC of intact documents over them, with the interval."""

    kind: str
    rows: int
    by_column: dict[str, Estimate | None]
    """None where no row of the kind, or no intact document, has a value."""


@dataclass(frozen=True, kw_only=True)
class KindTable:
    """The AUC of every kind and column."""

    intact: str
    intact_rows: int
    clusters: int
    kinds: list[KindAUC]


def kind_table(
    columns: Mapping[str, Floats], kinds: list[str | None], clusters: list[Any], *, intact: str, seed: int
) -> KindTable:
    """The AUC of `intact` over every other kind, for each column: 0.5 is chance, 1 ranks every intact document higher.

    `kinds` and `clusters` are of the documents in `columns`; documents without a kind are left out. Intervals are 95 %
    percentiles of a bootstrap that draws clusters with all their rows.
    Raises LadmError where there is no intact document or no other kind.
    """
    # As objects, so that a row without a kind stays None, and is not of a kind whose name is empty.
    names = np.array(kinds, dtype=object)
    # Numbered by first appearance; only which rows share a number matters to the bootstrap.
    numbers: dict[Any, int] = {}
    # A row without a cluster is one of its own: it has nothing in common with the others that is known.
    own = ((k,) if cluster is None else cluster for k, cluster in enumerate(clusters))
    codes_N = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in own], dtype=np.int64)
    num_clusters = len(set(codes_N[[kind is not None for kind in kinds]].tolist()))
    others = sorted({kind for kind in kinds if kind not in (None, intact)})
    is_intact_N = names == intact
    if not is_intact_N.any() or not others:
        every = sorted({kind for kind in kinds if kind})
        more = f" and {len(every) - MOST_NAMED:,} others" if len(every) > MOST_NAMED else ""
        found = ", ".join(kind[:40] for kind in every[:MOST_NAMED]) or "none"
        raise LadmError(f"the kinds are {found}{more}; an AUC needs {intact} and another one (--intact)")
    made = []
    for kind in others:
        is_kind_N = names == kind
        by_column = _estimates(columns, is_intact_N, is_kind_N, codes_N, seed=seed)
        made.append(KindAUC(kind=str(kind), rows=int(is_kind_N.sum()), by_column=by_column))
    return KindTable(intact=intact, intact_rows=int(is_intact_N.sum()), clusters=num_clusters, kinds=made)


def _estimates(
    columns: Mapping[str, Floats],
    is_intact_N: npt.NDArray[np.bool_],
    is_kind_N: npt.NDArray[np.bool_],
    codes_N: npt.NDArray[np.int64],
    *,
    seed: int,
) -> dict[str, Estimate | None]:
    found: dict[str, Estimate | None] = dict.fromkeys(columns)
    # A column may lack some rows, such as those too short for its signal; the others still give an AUC. Columns of the
    # same rows share their draws, which take longer than all the rest.
    alike: dict[bytes, list[str]] = {}
    for name, values_N in columns.items():
        alike.setdefault(np.isnan(values_N).tobytes(), []).append(name)
    for names in alike.values():
        known_N = ~np.isnan(columns[names[0]])
        intact, bad = np.flatnonzero(known_N & is_intact_N), np.flatnonzero(known_N & is_kind_N)
        if len(intact) and len(bad):
            scores = [(columns[name][intact], columns[name][bad]) for name in names]
            found |= dict(zip(names, estimate_aucs(scores, codes_N[intact], codes_N[bad], seed=seed), strict=True))
    return found


def read_row_column(rows: Rows, name: str, positions_N: npt.NDArray[np.int64]) -> list[str | None]:
    """A column of the rows at these positions, or a key inside one such as `meta.kind`, as text.

    A name that is no column is looked for inside `meta`. Raises LadmError where there is neither.
    """
    inside = f"meta.{name}"
    key = name if has_column_of(rows, name) or not has_column_of(rows, inside) else inside
    values = all_domains(rows, key)
    if key == inside and not any(value is not None for value in values):
        there_are = ", ".join(sorted(rows.column_names))
        raise LadmError(f"{rows.name} has no column {name}, and no row has it inside meta; the columns are {there_are}")
    return [values[k] for k in positions_N.tolist()]
