"""The tables of tables.py -> which arms train better students: report.json and report.md.

    python scripts/experiment/pretraining/report.py scripts/experiment/results/pretraining

The statistics are those of differences.py.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from arms import CONTRASTS, CONTRASTS_B, CONTRASTS_LATER
from differences import Array, Outcome, Runs, compare, document_error, draw_variance, seed_variance
from outcomes import holm

OUTCOMES = {
    "D": "loss on D", "needles": "loss on needles", "C": "loss on C", "S": "loss on S",
    "short": "loss at 1K of context", "gain": "gain from context", "D - S": "loss on D less that on S",
}  # fmt: skip


def read_outcomes(folder: Path) -> dict[str, Outcome]:
    losses = pq.read_table(folder / "losses.parquet").to_pydict()
    of_document = dict(zip(losses["document"], losses["package"], strict=True))
    place = {document: k for k, document in enumerate(of_document)}
    shape = (len(place),)
    clusters = np.array(list(of_document.values()))
    sums: dict[str, Runs] = {name: defaultdict(lambda: np.zeros(shape)) for name in OUTCOMES}
    weights: dict[str, Array] = {name: np.zeros(shape) for name in OUTCOMES}
    first = None
    for arm, draw, seed, document, of_class, tokens, long, short in zip(
        *(losses[name] for name in ("arm", "draw", "seed", "document", "class", "tokens", "long", "short")), strict=True
    ):
        key, k = (arm, draw, seed), place[document]
        first = first or key
        for name, value in ((of_class, long), ("short", short), ("gain", short - long)):
            sums[name][key][k] += value
            weights[name][k] += tokens * (key == first)
    # The judge may have had no time for some rows; they are in no class, and no evidence.
    judged = weights["short"] > 0
    found = {
        name: Outcome(
            sums={key: values[judged] for key, values in sums[name].items()},
            weights=weights[name][judged],
            clusters=clusters[judged],
        )
        for name in OUTCOMES
        if name not in ("needles", "D - S")
    }
    found["D - S"] = replace(found["D"], minus=found["S"])
    needles = pq.read_table(folder / "needles.parquet").to_pydict()
    rows = max(needles["row"]) + 1
    by_row: Runs = defaultdict(lambda: np.zeros(rows))
    counts = len(needles["row"]) / rows / len(set(zip(needles["arm"], needles["draw"], needles["seed"], strict=True)))
    for arm, draw, seed, row, loss in zip(*(needles[n] for n in ("arm", "draw", "seed", "row", "loss")), strict=True):
        by_row[arm, draw, seed][row] += loss
    return found | {"needles": Outcome(sums=dict(by_row), weights=np.full(rows, counts), clusters=np.arange(rows))}


def analyse(folder: Path) -> dict[str, Any]:
    outcomes = read_outcomes(folder)
    students = pq.read_table(folder / "students.parquet").to_pylist()
    names = list(dict.fromkeys(student["arm"] for student in students))
    arms: dict[str, Any] = {}
    for arm in names:
        of_arm = [student for student in students if student["arm"] == arm]
        arms[arm] = {
            "students": len(of_arm),
            "seconds": float(np.median([student["training_seconds"] for student in of_arm])),
            "bigram": {name: of_arm[0][f"bigram_{name}"] for name in ("D", "C", "S")},
        }
        for name, outcome in outcomes.items():
            values = [outcome.value(key) for key in outcome.keys(arm)]
            arms[arm][name] = {"mean": float(np.mean(values)), "by_student": values}
    contrasts: dict[str, Any] = {}
    pairs = (*CONTRASTS, ("random x2", "random"), *CONTRASTS_B, *CONTRASTS_LATER)
    for name, outcome in outcomes.items():
        found = {f"{arm} - {other}": compare(outcome, arm, other) for arm, other in pairs}
        made = [each for (arm, other) in CONTRASTS if (each := found[f"{arm} - {other}"]) is not None]
        holm(made, family=len(CONTRASTS))
        contrasts[name] = found
    seeds = {
        name: {"sd": math.sqrt(seed_variance(outcome)[0]), "freedom": seed_variance(outcome)[1],
               "selection_sd": math.sqrt(draw_variance(outcome, seed_variance(outcome)[0]))}
        for name, outcome in outcomes.items() if seed_variance(outcome)[1]
    }  # fmt: skip
    double = contrasts["D"]["random x2 - random"]
    gate = None
    if double is not None:
        gate = {"detectable": double["detectable"], "difference": double["difference"],
                "passed": double["detectable"] < -double["difference"], "variances": double["variances"],
                "freedom": double["freedom"]}  # fmt: skip
    tokens = {name: int(outcome.weights.sum()) for name, outcome in outcomes.items()}
    return {
        "documents": len(outcomes["D"].weights), "packages": len(np.unique(outcomes["D"].clusters)), "tokens": tokens,
        "arms": arms, "contrasts": contrasts, "seeds": seeds, "gate_2": gate, "needles": by_distance(folder),
        "ladder": by_context(folder),
    }  # fmt: skip


def by_context(folder: Path) -> dict[str, dict[str, Any]]:
    """Of every arm the mean loss of the same last tokens by context, and its gain over the shortest context.

    Rows are paired and packages drawn together. Empty where no student has these losses.
    """
    if not (folder / "ladder.parquet").exists():
        return {}
    table = pq.read_table(folder / "ladder.parquet").to_pydict()
    arms, contexts, losses, packages, documents = (
        np.array(table[name]) for name in ("arm", "context", "loss", "package", "document")
    )
    steps = np.unique(contexts)
    found = {}
    for arm in dict.fromkeys(table["arm"]):
        names = list(dict.fromkeys(documents[arms == arm]))
        # Mean over the students of the arm: (documents, contexts).
        by_document = np.array(
            [[losses[(arms == arm) & (documents == name) & (contexts == c)].mean() for c in steps] for name in names]
        )
        clusters = np.array([packages[documents == name][0] for name in names])
        gains = by_document[:, 0] - by_document[:, -1]
        found[arm] = {
            "context": steps.tolist(), "loss": by_document.mean(axis=0).tolist(), "gain": float(gains.mean()),
            "error": document_error((gains - gains.mean()) / len(gains), clusters),
        }  # fmt: skip
    return found


def by_distance(folder: Path) -> dict[str, list[list[float]]]:
    """Of every arm (median distance, mean loss) from the nearest to the farthest needle."""
    table = pq.read_table(folder / "needles.parquet").to_pydict()
    found: dict[str, list[list[float]]] = {}
    arm, distance, loss = (np.array(table[name]) for name in ("arm", "distance", "loss"))
    edges = np.quantile(distance, np.linspace(0, 1, 17))
    group = np.searchsorted(edges, distance, side="right").clip(1, 16)
    for name in dict.fromkeys(table["arm"]):
        found[name] = [
            [float(np.median(distance[at])), float(loss[at].mean())]
            for k in range(1, 17)
            if (at := (arm == name) & (group == k)).any()
        ]
    return found


def as_markdown(found: dict[str, Any]) -> str:
    tokens = found["tokens"]
    lines = [
        f"{found['documents']} held-out rows of {found['packages']} packages; their far halves have {tokens['D']:,} "
        f"tokens of class D, {tokens['C']:,} of C, {tokens['S']:,} of S.",
        "",
    ]
    if found["gate_2"]:
        gate = found["gate_2"]
        verdict = "passed" if gate["passed"] else "not passed: train longer"
        total = sum(gate["variances"].values())
        shares = ", ".join(f"{name} {part / total:.0%}" for name, part in gate["variances"].items())
        lines += [f"Gate 2: twice the tokens change the loss on D by {gate['difference']:+.4f}; a difference of "
                  f"{gate['detectable']:.4f} would be detectable with 80 % power: {verdict}. "
                  f"t with {gate['freedom']:.1f} degrees of freedom. "
                  f"Variance of that difference: {shares}.", ""]  # fmt: skip
    lines += [f"| arm | students | {' | '.join(OUTCOMES.values())} | bigram table on D | seconds |"]
    lines += ["|---|---:|" + "---:|" * (len(OUTCOMES) + 2)]
    for name, arm in found["arms"].items():
        cells = [f"{arm[outcome]['mean']:.4f}" for outcome in OUTCOMES]
        bigram = "-" if arm["bigram"]["D"] is None else f"{arm['bigram']['D']:.3f}"
        lines.append(f"| {name} | {arm['students']} | {' | '.join(cells)} | {bigram} | {arm['seconds']:.0f} |")
    lines += ["", "| contrast | outcome | difference | 95 % interval | detectable | freedom | p | p, Holm |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---:|"]
    for outcome, contrasts in found["contrasts"].items():
        for name, each in contrasts.items():
            if each is None:
                continue
            low, high = each["interval"]
            adjusted = f"{each['p_holm']:.3f}" if "p_holm" in each else ""
            p = "< 0.001" if each["p"] < 0.001 else f"{each['p']:.3f}"
            lines.append(f"| {name} | {OUTCOMES[outcome]} | {each['difference']:+.4f} | {low:+.4f} to {high:+.4f} | "
                         f"{each['detectable']:.4f} | {each['freedom']:.1f} | {p} | {adjusted} |")  # fmt: skip
    lines += ["", "| outcome | standard deviation of seeds | of random selections |", "|---|---:|---:|"]
    for outcome, each in found["seeds"].items():
        lines.append(f"| {OUTCOMES[outcome]} | {each['sd']:.4f} | {each['selection_sd']:.4f} |")
    if found["ladder"]:
        contexts = next(iter(found["ladder"].values()))["context"]
        lines += ["", f"| loss of the same last tokens after | {' | '.join(f'{c:,}' for c in contexts)} | gain | +- |"]
        lines += ["|---|" + "---:|" * (len(contexts) + 2)]
        for name, each in found["ladder"].items():
            cells = " | ".join(f"{loss:.4f}" for loss in each["loss"])
            lines.append(f"| {name} | {cells} | {each['gain']:.4f} | {1.96 * each['error']:.4f} |")
    far = next(iter(found["needles"].values()))
    lines += ["", f"| needles at a distance of | {' | '.join(f'{each[0]:,.0f}' for each in far)} |"]
    lines += ["|---|" + "---:|" * len(far)]
    for name, points in found["needles"].items():
        lines.append(f"| {name} | {' | '.join(f'{loss:.2f}' for _, loss in points)} |")
    return "\n".join(lines) + "\n"


@click.command(help=__doc__.splitlines()[0])
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def main(folder: Path) -> None:
    found = analyse(folder)
    (folder / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "report.md").write_text(as_markdown(found))
    print(as_markdown(found))


if __name__ == "__main__":
    main()
