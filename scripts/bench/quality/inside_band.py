"""A finished part of score.sh and a profile -> which share of the intact rows lies inside the limits of its band.

    python scripts/bench/quality/inside_band.py runs/quality/books.parquet runs/quality/out-books/smollm2/4096 \\
        --model runs/quality/smollm2 --profile configs/profiles/smollm2-135m-guarded.yaml \\
        -o scripts/bench/results/quality-books/inside-band.json

The limits are those of `guarded.py`: at most the 95th percentile of `robust` and the copy share, and text statistics
between the 5th and the 95th. Intervals are by bootstrap over packages. `below` and `above` say on which side rows lie.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from guarded import GUARDING_STATISTICS
from judged import Part, Rows
from machine import facts, write_result

from ladm.calibration.contrast import INTACT
from ladm.calibration.estimates import interval
from ladm.settings.profiles import read_profile

CEILINGS = ("robust", "copy_share")
DRAWS, SEED = 400, 17


@click.command(help=__doc__.splitlines()[0])
@click.argument("packed", type=click.Path(path_type=Path, exists=True))
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--model", required=True, help="Folder of the model, as score.sh had it.")
@click.option("--profile", required=True, type=click.Path(exists=True))
@click.option("-o", "--output", type=click.Path(path_type=Path))
def main(packed: Path, folder: Path, model: str, profile: str, output: Path | None) -> None:
    band = read_profile(profile).band
    assert band is not None
    length = int(folder.name.partition("-")[0])
    part = Part.read(folder, Rows.make(packed, model, length=length, documents=None))
    intact = part.scores.kinds == INTACT
    packages = np.array([part.rows.rows[place].packages[0] for place in part.places_B])[intact]
    columns = {"robust": part.values()["robust"], "copy_share": part.copy_share}
    columns |= {name: part.statistic(name) for name in GUARDING_STATISTICS}
    below, above = {}, {}
    inside = np.ones(len(packages), dtype=bool)
    for name, values in columns.items():
        low, _, high = band[name]
        # A ceiling alone: a low score is no fault.
        lowest = -np.inf if name in CEILINGS else low
        above[name] = int(np.count_nonzero(values[intact] > high))
        below[name] = int(np.count_nonzero(values[intact] < lowest))
        inside &= (values[intact] <= high) & (values[intact] >= lowest)
    names, clusters = np.unique(packages, return_inverse=True)
    counts = np.random.default_rng(SEED).multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS)
    shares = np.array([np.average(inside, weights=each[clusters]) for each in counts])
    found = {
        "rows": len(packages),
        "packages": len(names),
        "inside": int(inside.sum()),
        "share": interval(float(inside.mean()), shares).rounded(),
        "below": below,
        "above": above,
        "inside by package": {str(name): int(inside[packages == name].sum()) for name in names},
    }
    write_result(facts("cpu") | {"part": part.name, "profile": profile} | found, output)


if __name__ == "__main__":
    main()
