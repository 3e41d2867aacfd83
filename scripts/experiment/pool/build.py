"""Debian and Python packages -> pool.parquet, pool-2k.parquet, sources.json: the rows that the experiment selects from.

    python scripts/experiment/pool/build.py runs/experiment

Nothing is installed. Fetched archives and the rows of finished packages stay in the folder, so that it resumes where it
was stopped. The same package versions give the same bytes. It needs apt-get and dpkg (Debian 12) and a package index.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "toy"))
import fetch_model
from pool.candidates import candidates
from pool.extract import Source
from pool.fetch import fetch_debian_packages, fetch_wheels, unpack
from pool.report import markdown, other_versions
from pool.select_rows import long_rows, short_rows
from pool.sources import read_sources
from pool.tools import Tools, fetch_tools

COMMITTED = Path(__file__).resolve().parents[1] / "results" / "pool.md"
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "package", "kind", "domain", "document")]
    + [("row_in_document", pa.int32())]
    + [(name, pa.string()) for name in ("split", "fault_kind", "licence", "text")]
    + [("input_ids", pa.list_(pa.uint16()))]
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--only", help="Make the candidates of this package alone, again, and stop.")
def main(folder: Path, only: str | None) -> None:
    sources = read_sources(Path(__file__).with_name("sources.yaml"))
    if only is not None:
        sources = [source for source in sources if source.package == only]
        if not sources:
            sys.exit(f"--only {only}: sources.yaml has no such package")
    for name in ("archives", "packages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    fetch_model.main(folder / "model")
    tokenizer = Tokenizer.from_file(str(folder / "model" / "tokenizer.json"))
    tools = fetch_tools(folder)
    fetch_debian_packages([each.package for each in sources if "==" not in each.package], folder / "archives")
    fetch_wheels([each.package for each in sources if "==" in each.package], folder / "archives")
    rows: list[dict[str, Any]] = []
    of_packages: dict[str, dict[str, Any]] = {}
    failed = []
    for number, source in enumerate(sources, 1):
        try:
            found, facts = rows_of(source, folder, tokenizer, tools, again=bool(only))
        except subprocess.CalledProcessError as error:
            # The others are worth having by the time that somebody looks.
            print(f"{source.package}: {error}", flush=True)
            failed.append(source.package)
            continue
        rows += found
        of_packages[source.package] = {"kind": source.kind, "split": source.split} | facts
        print(f"{number:4} of {len(sources)}  {source.kind:12} {source.package:36} {len(found):3} rows", flush=True)
    if failed:
        sys.exit(f"could not be fetched or unpacked: {', '.join(failed)}")
    if only:
        return
    print(f"{len(rows)} candidate rows; comparing their 13-grams", flush=True)
    chosen, largest = long_rows(rows)
    write(folder / "pool.parquet", chosen)
    write(folder / "pool-2k.parquet", short_rows(chosen, tokenizer))
    facts = {"largest_share_of_13_grams": round(largest, 4), "packages": of_packages}
    (folder / "sources.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    (folder / "pool.md").write_text(markdown(chosen, of_packages, largest))
    if changed := other_versions(of_packages, COMMITTED.read_text()):
        print(
            f"warning: {len(changed)} packages have other versions than in {COMMITTED.name} of the results: "
            f"{', '.join(changed[:8])}{', ...' if len(changed) > 8 else ''}. So its rows and packs differ from "
            "those of the committed results; `apt-get update` fetches the newest lists.",
            file=sys.stderr,
        )


def rows_of(
    source: Source, folder: Path, tokenizer: Tokenizer, tools: Tools, *, again: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The candidate rows of a package, from the folder if it was finished with the same settings."""
    settings = hashlib.sha256(json.dumps(asdict(source), sort_keys=True).encode()).hexdigest()[:12]
    path = folder / "packages" / f"{source.package}-{settings}.parquet"
    if again or not path.exists():
        began = time.monotonic()
        with unpack(source.package, folder / "archives") as package:
            found = list(identified(source, candidates(source, package.root, tokenizer, tools), package.licence))
            facts = {"version": package.version, "licence": package.licence, "seconds": time.monotonic() - began}
        write(path, found, facts=facts)
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"facts"])
    # Seconds differ from run to run, so they are not part of what is written for good.
    print(f"      {facts.pop('seconds'):6.1f} s", end="")
    # As arrays, the ids of all rows take 40 MB instead of a gigabyte.
    ids = [each.values.to_numpy() for each in table["input_ids"]]
    rows = table.drop_columns("input_ids").to_pylist()
    return [row | {"input_ids": each} for row, each in zip(rows, ids, strict=True)], facts


def identified(source: Source, found: Iterator[dict[str, Any]], licence: str) -> Iterator[dict[str, Any]]:
    for row in found:
        key = hashlib.sha256(f"{row['fault_kind']} {row['document']}".encode()).hexdigest()[:8]
        row["id"] = f"{source.package}/{key}/{row['row_in_document']}"
        split = "fault" if row["fault_kind"] else source.split
        yield (
            row
            | {"package": source.package, "kind": source.kind, "domain": source.domain, "split": split}
            | {"licence": licence}
        )


def write(path: Path, rows: list[dict[str, Any]], *, facts: dict[str, Any] | None = None) -> None:
    """All or nothing, so that a file that exists is complete."""
    schema = SCHEMA.with_metadata({"facts": json.dumps(facts)}) if facts else SCHEMA
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows, schema), partial, compression="zstd", compression_level=9)
    partial.rename(path)


if __name__ == "__main__":
    main()
