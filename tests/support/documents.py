"""Documents as JSON lines, plain or compressed, for `ladm prepare`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

WORDS = "the quick brown fox jumps over a lazy dog and then goes home to sleep until the next day é ".split()


def document(k: int, words: int) -> dict[str, Any]:
    text = " ".join(WORDS[(k + i) % len(WORDS)] for i in range(words))
    return {"text": text, "meta": {"pile_set_name": "ab"[k % 2], "k": k}}


DOCUMENTS = [document(k, 40 + 10 * (k % 3)) for k in range(6)]


def write_jsonl(path: Path, records: list[Any]) -> Path:
    data = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.ZstdCompressor().compress(data)
    path.write_bytes(data)
    return path


def corpus(folder: Path, files: int = 3) -> list[Path]:
    """Files of four documents each."""
    folder.mkdir()
    paths = [folder / f"{k}.jsonl" for k in range(files)]
    for k, path in enumerate(paths):
        write_jsonl(path, [document(4 * k + i, 60 + k) for i in range(4)])
    return paths


def write_corpus(folder: Path) -> None:
    """`corpus/`: documents of the words of the tiny tokenizer, as the page's examples read them."""
    draw = np.random.default_rng(0)
    (folder / "corpus").mkdir()
    lines = []
    for k in range(8):
        text = " ".join(f"w{word}" for word in draw.integers(2, 300, 50 if k == 7 else 600))
        lines.append(json.dumps({"text": text, "meta": {"pile_set_name": f"domain {k % 2}"}}))
    (folder / "corpus" / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
