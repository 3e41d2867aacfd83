"""`--exclude-ids`, `--only-ids` and rows -> which rows the lists of ids leave, and what each list did. No torch.

Shape suffixes: T rows of all data sets, N documents with a score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.corpus.ids.files import (
    IdFile,
    hashes_of,
    read_id_file,
    require_ids,
    row_ids,
    rows_without_ids,
    shown_id,
)
from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError, UsageError, count_of
from ladm.progress import Echo
from ladm.settings.fields import flag
from ladm.settings.id_lists import EXCLUDE_IDS, ONLY_IDS

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int16]
_NO_LIST = -1


@dataclass(frozen=True, kw_only=True)
class IdListManifest:
    """A list of ids as the manifest repeats it."""

    option: str
    """`exclude_ids` or `only_ids`."""
    file: str
    """Its name; `ids in memory` for ids that a Python program gave."""
    xxh3_128: str
    """Of the bytes of the file; of ids in memory, of their hashes."""
    ids: int
    """Different ids in it."""
    of_no_row: int
    """Those of them that no row has."""
    documents: int
    """Documents with a score that it excluded or, of `only_ids`, kept; each is counted for the first such list."""

    @property
    def text(self) -> str:
        """What it did, in a line."""
        verb = "dropped" if self.option == EXCLUDE_IDS else "kept"
        of_no_row = f"; {self.of_no_row:,} {'is' if self.of_no_row == 1 else 'are'} of no row" if self.of_no_row else ""
        there = f"of {count_of(self.ids, 'id')} in it{of_no_row}"
        return f"{verb} by {flag(self.option)} {self.file}: {self.documents:,} ({there})"


@dataclass(frozen=True, kw_only=True)
class IdList:
    """A file of ids and the option that it was given with."""

    option: str
    file: IdFile

    @property
    def name(self) -> str:
        """The option and the file, as the user wrote them."""
        return f"{flag(self.option)} {self.file.name}"


def read_id_lists(settings: Any, *, in_memory: Iterable[IdFile] = ()) -> list[IdList]:
    """The lists of `settings`, of a selection or a job. Raises as `read_id_file`.

    `in_memory`: ids that the program holds, which the settings have by their names.
    """
    held = {each.name: each for each in in_memory}
    return [
        IdList(option=option, file=held[name] if name in held else read_id_file(name, flag=flag(option)))
        for option in (EXCLUDE_IDS, ONLY_IDS)
        for name in getattr(settings, option)
    ]


@dataclass(frozen=True, kw_only=True)
class MatchedIds:
    """Which list has the id of each row."""

    lists: list[IdList]
    found: list[int]
    """How many ids of each list are of a row."""
    excluded_T: Numbers
    """The number of the first list of --exclude-ids with the row's id; _NO_LIST where none has it."""
    only_T: Numbers
    """The same for --only-ids."""
    without_id: int
    """Rows that have no id, so that no list can have it."""
    example: str
    """An id of the rows, for a message."""

    @property
    def included_T(self) -> Bools:
        """Which rows the lists leave."""
        included_T: Bools = self.excluded_T == _NO_LIST
        wanted_T = self.wanted_T
        return included_T if wanted_T is None else included_T & wanted_T

    @property
    def wanted_T(self) -> Bools | None:
        """Which rows a list of --only-ids has; None where there is none."""
        return self.only_T != _NO_LIST if self._has_only else None

    @property
    def names(self) -> str:
        """The lists, as the user wrote them."""
        return ", ".join(each.name for each in self.lists)

    @property
    def _has_only(self) -> bool:
        return any(each.option == ONLY_IDS for each in self.lists)

    def require_matches(self) -> None:
        """Raise UsageError for a list of --only-ids of which no row has an id."""
        for each, found in zip(self.lists, self.found, strict=True):
            if not found and each.option == ONLY_IDS:
                raise UsageError(self._no_match(each))

    def warnings(self) -> Iterator[str]:
        """A line for each list of --exclude-ids of which no row has an id, and for rows without an id."""
        for each, found in zip(self.lists, self.found, strict=True):
            if not found and each.option == EXCLUDE_IDS:
                yield self._no_match(each)
        if self.without_id:
            options = " and ".join(flag(option) for option in dict.fromkeys(each.option for each in self.lists))
            yield f"{count_of(self.without_id, 'row')} without an id, which no list of {options} can name"

    def _no_match(self, which: IdList) -> str:
        ids = count_of(len(which.file), "id")
        examples = f"it has ids such as {shown_id(which.file.example)}, the rows ids such as {shown_id(self.example)}"
        return f"{which.name}: no row has any of its {ids}; {examples}"

    def apply(self, rows_N: npt.NDArray[np.int64], kept_N: Bools) -> tuple[list[IdListManifest], int]:
        """Clear `kept_N` where a list drops a document; returns what each list did, and how many no --only-ids has.

        `rows_N`: the row of each document. Raises LadmError where no document is left.
        """
        excluded_N, only_N = self.excluded_T[rows_N], self.only_T[rows_N]
        counts = _counts(excluded_N[kept_N], len(self.lists))
        kept_N &= excluded_N == _NO_LIST
        counts += _counts(only_N[kept_N], len(self.lists))
        outside = 0
        if self._has_only:
            outside = int(np.count_nonzero(kept_N & (only_N == _NO_LIST)))
            kept_N &= only_N != _NO_LIST
        if not kept_N.any():
            raise LadmError(f"{self.names}: no document with a score is left")
        done = [
            IdListManifest(
                option=each.option, file=each.file.name, xxh3_128=each.file.xxh3_128, ids=len(each.file),
                of_no_row=len(each.file) - found, documents=int(count),
            )
            for each, found, count in zip(self.lists, self.found, counts, strict=True)
        ]  # fmt: skip
        return done, outside


