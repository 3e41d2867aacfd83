"""One run or two of the same rows, and columns -> where they agree and where not. Imports no torch.

Shape suffixes: N documents with a score in the first run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladm.comparison.agreement import (
    best_inside_domains,
    is_constant,
    overlap,
    ranks_inside_domains,
    spearman_inside_domains,
)
from ladm.comparison.kinds import KindTable, kind_table, read_row_column
from ladm.comparison.result import Comparison, DifferentDocument, Pair
from ladm.errors import LadmError
from ladm.runs.columns.by_name import column_names
from ladm.runs.columns.joined_columns import JoinedColumns
from ladm.runs.columns.joined_files import joined_lines, open_files
from ladm.runs.columns.labels import domain_batches, read_labels
from ladm.runs.columns.quartiles import summarise_columns
from ladm.runs.columns.text_beginnings import BEGINNING_CHARACTERS, TextBeginnings, one_line
from ladm.runs.folder import Run
from ladm.runs.results import require_finished
from ladm.runs.rows_of_run import open_rows_of, partial_coverage
from ladm.selection.evaluation import evaluate
from ladm.selection.ranks import spearman
from ladm.selection.windows import documents_of
from ladm.settings.comparison import MOST_COLUMNS, CompareSettings
from ladm.settings.expressions import Expression, parse_expression

MOST_CORRELATED = 200_000
"""Documents that correlations are computed on; of more, evenly spaced ones."""
MOST_DOMAINS = 100
"""Domains that medians and quartiles are given of, the largest."""

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """Columns of the documents of the first run."""

    positions_N: npt.NDArray[np.int64]
    values: dict[str, Floats]
    domain_names: list[str]
    codes_N: Codes
    joined: list[str]
    """A line for each joined file."""


def compare(settings: CompareSettings) -> Comparison:
    """Compare columns of `settings.runs`.

    Raises LadmError for an unfinished run, runs of different rows, and rows that are not theirs; UsageError for a
    column that a run does not have.
    """
    runs = [Run.open(name) for name in settings.runs]
    if not runs[-1].identity.is_of_same_rows(runs[0].identity):
        raise LadmError(
            f"{runs[1].folder} scored other rows than {runs[0].folder}; only runs of the same rows can be compared"
        )
    columns = _read(runs, settings)
    taken = {
        name: best_inside_domains(values_N, columns.codes_N, names=columns.domain_names, percent=settings.top)
        for name, values_N in columns.values.items()
    }
    constant = {name for name, values_N in columns.values.items() if is_constant(values_N)}
    # A correlation of 200,000 documents is known to a third decimal, and every pair of columns costs two sorts.
    every = max(1, -(-len(columns.positions_N) // MOST_CORRELATED))
    sampled = slice(None, None, every)
    codes_S = columns.codes_N[sampled]
    pairs = [
        Pair(
            a=a,
            b=b,
            spearman=spearman(columns.values[a][sampled], columns.values[b][sampled]),
            inside_domains=spearman_inside_domains(columns.values[a][sampled], columns.values[b][sampled], codes_S),
            overlap=float("nan") if {a, b} & constant else overlap(taken[a], taken[b]),
        )
        for a, b in combinations(columns.values, 2)
    ]
    higher_by_a, higher_by_b, note = _different(runs[0], columns, settings)
    summaries, domain_documents = summarise_columns(
        columns.values, columns.codes_N, columns.domain_names, most_domains=MOST_DOMAINS
    )
    return Comparison(
        runs=[str(run.folder) for run in runs],
        documents=len(columns.positions_N),
        correlated=len(codes_S),
        domains=len(columns.domain_names),
        top_percent=settings.top,
        columns=summaries,
        domain_documents=domain_documents,
        pairs=pairs,
        higher_by_a=higher_by_a,
        higher_by_b=higher_by_b,
        kinds=_kinds(runs[0], columns, settings),
        note=note,
        partial=list(dict.fromkeys(line for run in runs if (line := partial_coverage(run, settings.rows)))),
        joined=columns.joined,
    )


def _read(runs: Sequence[Run], settings: CompareSettings) -> _Columns:
    """The columns of both runs for the documents of the first one, NaN where the second has none."""
    positions_N = np.empty(0, dtype=np.int64)
    values: dict[str, Floats] = {}
    # Both runs are of the same rows.
    files = open_files(settings.joins)
    names = _names([run.folder for run in runs])
    for k, run in enumerate(runs):
        require_finished(run)
        expressions = settings.expressions or _default_columns(run, alone=len(runs) == 1)
        # A column that both runs have is compared with itself; which run it is of is part of its name.
        prefix = f"{names[k]}: " if len(runs) > 1 else ""
        joined = JoinedColumns(run, rows=settings.rows, joins=settings.joins, files=files)
        positions, found = _evaluated(joined, expressions, seed=settings.seed)
        if k == 0:
            positions_N = positions
        else:
            found = {name: _joined(values_M, positions, positions_N, run.num_rows) for name, values_M in found.items()}
        values |= {f"{prefix}{name}": values_N for name, values_N in found.items()}
    if len(values) < 2 and settings.kinds is None:
        raise LadmError("there is only one column to compare; give --columns A,B or another RUN")
    numbers: dict[str, int] = {}
    domains = chain.from_iterable(domain_batches(runs[0], settings.domain_key))
    codes_N = np.fromiter((numbers.setdefault(d, len(numbers)) for d in domains), dtype=np.int32)
    return _Columns(
        positions_N=positions_N, values=values, domain_names=list(numbers), codes_N=codes_N,
        joined=joined_lines(files),
    )  # fmt: skip


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: the end of its path that no other has; numbered for one folder twice."""
    # The whole path: "." has no name of its own.
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    if len(set(parts)) < len(parts):
        return [path[-1] if k == 0 else f"{path[-1]} {k + 1}" for k, path in enumerate(parts)]
    length = next(n for n in range(1, max(map(len, parts)) + 1) if len({path[-n:] for path in parts}) == len(parts))
    return [str(Path(*path[-length:])) for path in parts]


