"""Files of `--join NAME=FILE` and rows -> the numbers of each row by its id, and how many have one. No torch.

Shape suffix: T rows of the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ladm.corpus.ids.files import hashes_of, reading_file_of_ids, require_ids, row_ids, rows_without_ids, shown_id
from ladm.corpus.ids.id_numbers import NOT_FOUND, IdValues, changed_meanwhile, read_id_values
from ladm.corpus.ids.value_readers import is_float32, number_columns, require_columns
from ladm.corpus.rows.reading import Rows
from ladm.errors import UsageError, count_of
from ladm.settings.joins import is_file

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class JoinedFileManifest:
    """A joined file as the manifest repeats it."""

    file: str
    xxh3_128: str
    """Of the bytes of the file."""
    ids: int
    """Different ids in it."""
    of_no_row: int
    """Those of them that no row has."""
    rows: int
    """Rows of all data sets."""
    with_value: dict[str, int]
    """Those of them that have a number, by column."""

    def text(self, name: str) -> str:
        """What was joined as `name`, in a line."""
        counts = [f"{count:,} have a value of {name}.{key}" for key, count in self.with_value.items()]
        of_no_row = f"; {self.of_no_row:,} {'is' if self.of_no_row == 1 else 'are'} of no row" if self.of_no_row else ""
        there = f"{count_of(self.ids, 'id')} in it{of_no_row}"
        return f"joined {name}={self.file}: of {count_of(self.rows, 'row')} {', '.join(counts)} ({there})"


class JoinedFile:
    """A file that is joined with the rows of one run, or of several that are ranked together."""

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        self.place = place
        self.option = f"--join {name}={place}"
        self._read: IdValues | None = None
        self._counts: dict[tuple[str, int], dict[str, int]] = {}
        """How many rows have a number in each column, by the name and the number of the rows."""
        self._example = ""

    def require(self, keys: Sequence[str]) -> None:
        """Raise UsageError for a column that it lacks, as far as that is known before it is read."""
        with reading_file_of_ids(self.place, option=self.option):
            require_columns(self.place, keys)

    def number_columns(self) -> list[str]:
        """The columns that its first rows have numbers in. Raises UsageError where it cannot be read."""
        with reading_file_of_ids(self.place, option=self.option):
            return number_columns(self.place)

    def float32(self, keys: Iterable[str]) -> list[str]:
        """Those of the columns that it stores in float32."""
        return [key for key in keys if is_float32(self.place, key)]

    def numbers(self, rows: Rows, keys: Sequence[str]) -> Iterator[tuple[str, Floats]]:
        """By column the number of each row: (T,), NaN where it has none.

        The file is read at the first call, and again for further columns. Memory: 8 bytes a row, and the file's ids.
        Raises as `read_id_values`, and LadmError for rows without ids.
        """
        values = self._values(keys)
        at_T = self._places(rows, values)
        counts = self._counts.setdefault((rows.name, len(rows)), {})
        for key in keys:
            values_T = np.where(at_T == NOT_FOUND, np.nan, values.values[key][at_T])
            counts[key] = int(np.count_nonzero(~np.isnan(values_T)))
            yield key, values_T

    def require_matches(self) -> None:
        """Raise UsageError where no row that was looked at has any of its ids."""
        if self._read is not None and not self._is_found_M.any():
            raise UsageError(
                f"{self.option}: no row has any of its {count_of(len(self._read), 'id')}; it has ids such as "
                f"{shown_id(self._read.example)}, the rows ids such as {shown_id(self._example)}; give the ids in the "
                f"column id as the rows have them"
            )

    def manifest(self) -> JoinedFileManifest | None:
        """What was joined; None where none of its columns was read."""
        if self._read is None:
            return None
        keys = dict.fromkeys(key for counts in self._counts.values() for key in counts)
        return JoinedFileManifest(
            file=self.place,
            xxh3_128=self._read.xxh3_128,
            ids=len(self._read),
            of_no_row=int(np.count_nonzero(~self._is_found_M)),
            rows=sum(count for _, count in self._counts),
            with_value={key: sum(counts.get(key, 0) for counts in self._counts.values()) for key in keys},
        )

    @cached_property
    def _is_found_M(self) -> npt.NDArray[np.bool_]:
        assert self._read is not None
        return np.zeros(len(self._read), dtype=np.bool_)

    def _values(self, keys: Sequence[str]) -> IdValues:
        if self._read is None or any(key not in self._read.values for key in keys):
            had = [] if self._read is None else list(self._read.values)
            digest = None if self._read is None else self._read.xxh3_128
            self._read = None
            found = read_id_values(self.place, list(dict.fromkeys([*had, *keys])), option=self.option)
            if digest not in (None, found.xxh3_128):
                raise changed_meanwhile(self.place)
            self._read = found
        return self._read

    def _places(self, rows: Rows, values: IdValues) -> npt.NDArray[np.int64]:
        require_ids(rows, self.option)
        at_T = np.empty(len(rows), dtype=np.int64)
        first, example = 0, None
        for ids in row_ids(rows):
            at_T[first : first + len(ids)] = values.places_of(hashes_of(ids))
            example = example or next(filter(None, ids), None)
            first += len(ids)
        if example is None:
            raise rows_without_ids(rows, self.option)
        self._example = self._example or example
        self._is_found_M[at_T[at_T != NOT_FOUND]] = True
        return at_T


def open_files(joins: Mapping[str, str]) -> dict[str, JoinedFile]:
    """Those of the joins that are files and no runs, by name; nothing is read yet."""
    return {name: JoinedFile(name, place) for name, place in joins.items() if is_file(place)}


def require_matches(files: Mapping[str, JoinedFile]) -> None:
    """Raise UsageError for a file of which no row has an id."""
    for file in files.values():
        file.require_matches()


def joined_files(files: Mapping[str, JoinedFile]) -> dict[str, JoinedFileManifest]:
    """What was joined from each file that was read, by name."""
    found = {name: file.manifest() for name, file in files.items()}
    return {name: each for name, each in found.items() if each is not None}


def joined_lines(files: Mapping[str, JoinedFile]) -> list[str]:
    """A line for each file that was read."""
    return [each.text(name) for name, each in joined_files(files).items()]
