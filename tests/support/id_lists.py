"""Rows with ids, and files that list some of the ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.rows import topical_rows

LENGTHS = [512, 400, 450, 600, 700, 480, 512, 490, 530]
OUT = (2, 5, 6)
"""The rows that lists exclude."""


def named_rows(golden: Any) -> list[dict[str, Any]]:
    return [row | {"id": f"d{k}"} for k, row in enumerate(topical_rows(golden, LENGTHS))]


def write_ids(path: Path, ids: list[str]) -> Path:
    path.write_text("".join(f"{each}\n" for each in ids))
    return path


def excluded(folder: Path) -> Path:
    return write_ids(folder / "drop.txt", [*(f"d{k}" for k in OUT), "x1", "x2"])


def write_uuids(path: Path, numbers: range) -> Path:
    return write_ids(path, [f"<urn:uuid:{k}>" for k in numbers])
