"""Pool rows of 2,048 tokens -> a small pack: pack.npz with their ids, rows.json with their text statistics.

    python scripts/experiment/influence/prepare.py runs/experiment/pool-2k.parquet --output runs/experiment/influence

The classes of the held-out tokens come from scripts/experiment/judge.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq

from ladm.signals.text_statistics import UnigramTable, text_statistics


def read_rows(pool: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(pool).to_pylist()
    lengths = {len(row["input_ids"]) for row in rows}
    if len(lengths) != 1:
        sys.exit(f"rows of {sorted(lengths)} tokens; this needs rows of one length")
    return rows


def described(rows: list[dict[str, Any]], unigrams: UnigramTable) -> list[dict[str, Any]]:
    """Where each row comes from, and its text statistics."""
    return [
        {name: row[name] for name in ("id", "package", "kind", "domain", "split", "fault_kind")}
        | text_statistics(np.array(row["input_ids"], dtype=np.int64), row["text"], unigrams=unigrams).columns()
        | {"characters": len(row["text"])}
        for row in rows
    ]


@click.command(help=__doc__.splitlines()[0])
@click.argument("pool", type=click.Path(path_type=Path, exists=True))
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(pool: Path, output: Path) -> None:
    rows = read_rows(pool)
    output.mkdir(parents=True, exist_ok=True)
    ids_BT = np.array([row["input_ids"] for row in rows], dtype=np.uint16)
    held_out = np.array([row["split"] == "held_out" for row in rows])
    # Of the pool's rows, as `ladm score` counts them on the data that it scores.
    unigrams = UnigramTable.count(ids_BT[~held_out].astype(np.int64), vocab_size=int(ids_BT.max()) + 1)
    np.savez_compressed(output / "pack.npz", ids=ids_BT, held_out=held_out)
    (output / "rows.json").write_text(json.dumps(described(rows, unigrams)) + "\n")
    print(json.dumps({"rows": len(rows), "held_out": int(held_out.sum())}))


if __name__ == "__main__":
    main()
