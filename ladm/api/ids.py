"""Lists of ids as a program gives them -> names of files, and ids that it holds. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ladm.errors import UsageError
from ladm.settings.fields import flag
from ladm.settings.id_lists import EXCLUDE_IDS, ONLY_IDS

if TYPE_CHECKING:
    from ladm.corpus.ids.files import IdFile


def split_id_lists(settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[IdFile]]:
    """The arguments of a call with names in place of ids in memory, and those ids, in their order.

    A text or a path is the name of a file, and so is every item of a list or tuple that is one; a set, an array of
    NumPy and a column of Arrow, pandas or polars hold ids. No ids to exclude are as none given. Raises UsageError for
    ids that cannot be used, and for a text that is no file.
    """
    found = dict(settings)
    held: list[IdFile] = []
    for option in (EXCLUDE_IDS, ONLY_IDS):
        if (given := settings.get(option)) is not None:
            lists = given if isinstance(given, (list, tuple)) else [given]
            # A program that collects ids to exclude begins with an empty set; an empty file is rather a mistake.
            names = [_name_of(each, option, held) for each in lists if option == ONLY_IDS or not _is_empty_set(each)]
            found[option] = names[0] if len(names) == 1 else names or None
    return found, held


def _is_empty_set(value: Any) -> bool:
    from ladm.corpus.ids.in_memory import are_ids_in_memory

    # An array without dimensions has no length, nor has a stream of Arrow.
    has_length = hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0
    return are_ids_in_memory(value) and has_length and len(value) == 0


def _name_of(value: Any, option: str, held: list[IdFile]) -> Any:
    from ladm.corpus.ids.files import IN_MEMORY, shown_id
    from ladm.corpus.ids.in_memory import are_ids_in_memory, read_ids_in_memory

    if are_ids_in_memory(value):
        name = IN_MEMORY if not held else f"{IN_MEMORY} ({len(held) + 1})"
        held.append(read_ids_in_memory(value, name=name, flag=flag(option)))
        return name
    # Paths and addresses have messages of their own; a bare text may have been meant as an id.
    if isinstance(value, str) and value and "://" not in value and not os.path.exists(value):
        raise UsageError(f"{flag(option)} {shown_id(value)}: there is no such file; give ids themselves as a set")
    if not isinstance(value, (str, bytes, os.PathLike)):
        kind = f"an object of type {type(value).__name__}"
        raise UsageError(f"{flag(option)} takes files, and ids in a set, an array or a column, not {kind}")
    return value
