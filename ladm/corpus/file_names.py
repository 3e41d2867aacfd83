"""Names of files -> what they hold, and which of them are documents. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath, PurePosixPath
from typing import Literal

_JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
_PACKED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
_ABOUT_DATA = frozenset(
    ("dataset_dict.json", "state.json", "dataset_info.json", "dataset_infos.json", "prepare.json", "manifest.json")
)
_CARDS = frozenset(
    "readme license licence licenses copying copyright notice authors citation contributing changelog changes "
    "code_of_conduct security checksums sha256sums md5sums".split()
)


def kind_of(name: str) -> Literal["json", "parquet", "text"] | None:
    """The kind of a file, as its name says; None: no kind that is read."""
    bare = name.lower()
    for suffix in _PACKED_SUFFIXES:
        bare = bare.removesuffix(suffix)
    if bare.endswith(_JSON_SUFFIXES):
        return "json"
    if bare.endswith(".parquet"):
        return "parquet"
    return "text" if bare.endswith((".txt", ".md")) else None


def is_document(file_name: str) -> bool:
    """Is it read where a folder or a glob leads to it?"""
    return bool(kind_of(file_name)) and not file_name.startswith(".") and file_name not in _ABOUT_DATA


def without_cards(names: Iterable[str]) -> list[str]:
    """The names that are no card or licence; all of them where there is nothing else.

    A folder may be nothing but a file called README.md, and then that is the document.
    """
    found = list(names)
    return [name for name in found if not _is_card(PurePosixPath(name))] or found


def _is_card(path: PurePath) -> bool:
    return kind_of(path.name) == "text" and path.name.split(".")[0].split("-")[0].lower() in _CARDS
