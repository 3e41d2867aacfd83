"""Reading JSON files, and flipping a bit of any file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object without its checksum: written again, it counts as a file from before there were any."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    content.pop("crc32", None)
    return content


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))
