"""Columns of a run by name, with those of its rows, of other runs of the same rows and of files. No torch.

score            a column of the run, as in `columns`
rows.quality     a column of the rows, or a key inside one
other.robust     a column of the run that is joined as `other`
edu.quality      a column of the file that is joined as `edu`, by the ids of the rows

Shape suffixes: N rows with a score in the order of the run, T rows of the data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from ladm.corpus.rows.number_columns import is_float32, number_names, read_numbers, require_column
from ladm.corpus.rows.reading import Rows
from ladm.corpus.rows.value_keys import read_value_keys, require_keys
from ladm.corpus.rows.values import Matches, match_rows, require_values
from ladm.errors import LadmError, UsageError, count_of
from ladm.runs.columns.added_signals import how_computed
from ladm.runs.columns.by_name import column_names, fill_columns, float32_columns, read_columns, require_known
from ladm.runs.columns.joined_files import JoinedFile, open_files, require_matches
from ladm.runs.folder import Run
from ladm.runs.results import count_scored, require_finished
from ladm.runs.rows_of_run import require_rows_of, rows_of_run
from ladm.settings.joins import ROWS, split_name
from ladm.settings.value_caps import ValueCap
from ladm.settings.value_guards import ValueGuard

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class JoinedColumns:
    """What can be ranked by: the columns of `run`, of its rows, and of the joined runs and files.

    `rows`: where the rows are; None: where the run found them. `joins`: folders of other runs and files, by name.
    `files`: the files among them, where other runs share them. Rows are opened only for a column of theirs or of a
    file.
    Raises LadmError for a joined run of other rows, or of fewer, and IncompleteError for one that is not finished.
    """

    def __init__(
        self,
        run: Run,
        *,
        rows: str | None = None,
        joins: Mapping[str, str] = MappingProxyType({}),
        files: Mapping[str, JoinedFile] | None = None,
    ) -> None:
        self.run = run
        self._place = rows
        self.files = open_files(joins) if files is None else files
        self.others = {name: _joined(name, place, run) for name, place in joins.items() if name not in self.files}
        self.digests: dict[str, str] = {}
        """XXH3-128 of the values for all rows, for each column that was read and is not the run's own."""

    @cached_property
    def _opened(self) -> Rows:
        return rows_of_run(self.run, self._place)

    @cached_property
    def rows(self) -> Rows:
        """The rows, all of which are read once. Raises LadmError for other rows than the run's."""
        require_rows_of(self.run, self._opened)
        return self._opened

    def names(self, *, with_rows: bool) -> tuple[list[str], list[str], list[str]]:
        """The names of columns of numbers: the run's; where wanted those of its rows; those that are joined."""
        of_rows = [f"{ROWS}.{key}" for key in number_names(self._opened)] if with_rows else []
        of_others = [f"{of}.{key}" for of, other in self.others.items() for key in column_names(other)]
        of_others += [f"{of}.{key}" for of, file in self.files.items() for key in file.number_columns()]
        return column_names(self.run), of_rows, of_others

    def require(self, names: Iterable[str]) -> None:
        """Raise UsageError for a name that is no column, with those there are, before any row is read."""
        by_place = _by_place(names)
        own = by_place.pop("", [])
        for key in by_place.pop(ROWS, []):
            require_column(self._opened, key)
        for of, keys in by_place.items():
            if of in self.files:
                self.files[of].require(keys)
            else:
                require_known(self._other(of, keys[0]), keys)
        known = column_names(self.run)
        for name in own:
            if name not in known and (found := self._in_rows(name)) is not None:
                raise UsageError(f"{self.run.folder} has no column {name}, and its rows do: {ROWS}.{found}")
        require_known(self.run, own)

    def read(self, names: Iterable[str], *, seed: int = 0) -> tuple[Ints, dict[str, Floats]]:
        """The position of every row with a score, and the named columns of these rows.

        Raises as `fill`, and UsageError for a file of which no row has an id.
        """
        count = count_scored(self.run.folder)
        arrays = {name: np.empty(count) for name in names}
        positions_N = np.empty(count, dtype=np.int64)
        self.fill(arrays, positions_N, seed=seed)
        require_matches(self.files)
        return positions_N, arrays

    def fill(self, arrays: Mapping[str, Floats], positions_N: Ints, *, seed: int = 0, first_row: int = 0) -> None:
        """Fill arrays by name, as `fill_columns` does; NaN where a row has no number. `first_row` is as there.

        Rows are joined with other runs by their positions in data that were found to be the same by their digest.
        Raises as `require`, and LadmError for rows that are not the run's and a column without any number.
        """
        self.require(arrays)
        by_place = _by_place(arrays)
        own = by_place.pop("", [])
        fill_columns(self.run, {name: arrays[name] for name in own}, positions_N, seed=seed, first_row=first_row)
        for of, keys in by_place.items():
            # One column of all rows at a time: 8 bytes a row.
            for key, values_T in self._read(of, keys, seed=seed):
                arrays[f"{of}.{key}"][:] = values_T[positions_N]
                self.digests[f"{of}.{key}"] = _digest(values_T)

    def _read(self, of: str, keys: Sequence[str], *, seed: int) -> Iterator[tuple[str, Floats]]:
        """Columns of the rows or of what is joined as `of`, each for all rows."""
        if of == ROWS:
            return _read_rows(self.rows, keys)
        if of in self.files:
            return self.files[of].numbers(self.rows, keys)
        return _read_run(self._other(of, keys[0]), keys, seed=seed)

    def require_values(self, guard: ValueGuard) -> None:
        """Raise UsageError where the rows have no column that the guard can be compared with, before any is read."""
        require_values(self._opened, guard)

    def match(self, guard: ValueGuard) -> Matches:
        """Which of all rows the guard keeps. Raises as `match_rows`, and LadmError for rows that are not the run's."""
        found = match_rows(self.rows, guard)
        self.digests[guard.column] = found.digest
        return found

    def require_keys(self, cap: ValueCap) -> None:
        """Raise UsageError where the rows have no column that can be limited so, before any is read."""
        require_keys(self._opened, cap.key, of_host=cap.of_host)

    def value_keys(self, cap: ValueCap) -> Ints:
        """A number for each row that rows with the same value share, as `read_value_keys`."""
        keys_T, digest = read_value_keys(self.rows, cap.key, of_host=cap.of_host)
        # A guard of the same column has digested the same values.
        self.digests.setdefault(f"{ROWS}.{cap.key}", digest)
        return keys_T

    def float32(self, names: Iterable[str]) -> set[str]:
        """Those of the named columns that are stored in float32, as `float32_columns`."""
        by_place = _by_place(names)
        found = float32_columns(self.run, by_place.pop("", []))
        found |= {f"{ROWS}.{key}" for key in by_place.pop(ROWS, []) if is_float32(self._opened, key)}
        for of, keys in by_place.items():
            if of in self.files:
                found |= {f"{of}.{key}" for key in self.files[of].float32(keys)}
                continue
            found |= {f"{of}.{key}" for key in float32_columns(self._other(of, keys[0]), keys)}
        return found

    def for_manifest(self, names: Iterable[str]) -> dict[str, Any]:
        """What the manifest of a subset repeats of each joined run, with the signals whose columns were used."""
        by_place = _by_place(names)
        return {
            of: other.identity.for_manifest()
            | {"signals": other.identity.signals | how_computed(other, by_place.get(of, []))}
            for of, other in self.others.items()
        }

    def _other(self, of: str, key: str) -> Run:
        if of not in self.others:
            raise UsageError(f"{of}.{key}: nothing is joined as {of}")
        return self.others[of]

    def _in_rows(self, name: str) -> str | None:
        """Where the rows have a column or a key of that name; None where they do not, or cannot be opened."""
        with contextlib.suppress(LadmError):
            known = [*self._opened.column_names, *number_names(self._opened)]
            return next((each for each in known if each == name or each.endswith(f".{name}")), None)
        return None


