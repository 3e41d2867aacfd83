"""The two outcomes of the experiment: what an arm takes of the planted rows, and what its students lose."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

KINDS = ("4 pieces", "16 pieces", "shuffled", "repeated", "list")
DRAWS = 4000


def student_t(probability: float, freedom: float) -> float:
    """The quantile of Student's t, by integrating its density."""
    x = np.sinh(np.linspace(-9.0, 9.0, 200_001))
    log = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    density = np.exp(log - (freedom + 1) / 2 * np.log1p(x**2 / freedom))
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(x))])
    return float(np.interp(probability, below / below[-1], x))


def compared(ours: np.ndarray, theirs: np.ndarray, document_of: np.ndarray) -> dict[str, float]:
    """Mean paired difference of losses (seeds, rows), with its 95 % interval and what the design could detect.

    Of the seeds that both have. Rows of one document count as one. Seeds and documents are crossed and
    both drawn: the variance of the mean is (MS_seeds + MS_documents - MS_rest) / (S D), with
    Satterthwaite's degrees of freedom.
    `detectable` is the difference that is found four times in five.
    """
    seeds_of_both = min(len(ours), len(theirs))
    difference = ours[:seeds_of_both] - theirs[:seeds_of_both]
    names = np.unique(document_of)
    by_SD = np.stack([difference[:, document_of == name].mean(axis=1) for name in names], axis=1)
    S, D = by_SD.shape
    of_seeds, of_documents = by_SD.mean(axis=1, keepdims=True), by_SD.mean(axis=0, keepdims=True)
    mean = float(by_SD.mean())
    seeds = D * ((of_seeds - mean) ** 2).sum() / (S - 1)
    documents = S * ((of_documents - mean) ** 2).sum() / (D - 1)
    rest = ((by_SD - of_seeds - of_documents + mean) ** 2).sum() / ((S - 1) * (D - 1))
    square = max(seeds + documents - rest, rest)
    parts = seeds**2 / (S - 1) + documents**2 / (D - 1) + rest**2 / ((S - 1) * (D - 1))
    freedom = max(1.0, square**2 / parts)
    error, t = math.sqrt(square / (S * D)), student_t(0.975, freedom)
    return {
        "difference": mean, "low": mean - t * error, "high": mean + t * error,
        "detectable": (t + student_t(0.8, freedom)) * error,
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
    """What both outcomes are, by arm.

    `document_of`: of the held-out rows. Losses are (seeds, rows, length - 1), of the arms that have some.
    """
    length = config["student"]["length"]
    parts = {"all positions": slice(0, length - 1), "second half": slice(length // 2, length - 1)}
    bad = [row["meta"]["kind"] != "intact" for row in pool]
    found: dict[str, Any] = {
        "pool": len(pool), "planted": sum(bad), "held_out": len(document_of),
        "held_out_documents": len(np.unique(document_of)), "arms": {},
    }  # fmt: skip
    # The k-th loss is that of a token that k + 1 others come before.
    edges = [1, *(length >> k for k in range(5, -1, -1))]
    for name, takings in chosen.items():
        arm: dict[str, Any] = {"rows": len(takings[0]), "planted_taken": taken_shares(pool, takings, None)}
        arm["planted_share_of_arm"] = float(np.mean([[bad[k] for k in taken] for taken in takings]))
        arm["by_kind"] = {kind: taken_shares(pool, takings, kind) for kind in KINDS}
        found["arms"][name] = arm
        if name not in losses:
            continue
        arm["loss_by_context"] = {
            f"{start}-{stop - 1}": round(float(losses[name][:, :, start - 1 : stop - 1].mean()), 4)
            for start, stop in itertools.pairwise(edges)
        }
        for part, where in parts.items():
            arm[part] = {"loss": float(losses[name][:, :, where].mean())}
            for other in ("random", "random x2"):
                if name != other:
                    ours, theirs = (losses[each][:, :, where].mean(axis=2) for each in (name, other))
                    arm[part][f"to {other}"] = compared(ours, theirs, document_of)
    return found


def _interval(compared: dict[str, float] | None) -> list[str]:
    if compared is None:
        return ["-", "-"]
    told = f"{compared['difference']:+.4f} ({compared['low']:+.4f} to {compared['high']:+.4f})"
    return [told, f"{compared['detectable']:.4f}"]


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def as_markdown(found: dict[str, Any]) -> str:
    """The report for people."""
    arms = found["arms"]
    trained = {name: arm for name, arm in arms.items() if "loss_by_context" in arm}
    kinds = ", ".join(f"{arm['planted']} {kind}" for kind, arm in next(iter(arms.values()))["by_kind"].items())
    lines = [
        f"{found['pool']} rows, {found['planted']} of them planted: {kinds}. Taken: the share of the planted rows that "
        "an arm takes, with its 95 % interval over documents.",
        "",
        *_table(
            ["arm", "rows", "planted in it", "taken", *KINDS],
            [
                [
                    name, str(arm["rows"]), f"{arm['planted_share_of_arm']:.2f}",
                    *(
                        f"{x['share']:.2f} ({x['low']:.2f}-{x['high']:.2f})"
                        for x in (arm["planted_taken"], *arm["by_kind"].values())
                    ),
                ]
                for name, arm in arms.items()
            ],
        ),
        f"Loss: nats a token on {found['held_out']} held-out rows of {found['held_out_documents']} documents; "
        "differences are paired (negative is better), with 95 % intervals over documents and seeds; detectable: the "
        "smallest difference that this design finds four times in five. Of twenty such intervals one is expected to "
        "miss.",
        "",
    ]  # fmt: skip
    for part in ("all positions", "second half"):
        columns = [part, "loss", "to random", "detectable", "to random x2", "detectable"]
        rows = [
            [
                name, f"{arm[part]['loss']:.4f}", *_interval(arm[part].get("to random")),
                *_interval(arm[part].get("to random x2")),
            ]
            for name, arm in trained.items()
        ]  # fmt: skip
        lines += _table(columns, rows)
    contexts = list(arms["random"]["loss_by_context"])
    lines += ["Loss by the number of tokens before:", ""]
    by_context = [[name, *(f"{x:.3f}" for x in arm["loss_by_context"].values())] for name, arm in trained.items()]
    lines += _table(["arm", *contexts], by_context)
    return "\n".join(lines)
