"""The text of `--max-per` -> how many rows with the same value in a column a selection may take. No NumPy.

rows.repo:3              a column of the rows, or a key inside one
host(rows.url):3         the host of the URLs in one
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ladm.errors import UsageError
from ladm.settings.fields import setting
from ladm.settings.joins import ROWS, split_name

HOST = "host"
"""The function that a column of URLs is limited by."""
_CAP = re.compile(r"(?P<column>.+):(?P<most>[1-9]\d{0,17})", re.DOTALL)
_CALL = re.compile(r"(?P<function>\w+)\s*\((?P<argument>.*)\)", re.DOTALL)
_SECOND_COLUMN = re.compile(rf",\s*{ROWS}\.")


@dataclass(frozen=True, kw_only=True)
class ValueCap:
    """At most `most` rows that share a value of a column, or with `of_host` the host of its URLs."""

    name: str
    """The column, with `rows.` in front."""
    most: int
    of_host: bool = False

    @property
    def key(self) -> str:
        """The column, or the key inside one, as the rows name it."""
        return split_name(self.name)[1]

    @property
    def column(self) -> str:
        """What is limited, as the flag takes it."""
        return f"{HOST}({self.name})" if self.of_host else self.name

    @property
    def text(self) -> str:
        """As the flag takes it."""
        return f"{self.column}:{self.most}"


def max_per_setting(*, section: str) -> Any:
    """Caps on the rows that share a value of a column."""
    return setting(
        (),
        "At most N rows that share a value of a column of the rows, such as a repository or an author, over all "
        "domains and RUNs: rows.repo:3. Of a column of URLs, at most N rows of each host: 'host(rows.url):3'. Rows "
        "without a value are not limited; may be repeated.",
        section=section,
        metavar="rows.COLUMN:N",
    )


def parse_caps(texts: Iterable[str]) -> list[ValueCap]:
    """The caps in their order. Raises UsageError for other texts, and for a column that has two."""
    found: dict[str, ValueCap] = {}
    for text in texts:
        cap = _parse_cap(text)
        if cap.column in found:
            raise UsageError(f"--max-per gives {cap.column} twice; give one number for each column")
        found[cap.column] = cap
    return list(found.values())


def _parse_cap(text: str) -> ValueCap:
    parts = _CAP.fullmatch(text.strip())
    if parts is None:
        raise UsageError(
            f"--max-per {text!r} is not rows.COLUMN:N, such as rows.repo:3 or {HOST}(rows.url):3; N is at least 1"
        )
    name, most = parts["column"].strip(), int(parts["most"])
    call = _CALL.fullmatch(name)
    if call is not None:
        return ValueCap(name=_column_of_urls(text, call), most=most, of_host=True)
    of, key = split_name(name)
    if of == ROWS and key:
        return ValueCap(name=name, most=most)
    meant = f"{ROWS}.repo" if of == ROWS else f"{ROWS}.{name}"
    # Of a call that lacks a parenthesis the text is no column either, and few corpora have the hosts in a column.
    meant = f"{HOST}({ROWS}.url)" if name == HOST or name.startswith(f"{HOST}(") else meant
    raise UsageError(
        f"--max-per {text}: {name} is no column of the rows, whose names begin with {ROWS}., as in {meant}:{most}"
    )


def _column_of_urls(text: str, call: re.Match[str]) -> str:
    """The column inside the parentheses. Raises UsageError for anything else in them, and for another function."""
    function, column = call["function"], call["argument"].strip()
    if function != HOST:
        raise UsageError(f"--max-per {text}: there is no function {function}; {HOST}({ROWS}.url) is the host of a URL")
    of, key = split_name(column)
    if of != ROWS or not key or _SECOND_COLUMN.search(column):
        # Nothing, two columns and another call name none that could be meant.
        meant = f"{ROWS}.url" if of == ROWS or not re.fullmatch(r"[\w.-]+", column) else f"{ROWS}.{column}"
        raise UsageError(
            f"--max-per {text}: {HOST}() takes one text column of the rows, whose names begin with {ROWS}., as in "
            f"{HOST}({meant})"
        )
    return column
