r"""What measure.py wrote -> rows.parquet: influence and all scores of every row, the file that is committed.

    python scripts/experiment/influence/tables.py runs/experiment/influence \
        --output scripts/experiment/results/influence

A row that a part has not measured yet has nulls there.
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
from gradients import adam_rows

PARTS = ("influence", "gain", "columns", "prolong")


def unseen_tokens(ids: np.ndarray) -> list[int]:
    """For each row the number of distinct tokens that occur in none of the rows the preconditioner is computed from."""
    seen = np.unique(ids[adam_rows(len(ids))])
    return [len(np.setdiff1d(row, seen)) for row in ids]


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows in the order of the pack, with what their parts have measured."""
    with np.load(folder / "pack.npz") as content:
        ids = content["ids"][~content["held_out"]].astype(np.int64)
    sampled = set(range(len(ids))[adam_rows(len(ids))])
    parts = [
        {row["id"]: row for row in map(json.loads, (folder / f"{name}.jsonl").read_text().splitlines())}
        for name in PARTS
        if (folder / f"{name}.jsonl").exists()
    ]
    about = [row for row in json.loads((folder / "rows.json").read_text()) if row["split"] != "held_out"]
    found = [
        row | {"of_adam": k in sampled, "unseen": unseen}
        for k, (row, unseen) in enumerate(zip(about, unseen_tokens(ids), strict=True))
    ]
    for part in parts:
        names = dict.fromkeys(name for row in part.values() for name in row)
        found = [row | {name: part.get(row["id"], {}).get(name, row.get(name)) for name in names} for row in found]
    return found


def as_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Numbers by layer in float32: their rounding is far below what correlations of ranks can see."""
    table = pa.Table.from_pylist(rows)
    for k, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            table = table.set_column(k, field.name, table[field.name].cast(pa.list_(pa.float32())))
    return table


@click.command(help=__doc__.splitlines()[0])
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(folder: Path, output: Path) -> None:
    rows = read_rows(folder)
    output.mkdir(parents=True, exist_ok=True)
    pq.write_table(as_table(rows), output / "rows.parquet", compression="zstd", compression_level=9)
    measured = {name: sum(row.get(name) is not None for row in rows) for name in ("u_D", "cds", "prolong")}
    print(json.dumps({"rows": len(rows)} | measured))


if __name__ == "__main__":
    main()
