"""`RUN/inspected` -> the documents that `ladm inspect` took apart, checked, as a page shows them. Imports no torch."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

from ladm.errors import LadmError, StorageError, one_line
from ladm.report.charts import brightest, heat_map, shares_by_distance
from ladm.report.overview import Sweep
from ladm.runs.folder import INSPECTED, INSPECTED_FORMAT, Run
from ladm.storage.files import io_errors

MOST_SHOWN = 50
SAME_SCORE = 1e-3
SIDES = ("earlier", "later")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises StorageError for anything else."""
    try:
        with io_errors(path, "read"):
            found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is damaged: {one_line(error)}") from None
    if not isinstance(found, dict):
        raise StorageError(f"{path} is damaged: it is no JSON object")
    return found


def read_inspected(run: Run) -> dict[int, dict[str, Any]]:
    """What `ladm inspect` found, by position. Raises LadmError for another version's file, or a damaged one."""
    documents: dict[int, dict[str, Any]] = {}
    folder = run.folder / INSPECTED
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is a file; move it away")
    for path in sorted(folder.glob("*.json")):
        found = read_json(path)
        if found.get("format") != INSPECTED_FORMAT:
            raise LadmError(f"{path} was made by another version of ladm; remove it, or run ladm inspect again")
        try:
            whole = _checked(found)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise StorageError(
                f"{path} is damaged: {type(error).__name__}: {one_line(error)}; remove it, or run ladm inspect again"
            ) from None
        documents[whole["position"]] = whole
    return documents


def _checked(found: dict[str, Any]) -> dict[str, Any]:
    """Only what is known, each of its type."""
    whole: dict[str, Any] = {
        name: int(found[name]) for name in ("position", "num_tokens", "span_tokens", "first_token")
    }
    whole |= {name: float(found[name]) for name in ("score", "score_here")}
    j, i, part = [int(x) for x in found["j"]], [list(map(int, x)) for x in found["i"]], found["part"]
    part = [list(map(float, x)) for x in part]
    if not j or list(map(len, i)) != list(map(len, part)) or len(i) != len(j) or not all(i):
        raise ValueError("its pairs and their parts are not as many")
    if not all(map(math.isfinite, itertools.chain(*part))):
        raise ValueError("a part is no number")
    if any(spans != sorted(set(spans)) or spans[0] < 0 or spans[-1] >= of for of, spans in zip(j, i, strict=True)):
        raise ValueError("its earlier spans are out of order")
    end = whole["first_token"] + (max(j) + 1) * whole["span_tokens"]
    if j != sorted(set(j)) or whole["span_tokens"] < 1 or end > whole["num_tokens"]:
        raise ValueError("its spans lie outside its tokens")
    return whole | {
        "j": j,
        "i": i,
        "part": part,
        "excerpt": str(found["excerpt"]),
        "columns": [str(column["name"]) for column in found["columns"] if float(column["weight"])],
        "pairs": [
            {name: int(pair[name]) for name in ("j", "i")}
            | {"part": float(pair["part"])}
            | {side: _checked_span(pair[side]) for side in SIDES}
            for pair in found["pairs"]
        ],
    }


def _checked_span(span: dict[str, Any]) -> dict[str, Any]:
    """A span; the heaviest of its tokens has the weight 1."""
    weights = [float(x) for x in span["weights"]]
    most = max(weights, default=0.0) or 1.0
    tokens = [str(text) for text in span["tokens"]]
    return {
        "first_token": int(span["first_token"]),
        "last_token": int(span["first_token"]) + len(weights) - 1,
        "lit": [(text, round(weight / most, 2)) for text, weight in zip(tokens, weights, strict=False)],
        "before": str(span["before"]),
        "after": str(span["after"]),
    }


def as_shown(documents: dict[int, dict[str, Any]], sweep: Sweep, run: Run) -> list[dict[str, Any]]:
    """The best of them by rank, with what the run says of them. Raises LadmError where the run says otherwise."""
    for position, found in documents.items():
        row = sweep.rows.get(position)
        if row is None or row["score"] != found["score"]:
            raise LadmError(
                f"{run.folder / INSPECTED} holds row {position}, and the run has another score for it; remove that "
                "folder, or run ladm inspect again"
            )
    shown = sorted(documents.values(), key=lambda found: int(sweep.rows[found["position"]]["rank"]))[:MOST_SHOWN]
    most = brightest(shown)
    return [sweep.rows[found["position"]] | _shown(found, most) for found in shown]


def _shown(found: dict[str, Any], most: float) -> dict[str, Any]:
    total = sum(map(sum, found["part"])) or 1.0
    pairs = [
        pair | {"number": k, "share": pair["part"] / total, "back": (pair["j"] - pair["i"]) * found["span_tokens"]}
        for k, pair in enumerate(found["pairs"], 1)
    ]
    apart = abs(found["score_here"] - found["score"]) > SAME_SCORE * abs(found["score"])
    return {
        "excerpt": found["excerpt"],
        "map": heat_map(found, most),
        "distances": shares_by_distance(found),
        "pairs": pairs,
        "of_pairs": sum(pair["share"] for pair in pairs),
        "columns": found["columns"],
        "score_here": found["score_here"] if apart else None,
    }
