"""Choices and losses -> the experiment's two outcomes: the planted rows that an arm takes, and its students' losses."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

KINDS = ("4 pieces", "16 pieces", "shuffled", "repeated", "list")
DRAWS = 4000
PERMUTATIONS = 10_000


def student_t(probability: float, freedom: float) -> float:
    """The quantile of Student's t, by integrating its density."""
    x = np.sinh(np.linspace(-9.0, 9.0, 200_001))
    log = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    density = np.exp(log - (freedom + 1) / 2 * np.log1p(x**2 / freedom))
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(x))])
    return float(np.interp(probability, below / below[-1], x))


def by_document(losses: np.ndarray, document_of: np.ndarray) -> np.ndarray:
    """(..., rows) -> (..., documents): rows of one document count as one."""
    return np.stack([losses[..., document_of == name].mean(axis=-1) for name in np.unique(document_of)], axis=-1)


def compared(by_ASD: np.ndarray, reference: int) -> dict[str, Any]:
    """Differences between the arms' mean losses (arms, seeds, documents), with intervals.

    Arms, seeds and documents are crossed; seeds and documents are random effects. How much an arm depends
    on them is assumed to be the same for every arm and estimated from all of them, because the three seeds
    of a single arm are too few for that. The variance of a difference of two arms is
    2 (MS_arms,seeds + MS_arms,documents - MS_rest) / (S D), with Satterthwaite's degrees of freedom.
    All intervals of differences to `reference` hold together in 95 of 100 experiments (Bonferroni).
    `detectable` is the difference that is found four times in five; `p` is that of no difference between
    any arms on these documents, by permuting arms within each seed.
    """
    A, S, D = by_ASD.shape
    mean, of_a = by_ASD.mean(), by_ASD.mean(axis=(1, 2))
    of_as, of_ad, of_sd = by_ASD.mean(axis=2), by_ASD.mean(axis=1), by_ASD.mean(axis=0)
    of_s, of_d = by_ASD.mean(axis=(0, 2)), by_ASD.mean(axis=(0, 1))
    arms_seeds = of_as - of_a[:, None] - of_s + mean
    arms_documents = of_ad - of_a[:, None] - of_d + mean
    rest = (
        by_ASD - of_as[:, :, None] - of_ad[:, None, :] - of_sd
        + of_a[:, None, None] + of_s[:, None] + of_d - mean
    )  # fmt: skip
    freedoms = ((A - 1) * (S - 1), (A - 1) * (D - 1), (A - 1) * (S - 1) * (D - 1))
    sums = (D * (arms_seeds**2).sum(), S * (arms_documents**2).sum(), (rest**2).sum())
    by_seed, by_document_, left = (total / freedom for total, freedom in zip(sums, freedoms, strict=True))
    square = max(by_seed + by_document_ - left, left)
    parts = sum(each**2 / freedom for each, freedom in zip((by_seed, by_document_, left), freedoms, strict=True))
    freedom = max(1.0, square**2 / parts)
    error, t = math.sqrt(2 * square / (S * D)), student_t(1 - 0.025 / (A - 1), freedom)
    differences = of_a - of_a[reference]
    return {
        "differences": [
            {"difference": float(x), "low": float(x - t * error), "high": float(x + t * error)} for x in differences
        ],
        "detectable": float((t + student_t(0.8, freedom)) * error),
        "p": permuted(of_as),
    }


def permuted(of_AS: np.ndarray) -> float:
    """How often arms that are exchanged within each seed differ as much as these."""
    draw = np.random.default_rng(0)
    shuffled = draw.permuted(np.broadcast_to(of_AS, (PERMUTATIONS, *of_AS.shape)), axis=1)
    spread = shuffled.mean(axis=2).var(axis=1)
    return float((1 + (spread >= of_AS.mean(axis=1).var() - 1e-12).sum()) / (1 + PERMUTATIONS))


