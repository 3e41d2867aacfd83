"""The pool of the experiment -> a pack of documents and real lists -> the rows that scores are judged on.

    python scripts/bench/quality/rows.py pack runs/experiment scripts/bench/results/quality/documents.parquet
    python scripts/bench/quality/rows.py make documents.parquet --model MODEL --length 4096 -o runs/quality/rows-4096

`pack` makes the pool first where `runs/experiment` has none (scripts/experiment/pool/build.py). The pack holds texts,
so it serves every tokenizer; `make` tokenises them and makes all kinds of `ladm calibrate` from them, the same bytes
each time. Half 0 is for calibration and half 1 for judging; no package is in both.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiment"))

from ladm.calibration.contrast import INTACT, REAL_LIST, SAME_PACKAGE, ContrastRow, contrast_set
from ladm.calibration.packages import Halves, split_by_package
from ladm.corpus.rows.row import Ids

POOL = Path(__file__).resolve().parents[2] / "experiment" / "pool"
PACKAGES, DOCUMENTS_A_PACKAGE = 52, 4
"""26 packages a half, 104 documents. Four documents of each, so that the pieces of one package can be pasted."""
LONGEST_TOKENS = 8_192
TEXT_SHARE = 0.75
"""Of the pool's rows of 16,384 tokens: 12,288, enough for 8,192 tokens of a tokenizer with larger tokens."""
LIST_CHARACTERS = 60_000
SEED = 17
KINDS_FOR_SPANS = (INTACT, "4 pieces", SAME_PACKAGE, REAL_LIST)
"""What a second span is measured on: the rank correlation of the intact documents, and three AUC."""


@click.group()
def main() -> None:
    """See the top of the file."""


@main.command()
@click.argument("pool", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
def pack(pool: Path, output: Path) -> None:
    """POOL -> OUTPUT, a Parquet file of texts with package and half."""
    from list_sources import real_lists
    from pool.sources import read_sources

    if not (pool / "pool.parquet").exists():
        subprocess.run([sys.executable, str(POOL / "build.py"), str(pool)], check=True)
    rows = pq.read_table(
        pool / "pool.parquet", columns=["package", "kind", "document", "fault_kind", "text"]
    ).to_pylist()
    documents = chosen_documents(rows)
    tokenizer = Tokenizer.from_file(str(pool / "model" / "tokenizer.json"))
    sources = read_sources(POOL / "sources.yaml")
    wheels = [source.package for source in sources if "==" in source.package]
    lists = [
        {"kind": REAL_LIST, "type": each.type, "package": each.package, "document": each.document}
        | {"text": each.text[:LIST_CHARACTERS]}
        for each in real_lists(rows, pool / "archives", wheels)
        if len(tokenizer.encode(each.text[:LIST_CHARACTERS]).ids) >= LONGEST_TOKENS
    ]
    packages = [each["package"] for each in documents]
    halves = split_by_package(packages, packages, seed=SEED, list_packages=[each["package"] for each in lists])
    for each, half in zip(documents + lists, np.concatenate([halves.of_documents, halves.of_lists]), strict=True):
        each["half"] = int(half)
    output.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(documents + lists), output, compression="zstd", compression_level=19)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    for half in (0, 1):
        mine = [each for each in documents if each["half"] == half]
        types = Counter(each["type"] for each in lists if each["half"] == half)
        print(
            f"half {half}: {len(mine)} documents of {len({each['package'] for each in mine})} packages; lists: {types}"
        )


