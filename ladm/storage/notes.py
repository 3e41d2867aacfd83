"""What was computed from large files <-> notes in the user's cache, which are valid while the files do not change.

A note that is lost does no harm. Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ladm.storage.files import PARTIAL_SUFFIX
from ladm.storage.json_object import CHECKSUM, content_checksum

CACHE_VARIABLE = "LADM_CACHE"
SETTLED_SECONDS = 3.0
"""A file changed within this time may change again within the same tick of the file system's clock."""


def note_of(*key: str | Path) -> Path | None:
    """Where the note with this key is; None without a home."""
    root = os.environ.get(CACHE_VARIABLE)
    try:
        folder = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ladm"
    except (RuntimeError, OSError):
        return None
    name = hashlib.sha256(b"\0".join(os.fsencode(part) for part in key)).hexdigest()[:32]
    return folder / "digests" / f"{name}.json"


def read_note(note: Path) -> dict[str, Any] | None:
    """What a note holds; None for one that is absent or damaged."""
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        # A digit of a digest that flips is a digit still, and would make this file another one.
        return content if content.pop(CHECKSUM) == content_checksum(content) else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def write_note(note: Path, content: dict[str, Any]) -> None:
    """Leave a note. Without a place to write to, the next command computes the same again."""
    # Not synced: a lost note costs a few seconds, and what a power loss leaves of one is no JSON or the whole.
    partial = note.with_name(f"{note.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content | {CHECKSUM: content_checksum(content)}), encoding="utf-8")
        os.replace(partial, note)
