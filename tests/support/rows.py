"""Rows in the published format, made of the golden sequences, and the rows of a prepared folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def topical_rows(golden: dict[str, Any], lengths: list[int]) -> list[dict[str, Any]]:
    """Rows in the published format cut from the golden sequences."""
    ids = golden["input_ids"]
    return [
        {
            "text": f"document {k}",
            "meta": {"pile_set_name": f"domain {k % 2}"},
            "input_ids": ids[k % len(ids)][:length],
            "index": k,
        }
        for k, length in enumerate(lengths)
    ]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    # Not every machine that runs the tests of kernels has it (scripts/bench/gpu.sh).
    from datasets import load_from_disk

    return list(load_from_disk(str(folder))["train"])