def chosen_documents(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Four documents of each of `PACKAGES` packages; kinds of documents take turns, packages in random order."""
    of_package: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if not row["fault_kind"]:
            of_package[row["package"]].setdefault(row["document"], row)
    by_kind: dict[str, list[str]] = defaultdict(list)
    for package, found in of_package.items():
        if len(found) >= DOCUMENTS_A_PACKAGE:
            by_kind[next(iter(found.values()))["kind"]].append(package)
    draw = random.Random(SEED)
    for packages in by_kind.values():
        draw.shuffle(packages)
    turns = [packages.pop() for _ in range(PACKAGES) for _, packages in sorted(by_kind.items()) if packages]
    return [
        {"kind": INTACT, "type": row["kind"], "package": row["package"], "document": row["document"]}
        | {"text": row["text"][: round(TEXT_SHARE * len(row["text"]))]}
        for package in turns[:PACKAGES]
        for row in list(of_package[package].values())[:DOCUMENTS_A_PACKAGE]
    ]


@main.command()
@click.argument("packed", type=click.Path(path_type=Path, exists=True))
@click.option("--model", required=True, help="Folder with the tokenizer.")
@click.option("--length", default=4096, help="Tokens of a row.")
@click.option("--span-tokens", type=int, help="Tokens of the spans that are shuffled.  [default: T/256]")
@click.option("--half", type=int, help="The rows of this half only.  [default: both]")
@click.option("--few", is_flag=True, help=f"Only the kinds {', '.join(KINDS_FOR_SPANS)}.")
@click.option("--most", type=int, help="At most N rows of each kind and half, spread over the packages.")
@click.option("--documents", type=int, help="Only the first N documents and lists of a half, for trying it out.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
def make(
    packed: Path, model: str, length: int, span_tokens: int | None, half: int | None, few: bool, most: int | None,
    documents: int | None, output: Path,
) -> None:  # fmt: skip
    """PACKED -> OUTPUT, rows for `ladm score`."""
    from datasets import Dataset

    if output.exists():
        return
    rows = judging_rows(packed, model, length=length, span_tokens=span_tokens, documents=documents)
    wanted = [(k, row) for k, row in enumerate(rows) if half in (None, row.half)]
    wanted = [(k, row) for k, row in wanted if not few or row.kind in KINDS_FOR_SPANS]
    if most is not None:
        wanted = spread_rows(wanted, most)
    columns = {
        "input_ids": [row.ids for _, row in wanted],
        # The number of the row among all of this length, so that the runs of two spans can be joined.
        "index": [k for k, _ in wanted],
        "kind": [row.kind for _, row in wanted],
        "package": [row.packages[0] for _, row in wanted],
        "half": [row.half for _, row in wanted],
        "meta": [{"pile_set_name": row.kind, "half": row.half, "package": row.packages[0]} for _, row in wanted],
    }
    partial = output.with_name(f"{output.name}.partial")
    Dataset.from_dict(columns).save_to_disk(str(partial))
    partial.rename(output)


def judging_rows(
    packed: Path, model: str, *, length: int, span_tokens: int | None = None, documents: int | None = None
) -> list[ContrastRow]:
    """All rows of one length, those of both halves."""
    from ladm.corpus.preparation.tokenization import load_tokenizer

    tokenizer = load_tokenizer(model, bos=None)
    found = pq.read_table(packed).to_pylist()
    if documents is not None:
        found = first_of_each(found, documents)
    kept: dict[str, list[tuple[dict[str, Any], Ids]]] = {INTACT: [], REAL_LIST: []}
    for each, cut in zip(found, tokenizer.cut([each["text"] for each in found], length, most_windows=1), strict=True):
        if cut.windows:
            kept[each["kind"]].append((each, np.asarray(cut.windows[0].ids, dtype=np.int64)))
    short = len(found) - sum(map(len, kept.values()))
    if short:
        print(f"{short} texts have fewer than {length:,} tokens", file=sys.stderr)
    intact, lists = kept[INTACT], kept[REAL_LIST]
    halves = Halves(
        packages=tuple(each["package"] for each, _ in intact),
        of_documents=np.array([each["half"] for each, _ in intact]),
        list_packages=tuple(each["package"] for each, _ in lists),
        of_lists=np.array([each["half"] for each, _ in lists], dtype=np.int64),
        by_package=True,
    )
    return contrast_set(
        [ids for _, ids in intact], halves, span_tokens=span_tokens or max(1, length // 256), seed=SEED,
        lists=[ids for _, ids in lists],
    )  # fmt: skip


def spread_rows(rows: list[tuple[int, ContrastRow]], most: int) -> list[tuple[int, ContrastRow]]:
    """At most `most` rows of each kind and half, evenly spaced, because neighbours are of the same package."""
    groups: dict[tuple[str, int], list[tuple[int, ContrastRow]]] = defaultdict(list)
    for place, row in rows:
        groups[row.kind, row.half].append((place, row))
    taken = {
        group[len(group) * k // min(most, len(group))][0]
        for group in groups.values()
        for k in range(min(most, len(group)))
    }
    return [(place, row) for place, row in rows if place in taken]


def first_of_each(found: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The first documents and lists of each half."""
    counts: Counter[tuple[str, int]] = Counter()
    taken = []
    for each in found:
        counts[each["kind"], each["half"]] += 1
        if counts[each["kind"], each["half"]] <= most:
            taken.append(each)
    return taken


if __name__ == "__main__":
    main()
