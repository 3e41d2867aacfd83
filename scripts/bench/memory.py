"""Rows that cost nothing to score -> peak memory of prepare, of what score does beside the model, of select and report.

    python scripts/bench/memory.py --rows 1000000 --output scripts/bench/results/memory.json

Measured is the peak of the memory that a command and its child processes have allocated (`RssAnon`, looked at 20 times
a second); pages of files that are mapped into memory are not counted, because the system may drop them at any time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from error_lines import errors_in_a_line
from machine import facts, write_result
from store import make_rows

WORDS = 40
"""Words, and so tokens, of a document to prepare; a row takes 32."""


def processes(first: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield first
    for children in Path(f"/proc/{first}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from processes(int(child))


def allocated_mib(first: int) -> float:
    """What a process and its children hold now; 0 for one that has just ended."""
    kib = 0
    try:
        for process in processes(first):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            kib += next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return kib / 1024


def peak_of(*command: Any) -> dict[str, float]:
    """Peak memory and seconds of a command. Raises SystemExit when it fails."""
    began, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as output:
        running = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        while running.poll() is None:
            peak = max(peak, allocated_mib(running.pid))
            time.sleep(0.05)
        if running.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(map(str, command))} ended with {running.returncode}: {output.read()[-2000:]}")
    return {"peak_mib": round(peak), "seconds": round(time.perf_counter() - began)}


def make_tokenizer(folder: Path) -> None:
    """A tokenizer with one token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({f"w{k}": k for k in range(1000)} | {"[UNK]": 1000}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(str(folder))


def make_documents(file: Path, count: int) -> None:
    """Documents as JSON lines, each different from every other, with a domain and an id."""
    with file.open("w") as lines:
        for k in range(count):
            text = " ".join(f"w{(k // 1000**place + 7 * place) % 1000}" for place in range(WORDS))
            meta = {"domain": f"domain {k % 22}"}
            lines.write(json.dumps({"id": f"document-{k}", "text": text, "meta": meta}) + "\n")


def measure(root: Path, rows: int, layers: int) -> dict[str, dict[str, float]]:
    """Peak memory and seconds of each command over `rows` rows."""
    ladm = [sys.executable, "-m", "ladm"]
    found = {}
    documents = root / "documents.jsonl"
    make_documents(documents, rows)
    found["prepare"] = peak_of(
        *ladm,
        "prepare",
        documents,
        "--tokenizer",
        root / "tokenizer",
        "--length",
        32,
        "--domain-key",
        "meta.domain",
        "--output",
        root / "prepared",
    )
    make_rows(root, rows)
    store = Path(__file__).with_name("store.py")
    found["score, all but the model"] = peak_of(
        sys.executable, store, "--rows", rows, "--layers", layers, "--child", root
    )
    run, data = next(root.glob("run*")), root / f"rows{rows}"
    found["select"] = peak_of(*ladm, "select", run, "--rows", data, "--tokens", "10%", "--output", root / "subset")
    found["report"] = peak_of(
        *ladm, "report", run, "--subset", root / "subset", "--rows", data, "--output", root / "page.html"
    )
    return found


@click.command(help=__doc__.splitlines()[0])
@click.option("--rows", default=1_000_000, help="The larger number of rows; the smaller is a quarter of it.")
@click.option("--layers", default=30)
@click.option("--output", type=click.Path(path_type=Path))
def main(rows: int, layers: int, output: Path | None) -> None:
    result: dict[str, Any] = {"layers": layers}
    for count in (rows // 4, rows):
        with tempfile.TemporaryDirectory() as folder:
            make_tokenizer(Path(folder) / "tokenizer")
            result[f"{count} rows"] = measure(Path(folder), count, layers)
    write_result(result | facts("cpu"), output)


if __name__ == "__main__":
    with errors_in_a_line():
        main()
