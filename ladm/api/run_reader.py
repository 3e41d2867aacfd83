"""A run folder -> what it holds: identity, status, columns, scores and errors. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ladm.api.keywords import AnyPath, parse_keywords, spell_path
from ladm.api.quiet import quiet_libraries
from ladm.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from ladm.runs.columns.joined_columns import JoinedColumns
    from ladm.runs.folder import Run
    from ladm.runs.identity import RunIdentity
    from ladm.runs.records import ErrorRow
    from ladm.runs.results import Summary
    from ladm.runs.status import Status
    from ladm.runs.verify import Problem


@dataclass(frozen=True)
class RunReader:
    """What a run folder holds, read at each call; every one raises LadmError where it is no run, or a damaged one."""

    folder: Path

    def __fspath__(self) -> str:
        return str(self.folder)

    def _run(self) -> Run:
        from ladm.runs.folder import Run

        return Run.read(self.folder)

    @property
    def is_finished(self) -> bool:
        """Is every row accounted for, and are the results written?"""
        return self._run().is_finished

    def identity(self) -> RunIdentity:
        """What the run was made with: method, layers, model, data, precision, versions."""
        return self._run().identity

    def summary(self) -> Summary:
        """Rows scored, errors by type, and best, median and worst score. Raises LadmError for an unfinished run."""
        from ladm.runs.results import summarise

        return summarise(self._run())

    def status(self) -> Status:
        """How far the run is, as `ladm status` shows it, also while it runs: rows, errors by type, rate, time left."""
        from ladm.runs.status import status

        with quiet_libraries():
            return status(self._run())

    def verify(self, *, deep: bool = False, rows: AnyPath | None = None, model: AnyPath | None = None) -> list[Problem]:
        """What `ladm verify` finds wrong with the run, all of it: a list that is empty where nothing is.

        A problem is a `text`, and `is_damage` where a file is damaged or rows are missing. `deep`: also look whether
        rows and model are still those of the run, those at `rows` and `model` where they are given. Of an unfinished
        run, see `is_finished`, what exists is checked.
        Raises LadmError for a rescoring that was stopped.
        """
        from ladm.settings.runs import VerifySettings

        given = {"deep": deep, "rows": rows, "model": model}
        wanted = VerifySettings(
            run=str(self.folder), **parse_keywords(VerifySettings, "verify", given, without=("run",))
        )
        with quiet_libraries():
            from ladm.runs.verify import verify

            return list(verify(self._run(), deep=wanted.deep, rows=wanted.rows, model=wanted.model))

    def columns(self, *, rows: AnyPath | None = None, join: Mapping[str, AnyPath] | None = None) -> list[str]:
        """The columns that `scores` can read: those of `scores.parquet`, of added signals, and derived ones.

        Derived are named scores such as `robust`, `length` and others that `ladm select --by` knows. With `rows`,
        those that the run scored, also their columns of numbers, such as `rows.quality`; with `join`, such as
        `{"other": run2}`, those of other runs of the same rows, such as `other.score`; with `{"edu": "scores.csv"}`,
        those of a file of numbers by document.
        Raises LadmError for an unfinished run.
        """
        from ladm.runs.results import columns_of

        found = _joined(self._run(), rows, join)
        with contextlib.nullcontext() if rows is None else quiet_libraries():
            own, of_rows, of_others = found.names(with_rows=rows is not None)
        return list(dict.fromkeys([*own, *columns_of(self.folder), *of_rows, *of_others]))

    def scores(
        self,
        columns: Sequence[str] | None = None,
        *,
        rows: AnyPath | None = None,
        join: Mapping[str, AnyPath] | None = None,
    ) -> pa.Table:
        """A table of the rows with a score, best first: all of `scores.parquet`, or one or several of `columns()`.

        Columns of the rows, such as `rows.meta.url`, are read from `rows`; None: from where the run found them. One
        without numbers has texts. `join` is as in `columns`.
        Text statistics that `annotate` computed again count where they are named; without names those of the run.
        Raises LadmError for an unfinished run, for a column that does not exist, and for rows or a run of other rows.
        """
        import pyarrow as pa

        from ladm.runs.columns.added_signals import replaced_columns, signal_of
        from ladm.runs.columns.by_name import column_names
        from ladm.runs.columns.row_texts import read_numbers_and_texts
        from ladm.runs.results import columns_of, read_scores, require_finished
        from ladm.settings.fields import nearest

        run = self._run()
        require_finished(run)
        stored = columns_of(self.folder)
        if columns is None:
            return read_scores(self.folder, stored)
        columns = _names(columns)
        replaced = replaced_columns(run)
        other = [name for name in columns if name not in stored or name in replaced]
        if not other:
            return read_scores(self.folder, columns)
        known = [*column_names(run), *stored]
        for name in other:
            # Those of rows and of what is joined, which have a dot, are looked for there.
            # And those of a signal are refused there with the command that adds it.
            is_plain = "." not in name and name not in known and signal_of(name) is None
            if is_plain and (hint := nearest(name, known)):
                raise UsageError(f"{run.folder} has no column {name}{hint}")
        # Both have the order of `scores.parquet`.
        with quiet_libraries() if any("." in name for name in other) else contextlib.nullcontext():
            computed = read_numbers_and_texts(_joined(run, rows, join), other)
        table = read_scores(self.folder, [name for name in columns if name not in other])
        return pa.table({name: computed[name] if name in other else table[name] for name in columns})

    def errors(self) -> list[ErrorRow]:
        """The rows without a score, each with the reason. Raises LadmError for an unfinished run."""
        from ladm.runs.records import ErrorRow, record_from_json
        from ladm.runs.results import error_lines, require_finished

        require_finished(self._run())
        found = [record_from_json(line) for line in error_lines(self.folder)]
        return [record for record in found if isinstance(record, ErrorRow)]


def _names(columns: Sequence[str]) -> list[str]:
    """The names of columns as a list. Raises UsageError for what is no name."""
    # A text is a sequence too, of its letters.
    names = [columns] if isinstance(columns, str) else list(columns) if isinstance(columns, Iterable) else [columns]
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"columns must be names such as ['position', 'score'], not {name!r}")
    return names


def _joined(run: Run, rows: AnyPath | None, join: Mapping[str, AnyPath] | None) -> JoinedColumns:
    """The columns of a run, of its rows, and of joined runs and files."""
    from ladm.runs.columns.joined_columns import JoinedColumns
    from ladm.settings.joins import parse_joins

    if not isinstance(join, Mapping | None):
        raise UsageError(f"join must be a dictionary of runs and files, such as {{'other': run2}}, not {join!r}")
    joins = parse_joins(f"{name}={spell_path(place, f'join[{name!r}]')}" for name, place in (join or {}).items())
    return JoinedColumns(run, rows=None if rows is None else spell_path(rows, "rows"), joins=joins)