def taken_shares(pool: list[dict[str, Any]], takings: list[list[int]], kind: str | None) -> dict[str, float]:
    """The share of the planted rows (of a kind) that an arm takes, with an interval by bootstrap over documents.

    Where none or all are taken, every draw of the bootstrap is the same; the interval is then the exact
    binomial one for that number of documents.
    """
    draw = np.random.default_rng(0)
    planted = [k for k, row in enumerate(pool) if row["meta"]["kind"] in (KINDS if kind is None else (kind,))]
    documents = np.array([pool[k]["meta"]["document"] for k in planted])
    hit = np.mean([[k in set(taken) for k in planted] for taken in takings], axis=0)
    names = np.unique(documents)
    counts = np.array([(documents == d).sum() for d in names])
    hits = np.array([hit[documents == d].sum() for d in names])
    drawn = draw.integers(0, len(names), (DRAWS, len(names)))
    low, high = np.quantile(hits[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (0.025, 0.975))
    share, certain = float(hit.mean()), 0.025 ** (1 / len(names))
    if share == 0:
        high = 1 - certain
    elif share == 1:
        low = certain
    return {"share": share, "low": float(low), "high": float(high), "planted": len(planted)}


def report(
    config: dict[str, Any],
    pool: list[dict[str, Any]],
    document_of: np.ndarray,
    chosen: dict[str, list[list[int]]],
    losses: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Both outcomes, by arm.

    `document_of`: the document of each held-out row. `losses`: (seeds, rows, length - 1), of the trained arms.
    """
    length = config["student"]["length"]
    parts = {"all positions": slice(0, length - 1), "second half": slice(length // 2, length - 1)}
    bad = [row["meta"]["kind"] != "intact" for row in pool]
    found: dict[str, Any] = {
        "pool": len(pool), "planted": sum(bad), "held_out": len(document_of),
        "held_out_documents": len(np.unique(document_of)), "arms": {},
    }  # fmt: skip
    # The k-th loss is that of a token with k + 1 others before it.
    edges = [1, *(length >> k for k in range(5, -1, -1))]
    for name, takings in chosen.items():
        arm: dict[str, Any] = {"rows": len(takings[0]), "planted_taken": taken_shares(pool, takings, None)}
        arm["planted_share_of_arm"] = float(np.mean([[bad[k] for k in taken] for taken in takings]))
        arm["by_kind"] = {kind: taken_shares(pool, takings, kind) for kind in KINDS}
        found["arms"][name] = arm
        if name not in losses:
            continue
        arm["loss_by_context"] = {
            f"{start}-{stop - 1}": round(
                float(by_document(losses[name][:, :, start - 1 : stop - 1].mean(axis=2), document_of).mean()), 4
            )
            for start, stop in itertools.pairwise(edges)
        }
    trained = list(losses)
    found["compared"] = {}
    for part, where in parts.items():
        means = by_document(np.stack([losses[name][:, :, where].mean(axis=2) for name in trained]), document_of)
        to = {other: compared(means, trained.index(other)) for other in ("random", "random x2")}
        found["compared"][part] = {name: to["random"][name] for name in ("detectable", "p")}
        for k, name in enumerate(trained):
            found["arms"][name][part] = {
                "loss": float(means[k].mean()),
                "by_seed": [round(float(loss), 4) for loss in means[k].mean(axis=1)],
                **{f"to {other}": each["differences"][k] for other, each in to.items() if other != name},
            }
    return found


def _interval(difference: dict[str, float] | None) -> str:
    if difference is None:
        return "-"
    return f"{difference['difference']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"


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
        f"Loss: nats a token on {found['held_out']} held-out rows of {found['held_out_documents']} documents. "
        "Differences (negative is better) have intervals that hold together in 95 of 100 experiments; how much an arm "
        "depends on the seed and on the documents is estimated from all arms. Detectable: the smallest difference "
        "that this design finds four times in five. p: of no difference between any arms on these documents.",
        "",
    ]  # fmt: skip
    for part, outcome in found["compared"].items():
        lines += [f"{part}: detectable {outcome['detectable']:.3f}, p {outcome['p']:.4f}", ""]
        columns = [part, "loss", "by seed", "to random", "to random x2"]
        rows = [
            [
                name, f"{arm[part]['loss']:.3f}", ", ".join(f"{loss:.3f}" for loss in arm[part]["by_seed"]),
                _interval(arm[part].get("to random")), _interval(arm[part].get("to random x2")),
            ]
            for name, arm in trained.items()
        ]  # fmt: skip
        lines += _table(columns, rows)
    contexts = list(arms["random"]["loss_by_context"])
    lines += ["Loss by the number of tokens before:", ""]
    by_context = [[name, *(f"{x:.3f}" for x in arm["loss_by_context"].values())] for name, arm in trained.items()]
    lines += _table(["arm", *contexts], by_context)
    seconds = found["seconds"]
    scores = "before" if seconds["scores"] is None else f"{seconds['scores']:.0f} s"
    lines += [
        f"Time ({found['device']}, {found['cores']} cores): the scores {scores}; {len(seconds['students'])} students "
        f"{sum(seconds['students'].values()):.0f} s, {found['config']['at_once']} at a time; the launch that wrote "
        f"this {seconds['this launch']:.0f} s.",
        "",
    ]
    return "\n".join(lines)


def holm(found: list[dict[str, Any]], *, family: int) -> None:
    """Add `p_holm`, p after Holm's correction, to every result of a family, of which some may still be missing."""
    largest = 0.0
    for k, each in enumerate(sorted(found, key=lambda each: float(each["p"]))):
        largest = max(largest, min(1.0, (family - k) * each["p"]))
        each["p_holm"] = largest
