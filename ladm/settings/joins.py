"""`--join NAME=RUN2|FILE` and names such as `rows.quality` -> where a column is from, checked. Imports nothing heavy.

score                 a column of the run
rows.quality          a column of the rows that it scored; rows.meta.quality: a key inside one
other.robust          with --join other=RUN2, a column of another run of the same rows
edu.quality           with --join edu=scores.parquet, a column of a file, by the ids of its documents
"""

from __future__ import annotations

import keyword
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ladm.errors import UsageError
from ladm.settings.expressions import Expression, parse_expressions
from ladm.settings.fields import INPUT_AND_OUTPUT, Settings, setting

_READ_LOCALLY = "copy it to this machine and give the folder of the run, or the file"
_FILE_SUFFIXES = (".parquet", ".jsonl", ".json", ".ndjson", ".csv", ".gz", ".zst")
"""What the name of something that does not exist ends in, where it is no run."""
ROWS = "rows"
"""What a column of the rows themselves begins with."""


def join_setting(*, section: str = INPUT_AND_OUTPUT) -> Any:
    """Other runs of the same rows and files of values by id, whose columns a command can read."""
    return setting(
        (),
        "Another run of the same rows, or a file of numbers by document (.parquet, .jsonl or .csv, with a column id), "
        "whose columns are then NAME.COLUMN; may be repeated.",
        section=section,
        metavar="NAME=RUN2|FILE",
        mapping=True,
        not_an_address=_READ_LOCALLY,
    )


class JoinSettings(Settings):
    """Settings with the flag `join`."""

    join: tuple[str, ...]

    @property
    def joins(self) -> dict[str, str]:
        """The runs and files of `join` by name."""
        return parse_joins(self.join)


class ColumnSettings(JoinSettings):
    """Settings with the flags `columns` and `join`."""

    columns: str | None

    @property
    def expressions(self) -> list[Expression]:
        """What `columns` names, each once; nothing where it is not given."""
        return parse_expressions(self.columns)


def parse_joins(texts: Iterable[str]) -> dict[str, str]:
    """`("other=run2",)` -> `{"other": "run2"}`. Raises UsageError for anything else."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, place = text.partition("=")
        if not equals or not place or not name.isidentifier() or keyword.iskeyword(name):
            raise UsageError(
                f"--join {text!r} is not NAME=RUN2 or NAME=FILE, such as other=run2; NAME is a word of letters and _"
            )
        if name == ROWS:
            raise UsageError(f"--join {text}: {ROWS}.COLUMN is a column of the rows; give another NAME")
        if name in found:
            raise UsageError(f"--join gives {name} twice; give each a NAME of its own")
        found[name] = place
    return found


def is_file(place: str) -> bool:
    """Is it a file of values, and not the folder of a run? One that does not exist is judged by its name."""
    if os.path.exists(place):
        return not os.path.isdir(place)
    return place.lower().endswith(_FILE_SUFFIXES)


def split_name(name: str) -> tuple[str, str]:
    """`other.robust` -> `("other", "robust")`; `score`, a column of the run itself -> `("", "score")`."""
    of, dot, key = name.partition(".")
    return (of, key) if of and dot else ("", name)


def require_joined(names: Iterable[str], joins: Mapping[str, str]) -> None:
    """Raise UsageError for a column of something that is not joined, and for one that no column is of."""
    used = {of: name for name in names if (of := split_name(name)[0])}
    for of, name in used.items():
        if of != ROWS and of not in joins:
            raise UsageError(
                f"{name}: there is no {of}; a column of the rows is {ROWS}.NAME, such as {ROWS}.{name}, and one of "
                "another run or a file NAME.COLUMN, with --join NAME=RUN2 or --join NAME=FILE"
            )
    for of, place in joins.items():
        if of not in used:
            raise UsageError(f"--join {of}={place} has no effect without a column of it, {of}.COLUMN")
