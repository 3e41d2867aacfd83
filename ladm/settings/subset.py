"""The flags that say how `ladm select` writes a subset. Imports no library."""

from __future__ import annotations

import re
from typing import Literal

from ladm.errors import UsageError

SubsetFormat = Literal["arrow", "parquet", "jsonl", "megatron", "npy"]
WRITING = "How the subset is written"
TABLES = ("arrow", "parquet", "jsonl")
"""Formats with a row for each document; the others are token ids alone, with a table beside them."""
TAKEN_COLUMN = "taken"
"""What `--keep-all` adds: was the row chosen?"""
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def resolve_format(wanted: SubsetFormat | None, *, push: str | None) -> SubsetFormat:
    """The format where none was named."""
    return wanted or ("arrow" if push is None else "parquet")


def check_subset(wanted: SubsetFormat | None, *, keep_all: bool, push: str | None) -> None:
    """Raise UsageError for flags about the subset that contradict each other."""
    found = resolve_format(wanted, push=push)
    # Token files could hold rows that were not taken, but a trainer that reads them would train on them.
    if keep_all and found not in TABLES:
        raise UsageError(
            f"--keep-all needs --format arrow, parquet or jsonl; {found} files have no place for what was not taken"
        )
    if push is not None and not _REPOSITORY.fullmatch(push):
        raise UsageError(f"--push {push!r} is not a data set of the Hub such as org/name")
    if push is not None and found == "arrow":
        raise UsageError("--push needs another --format than arrow, which the Hub neither shows nor loads")
