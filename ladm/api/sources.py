"""What a program gives as sources -> names, and documents that it holds in memory. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from ladm.api.keywords import spell_path
from ladm.errors import UsageError

_LONGEST_NAME = 4095
"""Characters that Linux allows in a path."""
_LONGEST_PART = 255
"""Bytes that most file systems allow between two slashes."""
_NONE = object()
"""There is no source. None itself may be the first of a list, and is no document."""

if TYPE_CHECKING:
    from ladm.corpus.documents.in_memory import DocumentsInMemory


def split_sources(sources: Any) -> tuple[tuple[str, ...], list[DocumentsInMemory]]:
    """One source or several -> their names, in order, and those that are documents in memory.

    Documents are what is neither a text nor a path, and a list or an iterator whose first item is a dictionary.
    Raises UsageError where there is no source, or one of another kind.
    """
    given = _one_by_one(sources)
    if not given and isinstance(sources, Iterator):
        raise UsageError("the iterator of sources is empty, or was already used; make a new one")
    if not given:
        raise UsageError("there are no sources; give at least one")
    names: list[str] = []
    held: list[DocumentsInMemory] = []
    for source in given:
        if isinstance(source, (str, bytes, os.PathLike)) and not _is_text(source):
            names.append(spell_path(source, "a source"))  # type: ignore[arg-type]
            continue
        from ladm.corpus.documents.in_memory import DocumentsInMemory

        held.append(DocumentsInMemory(source, number=len(held) + 1))
        names.append(held[-1].name)
    return tuple(names), held


def _one_by_one(sources: Any) -> list[Any]:
    if isinstance(sources, (str, bytes, os.PathLike, Mapping)) or _is_table(sources):
        return [sources]
    try:
        items = iter(sources)
    except TypeError:
        return [sources]
    first = next(items, _NONE)
    if isinstance(first, Mapping):
        # An iterator has lost its first item by the look at it.
        return [chain([first], items) if items is sources else sources]
    return [] if first is _NONE else [first, *items]


def _is_text(source: Any) -> bool:
    """Is it the text of a document rather than the name of a file?"""
    if not isinstance(source, str) or os.path.exists(source):
        return False
    # A name without a space may be one that is too long, and a URL may have longer parts.
    is_prose = " " in source and "://" not in source and max(map(len, source.split("/"))) > _LONGEST_PART
    return "\n" in source or len(source) > _LONGEST_NAME or is_prose


def _is_table(source: Any) -> bool:
    """Has it columns, so that its items are the names of these, or record batches? Of a data set they are rows."""
    return hasattr(source, "__arrow_c_stream__") or hasattr(source, "columns") or hasattr(source, "column_names")
