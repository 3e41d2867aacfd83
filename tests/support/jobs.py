"""Documents as a shard of FinePDFs, and the words of `ladm run` that make a job of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ladm.evaluation import needle

WORDS = [*"The magic number of is Question What Answer the".split(), *needle.CITIES]


def text_of(seed: int, words: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


def write_finepdfs(path: Path, *, documents: int = 12, words: int = 600) -> Path:
    """A shard with the columns of FinePDFs."""
    rows = []
    for k in range(documents):
        text = text_of(k, words + k)
        rows.append(
            {
                "text": text,
                "id": f"<urn:uuid:{k}>",
                "url": f"https://example.org/{k}.pdf",
                "dump": "CC-MAIN-2025-05",
                "language": ("eng_Latn", "deu_Latn", "fra_Latn")[k % 3],
                "token_count": words + k,
                "page_ends": [len(text) // 2, len(text)],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def job_words(shard: Path, model: Path, output: Path) -> list[Any]:
    flags = ["--dtype", "float32", "--device", "cpu", "--span-tokens", "16"]
    return ["run", shard, "--model", model, "--tokens", "3k", "-o", output, "--format", "megatron", *flags]
