"""Columns of a run -> the page's table of medians and quartiles by domain, with a box for each. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.report.charts import Scale, scale
from ladm.report.overview import MOST_DOMAINS, RunOverview
from ladm.report.ranking import PageRanking
from ladm.runs.columns.by_name import SCORE
from ladm.runs.columns.quartiles import Quartiles, summarise_columns
from ladm.settings.named_scores import NAMED_SCORES
from ladm.settings.signals import LONGATTN

Floats = npt.NDArray[np.float64]

COLUMNS = (
    SCORE, *NAMED_SCORES, "gain", "prolong", LONGATTN,
    "gzip_ratio", "far_rare", "unigram_entropy", "repeated_13grams", "digits",
)  # fmt: skip
"""Those of them that the run has are in the table, after what the page ranks by: its score, scores by name, other
signals, and the text."""
MOST_COLUMNS = 10
BOX_WIDTH = 96
SAME = 1e-6
"""A named score that differs from the run's own score by a smaller relative amount is the same score."""


@dataclass(frozen=True, kw_only=True)
class QuartileBox:
    """The quartiles of a column in a domain, and the places of the three on the column's line."""

    quartiles: Quartiles
    places: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class QuartileRow:
    """A domain. `boxes`: one a column; None where no document of the domain has a value."""

    name: str
    documents: int
    boxes: list[QuartileBox | None]


@dataclass(frozen=True, kw_only=True)
class QuartileTable:
    """The largest domains, the one with the highest median of the first column first; and all documents together."""

    columns: list[str]
    all_documents: QuartileRow
    domains: list[QuartileRow]
    domains_left_out: int


def table_columns(known: Sequence[str], ranking: PageRanking) -> list[str]:
    """The columns of the table, of those that are known; a score that repeats another column is left out."""
    wanted = (ranking.by, *(name for name in COLUMNS if name != SCORE or ranking.score_name == SCORE))
    return [name for name in dict.fromkeys(wanted) if name in known]


def quartile_table(columns: Mapping[str, Floats], overview: RunOverview) -> QuartileTable:
    """The table of those of `columns` that belong in it and have a value, in the order of the page's ranking."""
    shown = _distinct({name: columns[name] for name in table_columns(list(columns), overview.ranking)})
    names = list(overview.domains)
    codes_N = np.frombuffer(overview.codes, dtype=np.int32)
    summaries, documents = summarise_columns(shown, codes_N, names, most_domains=MOST_DOMAINS)
    # A line covers what is drawn on it: the quartiles of all documents and of the domains.
    lines = [
        scale([x for found in (each.quartiles, *each.by_domain.values()) for x in found if math.isfinite(x)], BOX_WIDTH)
        for each in summaries
    ]
    return QuartileTable(
        columns=list(shown),
        all_documents=QuartileRow(
            name="all",
            documents=len(codes_N),
            boxes=[_box(each.quartiles, line) for each, line in zip(summaries, lines, strict=True)],
        ),
        domains=[
            QuartileRow(
                name=name,
                documents=count,
                boxes=[_box(each.by_domain[name], line) for each, line in zip(summaries, lines, strict=True)],
            )
            for name, count in documents.items()
        ],
        domains_left_out=len(names) - len(documents),
    )


def _distinct(columns: dict[str, Floats]) -> dict[str, Floats]:
    """The columns without empty ones, and without a named score that equals the run's own, which gets its name."""
    found: dict[str, Floats] = {}
    for name, values_N in columns.items():
        if not np.isfinite(values_N).any():
            continue
        own = found.get("score")
        if name in NAMED_SCORES and own is not None and np.allclose(own, values_N, rtol=SAME, atol=0, equal_nan=True):
            found = {(f"score ({name})" if key == "score" else key): values for key, values in found.items()}
        elif len(found) < MOST_COLUMNS:
            found[name] = values_N
    return found


def _box(found: Quartiles, line: Scale) -> QuartileBox | None:
    if math.isnan(found[1]):
        return None
    low, middle, high = (line.place(value) for value in found)
    return QuartileBox(quartiles=found, places=(low, middle, high))