def match_checked(lists: list[IdList], data: Sequence[Rows], *, echo: Echo) -> MatchedIds | None:
    """As `match_ids`, with warnings to `echo`. Raises UsageError for a list of --only-ids that has no id of a row."""
    ids = match_ids(lists, data)
    if ids is not None:
        ids.require_matches()
        for line in ids.warnings():
            echo(f"warning   {line}")
    return ids


def match_ids(lists: list[IdList], data: Sequence[Rows]) -> MatchedIds | None:
    """Look for the ids of all rows in the lists; None where there are no lists. Raises LadmError for rows without ids.

    In memory are the hashes of the lists and 4 bytes for each row.
    """
    if not lists:
        return None
    count = sum(map(len, data))
    numbers = {option: np.full(count, _NO_LIST, dtype=np.int16) for option in (EXCLUDE_IDS, ONLY_IDS)}
    is_found = [np.zeros(len(each.file), dtype=np.bool_) for each in lists]
    first, without_id, example = 0, 0, None
    for rows in data:
        own_example = None
        require_ids(rows, lists[0].name)
        for ids in row_ids(rows):
            hashes_B = hashes_of(ids)
            own_example = own_example or next(filter(None, ids), None)
            without_id += ids.count(None)
            part = slice(first, first + len(ids))
            for k, each in enumerate(lists):
                numbers_B = numbers[each.option][part]
                is_of_B = _look_up(each.file, hashes_B, is_found[k])
                numbers_B[is_of_B & (numbers_B == _NO_LIST)] = k
            first += len(ids)
        if own_example is None:
            raise rows_without_ids(rows, lists[0].name)
        example = example or own_example
    return MatchedIds(
        lists=lists, found=[int(np.count_nonzero(each)) for each in is_found], excluded_T=numbers[EXCLUDE_IDS],
        only_T=numbers[ONLY_IDS], without_id=without_id, example=str(example),
    )  # fmt: skip


def _counts(numbers: Numbers, count: int) -> npt.NDArray[np.int64]:
    return np.bincount(numbers[numbers != _NO_LIST], minlength=count)


def _look_up(file: IdFile, hashes_B: npt.NDArray[np.uint64], is_found_M: Bools) -> Bools:
    """Which of some hashes the file has; they are marked in `is_found_M`."""
    at_B = np.minimum(np.searchsorted(file.hashes_M, hashes_B), len(file) - 1)
    is_of_B: Bools = file.hashes_M[at_B] == hashes_B
    is_found_M[at_B[is_of_B]] = True
    return is_of_B
