"""Sealed blocks -> how many rows each domain has. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ladm.corpus.preparation.assemble import BlockRows, kept_columns

MOST_NAMED = 100
"""Domains in the record of the rows: a corpus may have hundreds of thousands, such as its hosts."""


@dataclass(frozen=True, kw_only=True)
class DomainCounts:
    """The rows of each domain, on which quotas are planned."""

    number: int
    """How many domains there are."""
    largest: dict[str, int]
    """Rows by name, of at most `MOST_NAMED` domains, those with most rows first."""


def count_domains(blocks: Iterable[BlockRows], *, rows: int) -> DomainCounts:
    """The domains of the first `rows` kept rows."""
    found: Counter[str] = Counter()
    left = rows
    for block in blocks:
        (names,) = kept_columns(block, ["domain"], most=left)
        found.update(names)
        left -= len(names)
    # By name where they are equally large, so that the order does not depend on that of the documents.
    largest = sorted(found.items(), key=lambda each: (-each[1], each[0]))[:MOST_NAMED]
    return DomainCounts(number=len(found), largest=dict(largest))
