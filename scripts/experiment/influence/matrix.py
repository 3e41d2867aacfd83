"""The table of tables.py -> rank correlations of all scores inside domains: matrix.json and matrix.md.

    python scripts/experiment/influence/matrix.py scripts/experiment/results/influence

As `ladm compare` computes them: the mean of the domains' own Spearman correlations, weighted by their rows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq

from ladm.comparison.agreement import spearman_inside_domains

sys.path.insert(0, str(Path(__file__).resolve().parent))
from report import columns_of

FAMILIES = {
    "attention": ("released", "median", "no sigma", "robust", "copy share", "LongAttn"),
    "loss difference": ("gain", "gain_positive", "longfilter", "key_tokens", "gain_no_copy"),
    "text": ("far_rare", "gzip_ratio", "unigram_entropy", "repeated_4grams", "repeated_13grams"),
    "other": ("loss", "random"),
}


def matrix(rows: list[dict[str, Any]]) -> dict[str, Any]:
    complete = [row for row in rows if row["cds"] is not None]
    columns = columns_of(complete)
    names = [name for family in FAMILIES.values() for name in family]
    _, codes = np.unique([row["domain"] for row in complete], return_inverse=True)
    codes = codes.astype(np.int32)
    of = [
        [spearman_inside_domains(columns[a].astype(float), columns[b].astype(float), codes) for b in names]
        for a in names
    ]
    values = np.array(of)
    families = [family for family, members in FAMILIES.items() for _ in members]
    between = {}
    for a in FAMILIES:
        for b in list(FAMILIES)[list(FAMILIES).index(a) :]:
            at = [(i, j) for i, x in enumerate(families) for j, y in enumerate(families) if (x, y) == (a, b) and i != j]
            between[f"{a} with {b}"] = float(np.median([values[i, j] for i, j in at]))
    return {"rows": len(complete), "domains": int(codes.max()) + 1, "names": names, "spearman": of, "between": between}


def as_markdown(found: dict[str, Any]) -> str:
    names = found["names"]
    lines = [f"{found['rows']} rows of 2,048 tokens in {found['domains']} domains.", "", f"| | {' | '.join(names)} |",
             "|---|" + "---:|" * len(names)]  # fmt: skip
    for name, values in zip(names, found["spearman"], strict=True):
        # The upper half would only repeat the lower one.
        shown = [f"{value:+.2f}" for value in values[: names.index(name)]]
        lines.append(f"| {name} | {' | '.join([*shown, '1', *[''] * (len(names) - len(shown) - 1)])} |")
    medians = "; ".join(f"{pair} {value:+.2f}" for pair, value in found["between"].items())
    return "\n".join([*lines, "", f"Median correlation of two scores: {medians}."]) + "\n"


@click.command(help=__doc__.splitlines()[0])
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def main(folder: Path) -> None:
    found = matrix(pq.read_table(folder / "rows.parquet").to_pylist())
    (folder / "matrix.json").write_text(json.dumps(found) + "\n")
    (folder / "matrix.md").write_text(as_markdown(found))
    print(as_markdown(found))


if __name__ == "__main__":
    main()
