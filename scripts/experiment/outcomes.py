"""The two outcomes of the experiment: what an arm takes of the planted rows, and what its students lose."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

KINDS = ("4 pieces", "16 pieces", "shuffled", "repeated", "list")
DRAWS = 4000
STUDENT = {1: (12.706, 1.376), 2: (4.303, 1.061), 3: (3.182, 0.978), 4: (2.776, 0.941), 9: (2.262, 0.883)}
"""Student's t by degrees of freedom: two-sided 5 %, and one-sided 20 %, which together make a power of 80 %."""


def compared(ours: np.ndarray, theirs: np.ndarray, document_of: np.ndarray) -> dict[str, float]:
    """Mean paired difference of (seeds, rows), 95 % interval by Student's t over the seeds' and documents' variance.

    The variance is that of the seeds' means plus that of the documents' means: rows of one document count
    as one, and with S seeds the t has S - 1 degrees of freedom.
    """
    difference = ours - theirs
    S = len(difference)
    by_document = np.array([difference[:, document_of == d].mean() for d in np.unique(document_of)])
    variance = difference.mean(axis=1).var(ddof=1) / S + by_document.var(ddof=1) / len(by_document)
    error, t = float(np.sqrt(variance)), STUDENT[S - 1]
    mean = float(difference.mean())
    return {
        "difference": mean, "low": mean - t[0] * error, "high": mean + t[0] * error,
        "detectable": (t[0] + t[1]) * error,
    }  # fmt: skip


def taken_shares(pool: list[dict[str, Any]], takings: list[list[int]], kind: str | None) -> dict[str, float]:
    """Of the planted rows (of a kind), the share that an arm takes; the interval is by bootstrap over documents."""
    draw = np.random.default_rng(0)
    planted = [k for k, row in enumerate(pool) if row["meta"]["kind"] in (KINDS if kind is None else (kind,))]
    documents = np.array([pool[k]["meta"]["document"] for k in planted])
    hit = np.mean([[k in set(taken) for k in planted] for taken in takings], axis=0)
    names = np.unique(documents)
    counts = np.array([(documents == d).sum() for d in names])
    hits = np.array([hit[documents == d].sum() for d in names])
    drawn = draw.integers(0, len(names), (DRAWS, len(names)))
    low, high = np.quantile(hits[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (0.025, 0.975))
    return {"share": float(hit.mean()), "low": float(low), "high": float(high), "planted": len(planted)}


def report(
    config: dict[str, Any],
    pool: list[dict[str, Any]],
    document_of: np.ndarray,
    chosen: dict[str, list[list[int]]],
    losses: dict[str, np.ndarray],
) -> dict[str, Any]:
    """What both outcomes are, by arm. `document_of`: of the held-out rows."""
    length = config["student"]["length"]
    parts = {"all positions": slice(0, length - 1), "second half": slice(length // 2, length - 1)}
    bad = sum(row["meta"]["kind"] != "intact" for row in pool)
    found: dict[str, Any] = {"pool": len(pool), "planted": bad, "held_out": len(document_of), "arms": {}}
    edges = [0, *(length >> k for k in range(5, -1, -1))]
    found["random_by_position"] = {
        f"{start}-{stop - 1}": round(float(losses["random"][:, :, start : stop - 1].mean()), 4)
        for start, stop in itertools.pairwise(edges)
    }
    for name, takings in chosen.items():
        arm: dict[str, Any] = {"rows": len(takings[0]), "planted_taken": taken_shares(pool, takings, None)}
        arm["by_kind"] = {kind: taken_shares(pool, takings, kind) for kind in KINDS}
        for part, where in parts.items():
            ours = losses[name][:, :, where].mean(axis=2)
            arm[part] = {"loss": float(ours.mean())}
            if name != "random":
                arm[part] |= compared(ours, losses["random"][:, :, where].mean(axis=2), document_of)
        found["arms"][name] = arm
    return found


def as_markdown(found: dict[str, Any]) -> str:
    kinds = ", ".join(f"{arm['planted']} {kind}" for kind, arm in next(iter(found["arms"].values()))["by_kind"].items())
    lines = [
        f"{found['pool']} rows, {found['planted']} of them planted: {kinds}. Taken: the share of the planted rows that "
        f"an arm takes. Loss: nats a token on {found['held_out']} held-out rows, and its difference to `random` "
        "(negative is better) with the 95 % interval over documents and seeds; detectable: the smallest difference "
        "that this design finds four times in five.",
        "",
        "| arm | rows | planted rows taken | loss | difference to random | detectable "
        "| difference in the second half | detectable |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, arm in found["arms"].items():
        every, late = arm["all positions"], arm["second half"]
        taken = arm["planted_taken"]
        cells = [f"{taken['share']:.2f} ({taken['low']:.2f}-{taken['high']:.2f})", f"{every['loss']:.4f}"]
        for part in (every, late):
            told = "difference" in part
            cells.append(f"{part['difference']:+.4f} ({part['low']:+.4f} to {part['high']:+.4f})" if told else "-")
            cells.append(f"{part['detectable']:.4f}" if told else "-")
        lines.append(f"| {name} | {arm['rows']} | " + " | ".join(cells) + " |")
    lines += ["", "| arm | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|"]
    for name, arm in found["arms"].items():
        cells = [f"{x['share']:.2f} ({x['low']:.2f}-{x['high']:.2f})" for x in arm["by_kind"].values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    by_position = ", ".join(f"{where} {loss:.2f}" for where, loss in found["random_by_position"].items())
    lines += ["", f"Loss of `random` by position: {by_position}."]
    return "\n".join(lines) + "\n"
