"""A finished part with both halves -> a profile with its band, by the code of `ladm calibrate`.

    python scripts/bench/quality/profile_of_part.py DOCUMENTS.parquet OUT/smollm2/4096 --model FOLDER -o PROFILE.yaml

Signed heads are chosen on half 0 and judged on half 1, as `ladm calibrate --search signed` does after scoring. No model
runs. The config.json of FOLDER may be that of another version of transformers than the part was scored with; its
weights must be the same.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click

sys.path.insert(0, str(Path(__file__).resolve().parent))
from rows import SEED, judging_rows

from ladm.calibration.band import intact_band, text_band
from ladm.calibration.calibrate import make_profile
from ladm.calibration.candidates import Candidate
from ladm.calibration.contrast import INTACT
from ladm.calibration.contrast_scores import ContrastScores, read_contrast_scores
from ladm.calibration.result import analyse
from ladm.modeling.model_files import model_identity
from ladm.runs.derived_identity import rescored_identity
from ladm.runs.folder import Run
from ladm.runs.layout import ERRORS_FILE, PARQUET_FILE, SORTED_FILE
from ladm.settings.profiles import Quantiles, profile_text


@click.command(help=__doc__.splitlines()[0])
@click.argument("packed", type=click.Path(path_type=Path, exists=True))
@click.argument("part", type=click.Path(path_type=Path, exists=True))
@click.option("--model", required=True, help="Folder of the model, whose hashes the profile gets.")
@click.option("--documents", type=int, help="As in score.sh.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(packed: Path, part: Path, model: str, documents: int | None, output: Path) -> None:
    run, hashes = Run.read(part), model_identity(model)
    scored_with = run.identity.model_sha256
    if any(scored_with.get(name) != digest for name, digest in hashes.items() if name != "config.json"):
        sys.exit(f"{model} has other weights than the model of {part}")
    length = int(part.name.partition("-")[0])
    rows = judging_rows(packed, model, length=length, documents=documents)
    packages = [row.packages[0] for row in rows]
    scores = read_contrast_scores(run, rows, packages, num_layers=max(run.identity.layers) + 1, heads=True)
    result = analyse(scores, search="signed", objective="auc", max_cost=1.0, seed=SEED)
    intact = [row for row in rows if row.kind == INTACT]
    profile = make_profile(
        run, result, length_tokens=length, packages=[row.packages[0] for row in intact], seed=SEED, search="signed",
        band=whole_band(run, scores, result.recommended) | text_band([row.ids for row in intact], model),
        # A signed sum is over the heads of all layers.
        score_layers_band={},
    )  # fmt: skip
    output.write_text(profile_text(replace(profile, model=profile.model | {"sha256": hashes})))
    print(f"{output}: {result.summary()['recommended']}; worst kind {result.worst_kind}")


def whole_band(run: Run, scores: ContrastScores, recommended: Candidate) -> dict[str, Quantiles]:
    """The band of a part, which has no units: as a run that was made by rescoring, it needs none."""
    identity = run.identity
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        rescored = rescored_identity(identity, identity.reduction, identity.score_form, source=str(run.folder))
        found = Run.create_or_resume(copy, rescored)
        shutil.copy(run.folder / PARQUET_FILE, copy)
        # A finished run has these too; the columns are in the Parquet file.
        for name in (ERRORS_FILE, SORTED_FILE):
            (copy / name).touch()
        return intact_band(found, scores, recommended)


if __name__ == "__main__":
    main()
