"""The flags that say how `ladm select` writes a subset. Imports no library."""

from __future__ import annotations

import re
from typing import Any, Literal

from ladm.errors import UsageError
from ladm.settings.fields import setting

SubsetFormat = Literal["arrow", "parquet", "jsonl", "megatron", "npy"]
WRITING = "How the subset is written"
TABLES = ("arrow", "parquet", "jsonl")
"""Formats with a row for each document; the others are token ids alone, with a table beside them."""
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def format_setting() -> Any:
    """How the rows are stored."""
    # None, because the Hub shows and streams Parquet, and everything else here reads what save_to_disk writes.
    return setting(
        None,
        "A data set of save_to_disk, Parquet or JSONL shards, Megatron-LM's .bin and .idx, or NumPy token files.",
        section=WRITING,
        unset="arrow; parquet with --push",
    )


def keep_all_setting() -> Any:
    """Write rows that were not taken too."""
    return setting(False, "Write every row, with its score and whether it was taken.", section=WRITING)


def push_setting() -> Any:
    """Where on the Hub the subset goes."""
    return setting(
        None,
        "Also upload the subset to the Hub; a data set that does not exist is made, private.",
        section=WRITING,
        metavar="ORG/NAME",
        unset="no upload",
    )


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
