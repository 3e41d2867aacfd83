"""Pool rows of 16,384 tokens -> pack.npz: everything that the GPU's part needs and that needs no GPU.

    python scripts/experiment/pretraining/pack.py runs/experiment/pool.parquet --tokenizer runs/toy/model \
        --output runs/experiment/pretraining/pack.npz

Pool A is the first rows of the pool, four for every row that a student trains on (packages take turns in the pool, so
its beginning is balanced); pool B has natural faults beside them. Held-out rows, text statistics, and rows in which
16 facts stand at 16 distances before the questions about them (needles). Classes of held-out tokens come from
scripts/experiment/judge.py, which reads this pack.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from influence.prepare import described, read_rows

from ladm.signals.text_statistics import UnigramTable
from ladm.storage.files import write_whole

Array = np.ndarray[Any, Any]

FAULT_SHARE = 0.2
DISTANCES = 16
VALUE_DIGITS = 5
COLOURS = "red blue green white black brown grey pink gold silver orange purple".split()
ANIMALS = "horse tiger rabbit eagle whale spider monkey lizard pigeon donkey turtle beaver".split()


def needles(haystack: Array, tokenizer: Any, draw: np.random.Generator) -> tuple[Array, Array, Array]:
    """A row with 16 facts and, at its end, their teacher-forced questions in another order.

    `haystack` (T,) gives up its last tokens. Returns ids (T,), the place of each fact's value in its question
    (DISTANCES, VALUE_DIGITS), and how many tokens lie between the two places of each value (DISTANCES,).
    """
    T = len(haystack)
    names = [f"{COLOURS[k // len(ANIMALS)]} {ANIMALS[k % len(ANIMALS)]}" for k in
             draw.choice(len(COLOURS) * len(ANIMALS), DISTANCES, replace=False)]  # fmt: skip
    values = ["".join(map(str, draw.integers(0, 10, VALUE_DIGITS))) for _ in names]
    ask = [tokenizer.encode(f"\nThe number of the {name} is ", add_special_tokens=False) for name in names]
    # The digits are tokenized on their own: then a value has the same tokens in the fact and in the question.
    digits = [[tokenizer.encode(digit, add_special_tokens=False)[0] for digit in value] for value in values]
    end = tokenizer.encode(".\n", add_special_tokens=False)
    facts = [prompt + value + end for prompt, value in zip(ask, digits, strict=True)]
    length = sum(map(len, facts))
    if 4 * length > T:
        sys.exit(f"rows of {T} tokens are too short for {DISTANCES} facts and questions of {2 * length} tokens in all")
    body = haystack[: T - 2 * length].tolist()
    # Distances grow by a constant factor, from just before the questions to the row's beginning.
    back = np.geomspace(max(8, len(body) / 64), len(body), DISTANCES)
    ids: list[int] = []
    at = 0
    place = {}
    for k in range(DISTANCES - 1, -1, -1):
        stop = round(len(body) - back[k])
        ids += body[at:stop]
        at = stop
        place[k] = len(ids) + len(ask[k])
        ids += facts[k]
    ids += body[at:]
    wanted = np.zeros((DISTANCES, VALUE_DIGITS), np.int32)
    for k in draw.permutation(DISTANCES):
        wanted[k] = len(ids) + len(ask[k]) + np.arange(VALUE_DIGITS)
        ids += facts[k]
    return np.array(ids, np.uint16), wanted, wanted[:, 0] - np.array([place[k] for k in range(DISTANCES)])


def domains_of_faults(rows: list[dict[str, Any]], draw: np.random.Generator) -> None:
    """Give each fault of a kind of its own the domain of some row of the pool: a corpus does not label its faults."""
    domains = [row["domain"] for row in rows if row["split"] == "pool"]
    known = set(domains)
    for row in rows:
        if row["split"] == "fault" and row["domain"] not in known:
            row["domain"] = domains[draw.integers(len(domains))]


def chosen_rows(rows: list[dict[str, Any]], *, student_rows: int, held_out: int | None) -> list[dict[str, Any]]:
    of = {split: [row for row in rows if row["split"] == split] for split in ("pool", "fault", "held_out")}
    most = {"pool": 4 * student_rows, "fault": round(4 * student_rows * FAULT_SHARE), "held_out": held_out}
    for split in ("pool", "fault"):
        if len(of[split]) < most[split]:
            sys.exit(f"{len(of[split])} rows of the split {split}; {most[split]} are needed")
    return [row for split, found in of.items() for row in found[: most[split]]]


@click.command(help=__doc__.splitlines()[0])
@click.argument("pool", type=click.Path(path_type=Path, exists=True))
@click.option("--tokenizer", "tokenizer_folder", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--student-rows", default=122, show_default=True, help="Rows that a student trains on: 2M tokens.")
@click.option("--held-out-rows", type=int, help="Most held-out rows; default: all.")
@click.option("--needle-rows", default=32, show_default=True)
def main(
    pool: Path, tokenizer_folder: Path, output: Path, student_rows: int, held_out_rows: int | None, needle_rows: int
) -> None:
    from transformers import AutoTokenizer

    started, cpu = time.monotonic(), time.process_time()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    rows = chosen_rows(read_rows(pool), student_rows=student_rows, held_out=held_out_rows)
    draw = np.random.default_rng(0)
    domains_of_faults(rows, draw)
    ids_BT = np.array([row["input_ids"] for row in rows], dtype=np.uint16)
    held_out = np.array([row["split"] == "held_out" for row in rows])
    intact = np.array([row["split"] == "pool" for row in rows])
    # A table of the pool: one of the held-out rows would let them choose what is trained on.
    unigrams = UnigramTable.count(ids_BT[intact].astype(np.int64), vocab_size=int(ids_BT.max()) + 1)
    haystacks = ids_BT[held_out][np.arange(needle_rows) % held_out.sum()]
    made = [needles(haystack, tokenizer, draw) for haystack in haystacks]
    facts = {"student_rows": student_rows, "rows": described(rows, unigrams)}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, ids=ids_BT, held_out=held_out, about=np.frombuffer(json.dumps(facts).encode(), np.uint8),
        needle_ids=np.stack([ids for ids, _, _ in made]), needle_places=np.stack([places for _, places, _ in made]),
        needle_distances=np.stack([distances for _, _, distances in made]),
    )  # fmt: skip
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, [buffer.getvalue()])
    counts = {split: sum(row["split"] == split for row in rows) for split in ("pool", "fault", "held_out")}
    seconds = {"seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    print(json.dumps(counts | {"megabytes": round(output.stat().st_size / 1e6, 1)} | seconds))


if __name__ == "__main__":
    main()
