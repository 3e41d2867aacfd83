"""A finished part with both halves -> how well signed sums separate, for every stored form of layers and of heads.

    python scripts/bench/quality/signed_fits.py runs/quality/documents.parquet runs/quality/out/smollm2/4096 \
        --model runs/quality/smollm2 --output scripts/bench/results/quality/one-kind.json

Sums of logarithms (layers, heads) are fitted to intact rows and rows of KIND of the calibration half, by the fit of
`ladm calibrate`, and judged on the other half. A score that has to find other kinds as well will hardly do better than
one that is fitted to one kind alone. With `--kind all` they are fitted to all kinds, and the worst one is judged.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from judged import Part, Rows
from machine import facts, write_result

from ladm.calibration.contrast import INTACT, SAME_PACKAGE
from ladm.calibration.contrast_scores import CHOSEN_ON, JUDGED_ON
from ladm.calibration.estimates import estimate_auc, estimate_worst
from ladm.calibration.signed_heads import LabelledRows, fit_signed_heads
from ladm.method.reduction import Floats, log_cds

SEED = 17


@click.command(help=__doc__.splitlines()[0])
@click.argument("packed", type=click.Path(path_type=Path, exists=True))
@click.argument("part_folder", type=click.Path(path_type=Path, exists=True))
@click.option("--model", required=True, help="Folder of the model, for its tokenizer.")
@click.option("--kind", default=SAME_PACKAGE, show_default=True, help="A kind of bad row, or `all`.")
@click.option("--output", type=click.Path(path_type=Path))
def main(packed: Path, part_folder: Path, model: str, kind: str, output: Path | None) -> None:
    if not (part_folder / "run.json").is_file():
        sys.exit(f"{part_folder} is not a finished part of score.sh: it has no run.json")
    length = int(part_folder.name.partition("-")[0])
    part = Part.read(part_folder, Rows.make(packed, model, length=length, documents=None))
    if kind != "all" and kind not in part.scores.bad:
        sys.exit(f"{part_folder} has no rows of kind {kind!r} in both halves, but of {', '.join(part.scores.bad)}")
    kinds = part.scores.bad if kind == "all" else (kind,)
    found = {}
    for name, logs_BP in features(part).items():
        found[name] = row = judged(part, logs_BP, kinds)
        value, low, high = row["judged"]
        worst = f", {row['worst_kind']}" if kind == "all" else ""
        print(f"{name:48} fitted {row['fitted']:.3f}  other packages {value:.3f} ({low:.3f} to {high:.3f}){worst}")
    write_result(facts("cpu") | {"part": part_folder.name, "kind": kind, "auc": found}, output)


def features(part: Part) -> dict[str, Floats]:
    """What is weighted, by name: (B, P) each."""
    of_layers = {f"layers, {form}": log_cds(values) for form, values in part.scores.cds.items()}
    of_heads = {f"heads, {form}": log_cds(values) for form, values in part.scores.by_head.items()}
    assert part.scores.copy_share is not None
    assert part.scores.sink_mass is not None
    everything = np.hstack([*of_layers.values(), part.scores.copy_share, part.scores.sink_mass])
    return of_layers | of_heads | {"layers in every form, copy share and sink mass": everything}


def judged(part: Part, logs_BP: Floats, kinds: tuple[str, ...]) -> dict[str, Any]:
    """AUC of the worst kind on packages that the fit held out in turn, and on the other half with its interval."""
    scores = part.scores
    known_B = (scores.halves == CHOSEN_ON) & np.isin(scores.kinds, (INTACT, *kinds))
    rows = LabelledRows(
        logs_BP=logs_BP[known_B], kinds_B=scores.kinds[known_B], clusters_B=scores.clusters[known_B], intact=INTACT
    )
    fit = fit_signed_heads(rows, seed=SEED)
    wins = scores.wins(logs_BP @ fit.weights_P, kinds, JUDGED_ON)
    by_kind = {kind: estimate_auc([each], seed=SEED).rounded() for kind, each in zip(kinds, wins, strict=True)}
    return {
        "ridge": fit.ridge,
        "fitted": round(fit.worst_auc, 4),
        "worst_kind": min(by_kind, key=lambda kind: by_kind[kind][0]),
        "judged": estimate_worst(wins, seed=SEED).rounded(),
        "by_kind": by_kind,
    }


if __name__ == "__main__":
    main()
