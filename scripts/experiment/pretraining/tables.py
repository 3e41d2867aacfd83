"""The state of run.py and its pack -> Parquet: scores of rows, rows of each arm, losses by document and seed.

    python scripts/experiment/pretraining/tables.py --state runs/experiment/pretraining/state.json.gz \
        --pack runs/experiment/pretraining/pack.npz --output scripts/experiment/results/pretraining
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from bigrams import bigram_losses, pool_unigram
from files import OUTCOMES, Pack, read_token_losses, sums_by_class
from student import ladder_windows

from ladm.evaluation.ladder import suffix_tokens
from ladm.storage.files import write_whole

TABLES = ("scores", "arms", "losses", "needles", "students", "ladder")


def score_table(state: dict[str, Any], pack: Pack) -> list[dict[str, Any]]:
    return [row | state["scores"].get(row["id"], {}) for row in pack.about]


def arm_table(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of each selection; its seeds share them."""
    taken = {(*name.split("/")[:2],): student["rows"] for name, student in state["students"].items()}
    return [{"arm": arm, "draw": int(draw), "row": row} for (arm, draw), rows in taken.items() for row in rows]


def loss_table(state: dict[str, Any], pack: Pack) -> list[dict[str, Any]]:
    """Sums over the tokens of a class of a held-out document, and how many tokens that are."""
    half = pack.classes.shape[1] // 2
    counts = {name: (pack.classes[:, half:] == code).sum(axis=1) for name, code in OUTCOMES.items()}
    found = []
    for name, student in state["students"].items():
        arm, draw, seed = name.split("/")
        for k, row in enumerate(pack.held_out_about):
            for of_class in OUTCOMES:
                found.append(
                    {"arm": arm, "draw": int(draw), "seed": int(seed), "document": row["id"], "package": row["package"]}
                    | {"kind": row["kind"], "class": of_class, "tokens": int(counts[of_class][k])}
                    | {form: student["held_out"][form][of_class][k] for form in ("long", "short")}
                )
    return found


def needle_table(state: dict[str, Any], pack: Pack) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "draw": int(draw), "seed": int(seed), "row": row, "distance": int(distance), "loss": loss}
        for name, student in state["students"].items()
        for arm, draw, seed in (name.split("/"),)
        for row, losses in enumerate(student["needles"])
        for distance, loss in zip(pack.needle_distances[row], losses, strict=True)
    ]


def ladder_table(state: dict[str, Any], pack: Pack) -> list[dict[str, Any]]:
    """Mean losses of the same last tokens of every held-out row by window; of students that have them."""
    windows = ladder_windows(pack.held_out.shape[1])
    return [
        {"arm": arm, "draw": int(draw), "seed": int(seed), "document": row["id"], "package": row["package"]}
        | {"window": window, "context": window - suffix_tokens(windows), "loss": loss}
        for name, student in state["students"].items()
        for arm, draw, seed in (name.split("/"),)
        for row, losses in zip(pack.held_out_about, student["held_out"].get("ladder", []), strict=False)
        for window, loss in zip(windows, losses, strict=True)
    ]


def student_table(state: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name, student in state["students"].items():
        arm, draw, seed = name.split("/")
        losses = student.get("training_losses", [])
        found.append(
            {
                "arm": arm,
                "draw": int(draw),
                "seed": int(seed),
                "device": student["device"],
                "rows": len(student["rows"]),
            }
            | {"first_training_loss": losses[0] if losses else None}
            | {"last_training_loss": float(np.mean(losses[-5:])) if losses else None}
            | {f"bigram_{of_class}": student["bigram"].get(of_class) for of_class in OUTCOMES}
            | {f"{part}_seconds": seconds for part, seconds in student["seconds"].items()}
            | {f"bin_{k}": value for k, value in enumerate(np.mean(student["held_out"]["bins"], axis=0).tolist())}
        )
    return found


def bigrams_of(ids: list[str], pack: Pack) -> dict[str, float]:
    place = {row["id"]: k for k, row in enumerate(pack.about)}
    return bigram_losses(pack, [place[name] for name in ids], pool_unigram(pack))


@click.command(help=__doc__.splitlines()[0])
@click.option("--state", "state_file", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--pack", "pack_file", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--classes", type=click.Path(path_type=Path), help="Of judge.py; default: classes.npz beside the pack.")
@click.option(
    "--tokens",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Folder or *.zip with the losses of all tokens, for classes made later; may be repeated.",
)
@click.option(
    "--next-state",
    type=click.Path(path_type=Path),
    help="Write the state with the sums of these classes, for run.py to continue from.",
)
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(
    state_file: Path,
    pack_file: Path,
    classes: Path | None,
    tokens: tuple[Path, ...],
    next_state: Path | None,
    output: Path,
) -> None:
    state = json.loads(gzip.decompress(state_file.read_bytes()))
    pack = Pack.read(
        pack_file, classes or pack_file.with_name("classes.npz"), held_out_rows=state["identity"]["held-out rows"]
    )
    if pack.digest != state["identity"]["pack"]:
        sys.exit(f"{state_file} is of another pack")
    if tokens:
        for name, student in state["students"].items():
            losses = read_token_losses(tokens, name)
            student["held_out"] |= sums_by_class(losses["long"], losses["short"], pack.classes)
            student["bigram"] = bigrams_of(student["rows"], pack)
    elif pack.classes_digest != state["identity"]["classes"]:
        sys.exit(f"{state_file} is of other classes; give --tokens to use those of today")
    output.mkdir(parents=True, exist_ok=True)
    if next_state is not None:
        state["identity"]["classes"] = pack.classes_digest
        write_whole(next_state, [gzip.compress(json.dumps(state).encode(), mtime=0)])
    made = (
        score_table(state, pack), arm_table(state), loss_table(state, pack), needle_table(state, pack),
        student_table(state), ladder_table(state, pack),
    )  # fmt: skip
    for name, rows in zip(TABLES, made, strict=True):
        if not rows:
            (output / f"{name}.parquet").unlink(missing_ok=True)
            continue
        pq.write_table(pa.Table.from_pylist(rows), output / f"{name}.parquet", compression="zstd", compression_level=9)
    print({name: len(rows) for name, rows in zip(TABLES, made, strict=True)})


if __name__ == "__main__":
    main()
