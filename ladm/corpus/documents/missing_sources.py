"""Names of sources that were there at an earlier start -> an error for those that are gone. Imports no torch."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable

from ladm.corpus.files.folders import NoSourceError
from ladm.corpus.files.hub import may_be_data_set
from ladm.corpus.files.names import kind_of
from ladm.corpus.files.standard_input import STANDARD_INPUT


def require_sources(names: Iterable[str], *, before: Collection[str]) -> None:
    """Raise NoSourceError for a name of this machine behind which there is nothing; nothing is fetched.

    `before`: the absolute paths of the sources then. Without them `corpus` might be the id of a data set.
    """
    for name in names:
        if name == STANDARD_INPUT or "://" in name or os.path.exists(name):
            continue
        if glob.has_magic(name):
            if not glob.glob(name, recursive=True):
                raise NoSourceError(f"no such source: {name} matches no file")
            continue
        path = os.path.abspath(name)
        if any(each == path or each.startswith(f"{path}{os.sep}") for each in before):
            raise NoSourceError(f"no such source: {name} was there before, and is gone")
        if kind_of(name) or not may_be_data_set(name):
            raise NoSourceError(f"no such source: {name} is neither a file, a folder nor a Hub id such as org/name")


def are_there(names: Iterable[str]) -> bool:
    """May all of these sources still be where they were? What is not on this machine may."""
    return all(
        os.path.exists(name) or not os.path.isabs(name) or bool(glob.glob(name, recursive=True)) for name in names
    )


def without_documents(use_rows: str) -> str:
    """How finished rows are used although their documents are gone or have changed, by that command."""
    return f"its rows are finished and can be used without the documents: {use_rows}"
