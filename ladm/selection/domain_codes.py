"""Rows -> the domain of each, as a number. Imports no torch.

Shape suffix: T rows of all data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladm.corpus.rows.domains import domains, has_column_of
from ladm.corpus.rows.excluded_domains import require_domains_exist
from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError
from ladm.settings.common import DOMAIN_KEY, NO_DOMAINS, ONE_DOMAIN
from ladm.storage.disk_arrays import array_on_disk

NO_CODE = -1
"""The number of a row that has no domain."""


@dataclass(frozen=True, kw_only=True)
class DomainCodes:
    """The names of the domains, and for every row the number of its domain in that list, or NO_CODE."""

    names: list[str]
    codes_T: npt.NDArray[np.int32]
    has_own: bool
    """Does any row have a domain itself, rather than the one that was given for rows without one?"""

    def codes_of(self, excluded: Sequence[str], *, where: str) -> list[int]:
        """The numbers of these domains. `where`: the rows, for a message. Raises UsageError for one that no row has."""
        require_domains_exist(excluded, self.names, where=where)
        return [self.names.index(name) for name in excluded]


def read_domains(data: Sequence[Rows], *, domain_key: str, domain: str | None = None, work: Path) -> DomainCodes:
    """The domains of the rows of all data sets, one after the other; the numbers are a file in `work`.

    `domain`: that of rows without one; None: they get NO_CODE.

    Raises LadmError where a data set has no such column; with `domain` and the default key it needs none.
    """
    numbers: dict[str, int] = {}
    codes_T = array_on_disk(work / "domains", "i4", sum(map(len, data)))
    first, has_own = 0, False
    for rows in data:
        for start, stop in rows.batches():
            own = _domains(rows, domain_key, start, stop, is_optional=domain is not None)
            has_own |= any(d is not None for d in own)
            found = [domain if d is None else d for d in own]
            codes = [NO_CODE if d is None else numbers.setdefault(d, len(numbers)) for d in found]
            codes_T[first + start : first + stop] = codes
        first += len(rows)
    return DomainCodes(names=list(numbers), codes_T=codes_T, has_own=has_own)


def _domains(rows: Rows, domain_key: str, start: int, stop: int, *, is_optional: bool) -> list[str | None]:
    if domain_key == NO_DOMAINS:
        return [ONE_DOMAIN] * (stop - start)
    if not has_column_of(rows, domain_key) and not (is_optional and domain_key == DOMAIN_KEY):
        names = ", ".join(sorted(rows.column_names))
        raise LadmError(
            f"{rows.name} has no column {domain_key.split('.')[0]} (it has {names}); give --domain-key the key of a "
            f"domain, or {NO_DOMAINS} to rank all documents together"
        )
    return domains(rows, domain_key, start, stop, is_optional=is_optional)
