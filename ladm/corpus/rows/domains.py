"""Rows and a key -> the domain of each row: a column, or a key inside one such as `meta.pile_set_name`.

Other labels, such as a row's package, are found in the same way. Imports no torch.
"""

from __future__ import annotations

from ladm.corpus.files.meta import look_up
from ladm.corpus.rows.reading import Rows
from ladm.settings.common import DOMAIN_COLUMN, DOMAIN_KEY, NO_DOMAINS


def has_column_of(rows: Rows, key: str) -> bool:
    """Is there a column in which `domains` looks for the key?"""
    names = rows.column_names
    return key.split(".")[0] in names or (key == DOMAIN_KEY and DOMAIN_COLUMN in names)


def without_domain_text(row: int, name: str, key: str) -> str:
    """What is wrong with a row of the data set `name` that has no domain, and what to do."""
    return (
        f"row {row} of {name} has no {key}; give another --domain-key, --domain a name for all rows without one, or "
        f"--domain-key {NO_DOMAINS} to rank all documents together"
    )


def domains(rows: Rows, key: str, start: int, stop: int, *, is_optional: bool = False) -> list[str | None]:
    """The domains of rows `start` to `stop - 1`; None where a row has none.

    With the default key, rows whose `meta` has no domain have that of their column `domain`, if there is one.
    Raises LadmError where there is no such column; with `is_optional` and the default key, no row has a domain then.
    """
    if is_optional and key == DOMAIN_KEY and not has_column_of(rows, key):
        return [None] * (stop - start)
    column, *path = key.split(".")
    names = rows.column_names
    has_own = key == DOMAIN_KEY and DOMAIN_COLUMN in names
    if has_own and column not in names:
        found: list[str | None] = [None] * (stop - start)
    else:
        found = [look_up(value, path) for value in rows.column(column, start, stop)]
    if has_own and None in found:
        own = rows.column(DOMAIN_COLUMN, start, stop)
        found = [look_up(own[k], []) if domain is None else domain for k, domain in enumerate(found)]
    return found


def all_domains(rows: Rows, key: str, *, is_optional: bool = False) -> list[str | None]:
    """The domain of every row. Raises as `domains`."""
    # One string for all rows of a domain, of which there may be a hundred million.
    known: dict[str | None, str | None] = {}
    return [
        known.setdefault(domain, domain)
        for start, stop in rows.batches()
        for domain in domains(rows, key, start, stop, is_optional=is_optional)
    ]