def _default_columns(run: Run, *, alone: bool) -> list[Expression]:
    names = column_names(run) if alone else ["score"]
    # Stored names of somebody else's signals may be no words of an expression.
    return [parse_expression(name) for name in names if name.isidentifier()][:MOST_COLUMNS]


def _evaluated(
    columns: JoinedColumns, expressions: Sequence[Expression], *, seed: int
) -> tuple[npt.NDArray[np.int64], dict[str, Floats]]:
    names = dict.fromkeys(name for expression in expressions for name in expression.names)
    positions_N, arrays = columns.read(names, seed=seed)
    return positions_N, {
        each.text: evaluate(each, arrays, read_documents=lambda: documents_of([columns.rows])[positions_N])
        for each in expressions
    }


def _joined(
    values_M: Floats, positions_M: npt.NDArray[np.int64], positions_N: npt.NDArray[np.int64], num_rows: int
) -> Floats:
    # Through an array of all rows rather than a sort: the two runs are each in the order of their own scores.
    values_T = np.full(num_rows, np.nan)
    values_T[positions_M] = values_M
    joined_N: Floats = values_T[positions_N]
    return joined_N


def _different(
    run: Run, columns: _Columns, settings: CompareSettings
) -> tuple[list[DifferentDocument], list[DifferentDocument], str | None]:
    """The documents whose ranks in their domain differ most between the first two columns, each way."""
    if settings.show == 0 or len(columns.values) < 2:
        return [], [], None
    a_N, b_N = (ranks_inside_domains(values_N, columns.codes_N) for values_N in list(columns.values.values())[:2])
    difference_N = a_N - b_N
    order = np.argsort(difference_N, kind="stable")
    order = order[: np.count_nonzero(~np.isnan(difference_N))]
    # In a small set the same document may stand at both ends, or the columns may agree.
    higher_by_a = [k for k in order[::-1][: settings.show].tolist() if difference_N[k] > 0]
    higher_by_b = [k for k in order[: settings.show].tolist() if difference_N[k] < 0]
    places = np.array([*higher_by_a, *higher_by_b], dtype=np.int64)
    positions = columns.positions_N[places].tolist()
    by_position = read_labels(run, positions, settings.domain_key)
    labels = [by_position[position] for position in positions]
    beginnings = TextBeginnings(run, settings.rows)
    found = [
        DifferentDocument(
            domain=label.domain,
            id=label.row_id,
            name=label.name,
            rank_a=float(a_N[k]),
            rank_b=float(b_N[k]),
            beginning=one_line(text, most=BEGINNING_CHARACTERS),
        )
        for k, label, text in zip(places.tolist(), labels, beginnings.of(labels), strict=True)
    ]
    return found[: len(higher_by_a)], found[len(higher_by_a) :], beginnings.missing


def _kinds(run: Run, columns: _Columns, settings: CompareSettings) -> KindTable | None:
    if settings.kinds is None:
        return None
    # By the digest, although that reads all rows: kinds of other rows would give a table without any error.
    rows = open_rows_of(run, settings.rows)
    kinds = read_row_column(rows, settings.kinds, columns.positions_N)
    clusters: Sequence[object] = range(len(kinds))
    if settings.cluster is not None:
        clusters = read_row_column(rows, settings.cluster, columns.positions_N)
    return kind_table(columns.values, kinds, list(clusters), intact=settings.intact, seed=settings.seed)
