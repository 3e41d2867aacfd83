"""The text of `--max-per` -> how many rows with the same value in a column a selection may take: `rows.host:3`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ladm.errors import UsageError
from ladm.settings.fields import setting
from ladm.settings.joins import ROWS, split_name

_CAP = re.compile(r"(?P<column>.+):(?P<most>[1-9]\d{0,17})", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ValueCap:
    """At most `most` rows that share a value of `column`."""

    column: str
    """With `rows.` in front."""
    most: int

    @property
    def key(self) -> str:
        """The column, or the key inside one, as the rows name it."""
        return split_name(self.column)[1]

    @property
    def text(self) -> str:
        """As the flag takes it."""
        return f"{self.column}:{self.most}"


def max_per_setting(*, section: str) -> Any:
    """Caps on the rows that share a value of a column."""
    return setting(
        (),
        "At most N rows that share a value of a column of the rows, such as a web host or a repository, over all "
        "domains and RUNs: rows.host:3. Rows without a value are not limited; may be repeated.",
        section=section,
        metavar="rows.COLUMN:N",
    )


def parse_caps(texts: Iterable[str]) -> list[ValueCap]:
    """The caps in their order. Raises UsageError for other texts, and for a column that has two."""
    found: dict[str, ValueCap] = {}
    for text in texts:
        parts = _CAP.fullmatch(text.strip())
        if parts is None:
            raise UsageError(f"--max-per {text!r} is not rows.COLUMN:N, such as rows.host:3; N is at least 1")
        column = parts["column"].strip()
        of, key = split_name(column)
        if of != ROWS or not key:
            meant = f"{ROWS}.{column}" if of != ROWS else f"{ROWS}.host"
            raise UsageError(
                f"--max-per {text}: {column} is no column of the rows, whose names begin with {ROWS}., as in "
                f"{meant}:{parts['most']}"
            )
        if column in found:
            raise UsageError(f"--max-per gives {column} twice; give one number for each column")
        found[column] = ValueCap(column=column, most=int(parts["most"]))
    return list(found.values())