def _joined(name: str, place: str, run: Run) -> Run:
    """The run at `place`. Raises LadmError unless it scored the rows of `run`, all of them."""
    other = Run.open(place)
    require_finished(other)
    if other.identity.is_of_same_rows(run.identity):
        return other
    counts = f"{count_of(other.num_rows, 'row')}, and {run.folder} {run.num_rows:,}"
    what = f"other rows than {run.folder}" if other.num_rows == run.num_rows else counts
    raise LadmError(f"--join {name}={place}: {other.folder} scored {what}; only runs of the same rows can be joined")


def _by_place(names: Iterable[str]) -> dict[str, list[str]]:
    """The names by what they are columns of; the run's own are under an empty text."""
    found: dict[str, list[str]] = {}
    for name in names:
        of, key = split_name(name)
        found.setdefault(of, []).append(key)
    return found


def _read_rows(rows: Rows, keys: Iterable[str]) -> Iterator[tuple[str, Floats]]:
    for key in keys:
        yield key, read_numbers(rows, key)


def _read_run(run: Run, keys: Sequence[str], *, seed: int) -> Iterator[tuple[str, Floats]]:
    """Columns of a run in the order of the data, NaN where it has no score."""
    table = read_columns(run, keys, seed=seed)
    for key in keys:
        values_T = np.full(run.num_rows, np.nan)
        values_T[table["position"].to_numpy()] = table[key].to_numpy()
        yield key, values_T


def _digest(values_T: Floats) -> str:
    return xxhash.xxh3_128_hexdigest(values_T.astype("<f8").tobytes())
