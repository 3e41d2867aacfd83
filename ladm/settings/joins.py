"""`--join NAME=RUN2` and names such as `rows.quality` -> where a column comes from, checked. Imports nothing heavy.

score                 a column of the run
rows.quality          a column of the rows that it scored; rows.meta.quality: a key inside one
other.robust          with --join other=RUN2, a column of another run of the same rows
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping
from typing import Any

from ladm.errors import UsageError
from ladm.settings.common import READ_LOCALLY
from ladm.settings.expressions import Expression, parse_expressions
from ladm.settings.fields import INPUT_AND_OUTPUT, Settings, setting

ROWS = "rows"
"""What a column of the rows themselves begins with."""


def join_setting(*, section: str = INPUT_AND_OUTPUT) -> Any:
    """Other runs of the same rows, whose columns a command can read."""
    return setting(
        (),
        "Another run of the same rows, whose columns are then NAME.COLUMN; may be repeated.",
        section=section,
        metavar="NAME=RUN2",
        not_an_address=READ_LOCALLY,
    )


class JoinSettings(Settings):
    """Settings with the flag `join`."""

    join: tuple[str, ...]

    @property
    def joins(self) -> dict[str, str]:
        """The runs of `join` by name."""
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
            raise UsageError(f"--join {text!r} is not NAME=RUN2, such as other=run2; NAME is a word of letters and _")
        if name == ROWS:
            raise UsageError(f"--join {text}: {ROWS}.COLUMN is a column of the rows; give the run another NAME")
        if name in found:
            raise UsageError(f"--join gives {name} twice; give each run a NAME of its own")
        found[name] = place
    return found


def split_name(name: str) -> tuple[str, str]:
    """`other.robust` -> `("other", "robust")`; `score`, a column of the run itself -> `("", "score")`."""
    of, dot, key = name.partition(".")
    return (of, key) if of and dot else ("", name)


def require_joined(names: Iterable[str], joins: Mapping[str, str]) -> None:
    """Raise UsageError for a column of something that is not joined, and for a run that no column is of."""
    used = {of: name for name in names if (of := split_name(name)[0])}
    for of, name in used.items():
        if of != ROWS and of not in joins:
            raise UsageError(
                f"{name}: there is no {of}; a column of the rows is {ROWS}.NAME, such as {ROWS}.{name}, and one of "
                "another run NAME.COLUMN, with --join NAME=RUN2"
            )
    for of, place in joins.items():
        if of not in used:
            raise UsageError(f"--join {of}={place} has no effect without a column of it, such as {of}.score")
