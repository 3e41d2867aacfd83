"""Finished parts of score.sh -> tables: AUC by kind, the worst kind, two spans, guarded selection.

    python scripts/bench/quality/report.py DOCUMENTS.parquet OUT --model FOLDER --model FOLDER \\
        --profile smollm2=configs/profiles/smollm2-135m.yaml -o scripts/bench/results/quality

Writes quality.md, quality.json (every number) and scores.parquet (every score of every row, without texts). Half 0 of
the part `4096` calibrates: signed heads, bands and guards. Half 1 judges. Intervals are by bootstrap over packages.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent))
from guarded import LEVELS, taken_shares
from judged import Part, Rows, fit_signed
from quality_page import page

from ladm.calibration.contrast import INTACT
from ladm.calibration.contrast_scores import CHOSEN_ON, JUDGED_ON
from ladm.calibration.estimates import estimate, estimate_auc, estimate_spearman, estimate_worst
from ladm.settings.profiles import Profile, read_profile

SEED = 5
SELECTED_BY = ("released", "robust", "robust, all layers", "profile", "signed heads", "F", "gzip", "random")
PAIRS = (
    ("robust", "robust, all layers"), ("robust", "robust, after sinks"), ("robust", "F"), ("signed heads", "F"),
    ("signed heads", "robust"), ("gain", "robust"), ("gain", "F"), ("longfilter", "gain"), ("ProLong", "F"),
)  # fmt: skip
"""Scores that are compared on the same rows."""


@click.command(help=__doc__.splitlines()[0])
@click.argument("packed", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path, exists=True))
@click.option("--model", "models", multiple=True, required=True, help="Folder of a model, as score.sh had it.")
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    help="NAME-OF-FOLDER=FILE: a profile to judge, one of layers and one of signed heads at most. Without the latter, "
    "signed heads are fitted here.",
)
@click.option("--documents", type=int, help="As in score.sh.")
@click.option("--calibrated", default="4096", help="The part with both halves.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(
    packed: Path, out: Path, models: tuple[str, ...], profiles: tuple[str, ...], documents: int | None,
    calibrated: str, output: Path,
) -> None:  # fmt: skip
    found: dict[str, Any] = {"command": " ".join(["python", "scripts/bench/quality/report.py", *sys.argv[1:]])}
    tables: list[pa.Table] = []
    for model in models:
        name = Path(model).name
        own = [read_profile(each.split("=", 1)[1]) for each in profiles if each.split("=", 1)[0] == name]
        parts = read_parts(packed, out / name, model, documents=documents, calibrated=calibrated)
        found[name], scores = judged(parts, own, calibrated=calibrated)
        tables += [table.append_column("model", pa.array([name] * len(table))) for table in scores]
    output.mkdir(parents=True, exist_ok=True)
    (output / "quality.json").write_text(json.dumps(found, indent=1) + "\n")
    pq.write_table(pa.concat_tables(tables, promote_options="default"), output / "scores.parquet", compression="zstd")
    (output / "quality.md").write_text(page(found))
    print((output / "quality.md").read_text())


def read_parts(packed: Path, folder: Path, model: str, *, documents: int | None, calibrated: str) -> dict[str, Part]:
    """The finished parts, by name: the calibrated one first, and each length before its other spans and ProLong."""
    rows: dict[int, Rows] = {}
    parts = {}
    names = [path.parent.name for path in folder.glob("*/scores.parquet") if path.parent.name != "work"]
    for name in sorted(names, key=lambda name: (name != calibrated, "-" in name, int(name.partition("-")[0]))):
        length = int(name.partition("-")[0])
        if length not in rows:
            rows[length] = Rows.make(packed, model, length=length, documents=documents)
        if name.endswith("-prolong"):
            parts[name] = parts[str(length)].with_prolong(folder / name)
        else:
            parts[name] = Part.read(folder / name, rows[length])
    return parts


def judged(
    parts: dict[str, Part], profiles: list[Profile], *, calibrated: str
) -> tuple[dict[str, Any], list[pa.Table]]:
    """Every number of one model, and its scores row by row."""
    known = parts.get(calibrated)
    # Rows of one half alone, or without heads, only judge.
    if known is not None and not (known.scores.by_head and known.scores.mask(INTACT, CHOSEN_ON).any()):
        known = None
    has_signed = any(profile.reduction.how == "signed" for profile in profiles)
    signed = None if known is None or has_signed else fit_signed(known)
    values = {name: part.values(signed=signed, profiles=profiles) for name, part in parts.items()}
    found: dict[str, Any] = {"auc": {}, "pairs": {}, "spearman": {}, "guarded": {}, "sink_mass": {}}
    found["layers_after_sinks"] = {}
    for name, part in parts.items():
        found["auc"][name] = auc_table(part, values[name])
        halves = [half for half in (CHOSEN_ON, JUDGED_ON) if part.scores.mask(INTACT, half).any()]
        found["pairs"][name] = {f"half {half}": pairs_table(part, values[name], half) for half in halves}
        found["layers_after_sinks"][name] = [part.scores.layers[k] for k in part.after_sinks]
        sink_mass = np.median(part.scores.sink_mass[part.scores.kinds == INTACT], axis=0)
        found["sink_mass"][name] = [round(float(each), 4) for each in sink_mass]
    for name in parts:
        first = name.partition("-")[0]
        if name.partition("-")[2].isdigit() and first in parts:
            found["spearman"][name] = spearman_table(parts[first], values[first], parts[name], values[name])
    if known is not None:
        found["guarded"] = guarded_tables(known, values[calibrated])
    return found, [score_table(name, part, values[name]) for name, part in parts.items()]


def auc_table(part: Part, values: dict[str, Any]) -> dict[str, Any]:
    """For every score the AUC against each kind, and of the worst kind, on half 1."""
    kinds = tuple(kind for kind in part.scores.bad if part.scores.mask(kind, JUDGED_ON).any())
    table: dict[str, Any] = {"rows": {kind: int(part.scores.mask(kind, JUDGED_ON).sum()) for kind in (INTACT, *kinds)}}
    for name, values_B in values.items():
        wins = part.scores.wins(values_B, kinds, JUDGED_ON)
        table[name] = {
            kind: estimate_auc([each], seed=SEED).rounded() for kind, each in zip(kinds, wins, strict=True)
        } | {"worst": estimate_worst(wins, seed=SEED).rounded()}
    return table


def pairs_table(part: Part, values: dict[str, Any], half: int) -> dict[str, Any]:
    """How much higher the AUC of one score is than that of another, by kind, on the same rows."""
    kinds = [kind for kind in part.scores.bad if part.scores.mask(kind, half).any()]
    table = {}
    for ours, theirs in PAIRS:
        if ours in values and theirs in values:
            wins = [part.scores.wins(values[name], tuple(kinds), half) for name in (ours, theirs)]
            table[f"{ours} over {theirs}"] = {
                kind: estimate([a - b], seed=SEED).rounded() for kind, a, b in zip(kinds, *wins, strict=True)
            }
    return table


def spearman_table(a: Part, values_a: dict[str, Any], b: Part, values_b: dict[str, Any]) -> dict[str, list[float]]:
    """For every form the rank correlation of two spans over the intact documents of half 1."""
    place_of = {place: k for k, place in enumerate(b.places_B.tolist())}
    wanted = [
        (k, place_of[place])
        for k, place in enumerate(a.places_B.tolist())
        if place in place_of and a.scores.kinds[k] == INTACT and a.scores.halves[k] == JUDGED_ON
    ]
    of_a, of_b = np.array(wanted).T
    return {
        name: estimate_spearman(
            values_a[name][of_a], values_b[name][of_b], a.scores.clusters[of_a], seed=SEED
        ).rounded()
        for name in values_a
        if name in values_b and name not in ("F", "gzip", "random")
    }


def guarded_tables(part: Part, values: dict[str, Any]) -> dict[str, Any]:
    """For every level of guards and every score, the share of each kind that is taken."""
    return {
        guards.name: {
            name: {kind: each.rounded() for kind, each in shares.items()}
            for name in SELECTED_BY
            if name in values
            for shares in [taken_shares(part, values[name], guards, signed_B=values.get("signed heads"), seed=SEED)]
        }
        for guards in LEVELS
    }


def score_table(name: str, part: Part, values: dict[str, Any]) -> pa.Table:
    rows = [part.rows.rows[place] for place in part.places_B.tolist()]
    columns: dict[str, Any] = {
        "part": [name] * len(rows),
        "index": part.places_B,
        "kind": [row.kind for row in rows],
        "package": [row.packages[0] for row in rows],
        "half": [row.half for row in rows],
        "copy_share": part.copy_share.astype(np.float32),
    }
    columns |= {score: np.asarray(values_B, dtype=np.float32) for score, values_B in values.items()}
    return pa.table(columns)


if __name__ == "__main__":
    main()
