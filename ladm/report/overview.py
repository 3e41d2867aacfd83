"""`scores.parquet` of a run -> what a page shows of all its documents, in one pass. Imports no torch."""

from __future__ import annotations

import contextlib
import json
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ladm.corpus.rows import look_up
from ladm.errors import LadmError
from ladm.report.charts import Scale
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, score_batches
from ladm.selection.manifest import Manifest
from ladm.settings.common import NO_DOMAINS, ONE_DOMAIN

MOST_DOMAINS, MOST_DOTS = 40, 150
MOST_TO_COUNT = 100_000
BEST, WORST = 25, 10
LAYER_ROWS = 2000
NO_DOMAIN = "(none)"
_COLUMNS = ["rank", "score", "meta", "num_tokens", "position", "index", "chunked_index"]


@dataclass
class Sweep:
    """What one pass over `scores.parquet` leaves."""

    domains: dict[str, array[float]] = field(default_factory=dict)
    """The scores of each domain, best first."""
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The best, the worst and the inspected, by position, in the order of their ranks."""
    cds: list[list[float]] = field(default_factory=list)
    """CDS per layer of rows evenly spread over the ranks."""


def sweep_scores(run: Run, domain_key: str, wanted: set[int], *, scored: int) -> Sweep:
    """Look at every row with a score, of which there are `scored`; `wanted`: positions of the inspected ones.

    Raises LadmError for a `domain_key` outside `meta`, which is all that a run holds.
    """
    found, path = Sweep(), _domain_path(domain_key)
    column = run.identity.cds_column(run.identity.score_form, heads=False)
    layers = [column] if column in columns_of(run.folder) else []
    every = max(1, scored // LAYER_ROWS)
    for batch in score_batches(run.folder, [*_COLUMNS, *layers]):
        columns = [batch[name].to_pylist() for name in _COLUMNS]
        cds = batch[layers[0]] if layers else None
        for k, values in enumerate(zip(*columns, strict=True)):
            rank, score, text, _, position, *_ = values
            meta = json.loads(text)
            name = ONE_DOMAIN if path is None else look_up(meta, path)
            name = NO_DOMAIN if name is None else name
            found.domains.setdefault(name, array("d")).append(score)
            if rank <= BEST or rank > scored - WORST or position in wanted:
                row = dict(zip(_COLUMNS, values, strict=True)) | {"domain": name, "meta": _told(meta)}
                found.rows[position] = row
            if cds is not None and rank % every == 0:
                found.cds.append(cds[k].as_py())
        if len(found.domains) > MOST_TO_COUNT:
            raise LadmError(
                f"{run.folder} has more than {MOST_TO_COUNT:,} domains by {domain_key}; give a coarser --domain-key, "
                f"or {NO_DOMAINS}"
            )
    return found


def _told(meta: Any) -> str:
    """`{"title": "Acts", "year": 1611}`, or JSON text of it -> `title Acts · year 1611`."""
    if isinstance(meta, str):
        with contextlib.suppress(ValueError, RecursionError):
            meta = json.loads(meta)
    if meta is None:
        return ""
    return " · ".join(f"{key} {value}" for key, value in meta.items()) if isinstance(meta, dict) else str(meta)


def _domain_path(key: str) -> list[str] | None:
    """Where in `meta` a domain is; None: nowhere. Raises LadmError for another column, which a run does not hold."""
    if key == NO_DOMAINS:
        return None
    column, *path = key.split(".")
    if column != "meta":
        raise LadmError(
            f"domains by {key} cannot be shown, because a run keeps of the columns only meta; give --domain-key a key "
            f"such as meta.source, or {NO_DOMAINS}"
        )
    return path


def domain_rows(sweep: Sweep, line: Scale, manifest: Manifest | None) -> list[dict[str, Any]]:
    """The largest domains, that with the highest median first."""
    largest = sorted(sweep.domains, key=lambda name: (-len(sweep.domains[name]), name))[:MOST_DOMAINS]
    rows = []
    for name in largest:
        scores = sweep.domains[name]
        shown = sorted({round(k * (len(scores) - 1) / (MOST_DOTS - 1)) for k in range(MOST_DOTS)})
        taken = None if manifest is None else manifest.domains.get(name)
        cut = None if taken is None else taken.lowest_score_taken
        rows.append(
            {
                "name": name,
                "documents": len(scores),
                "median": float(np.median(scores)),
                "median_at": line.place(float(np.median(scores))),
                "dots": [{"at": line.place(scores[k]), "taken": cut is not None and scores[k] >= cut} for k in shown],
                "taken": taken,
                "cut_at": None if cut is None else line.place(cut),
            }
        )
    return sorted(rows, key=lambda row: -row["median"])


def layer_shares(run: Run, cds: list[list[float]]) -> list[dict[str, Any]]:
    """For each layer its share of the mean over all that were kept, and whether the score counts it."""
    if not cds:
        return []
    cds_BL = np.array(cds)
    total_B = cds_BL.sum(axis=1, keepdims=True)
    shares_L = np.divide(cds_BL, total_B, out=np.zeros_like(cds_BL), where=total_B > 0).mean(axis=0)
    counted = set(run.identity.reduction.layers)
    return [
        {"layer": layer, "share": float(share), "of_most": float(share / max(shares_L.max(), 1e-300)),
         "counted": layer in counted}
        for layer, share in zip(run.identity.layers, shares_L, strict=True)
    ]  # fmt: skip
