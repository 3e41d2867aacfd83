"""What the functions of `ladm` return: a run, a subset and a job on disk, and what can be done with a run.

Imports no torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ladm.api.keywords import AnyPath, parse_keywords, spell_path
from ladm.api.quiet import echo_to, quiet_libraries
from ladm.errors import LadmError, UsageError

if TYPE_CHECKING:
    from typing import Unpack

    import pyarrow as pa

    from ladm.api.flags import AnnotateFlags, InspectFlags, ReportFlags, RescoreFlags
    from ladm.runs.folder import Run
    from ladm.runs.identity import RunIdentity
    from ladm.runs.joined_columns import JoinedColumns
    from ladm.runs.records import ErrorRow
    from ladm.runs.results import Summary
    from ladm.selection.manifest import Manifest


@dataclass(frozen=True)
class ScoredRun:
    """A run folder, as `ladm.score` and `ladm.open_run` return it. It can be given to whatever takes a path.

    The folder is read at each call; every one raises LadmError where it holds no run any more, or a damaged one.
    """

    folder: Path

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def is_finished(self) -> bool:
        """Is every row accounted for, and are the results written?"""
        from ladm.runs.folder import Run

        return Run.read(self.folder).is_finished

    def identity(self) -> RunIdentity:
        """What the run was made with: method, layers, model, data, precision, versions."""
        from ladm.runs.folder import Run

        return Run.read(self.folder).identity

    def summary(self) -> Summary:
        """Rows scored, errors by type, and best, median and worst score. Raises LadmError for an unfinished run."""
        from ladm.runs.folder import Run
        from ladm.runs.results import summarise

        return summarise(Run.read(self.folder))

    def columns(self, *, rows: AnyPath | None = None, join: Mapping[str, AnyPath] | None = None) -> list[str]:
        """The columns that `scores` can read: those of `scores.parquet`, of added signals, and derived ones.

        Derived are named scores such as `robust`, `length` and others that `ladm select --by` knows. With `rows`,
        those that the run scored, also their columns of numbers, such as `rows.quality`; with `join`, such as
        `{"other": run2}`, those of other runs of the same rows, such as `other.score`.
        Raises LadmError for an unfinished run.
        """
        from ladm.runs.folder import Run
        from ladm.runs.results import columns_of

        found = _joined(Run.read(self.folder), rows, join)
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

        Columns of the rows are read from `rows`; None: from where the run found them. `join` is as in `columns`.
        Raises LadmError for an unfinished run, for a column that does not exist, and for rows or a run of other rows.
        """
        import pyarrow as pa

        from ladm.runs.folder import Run
        from ladm.runs.results import columns_of, read_scores, require_finished

        run = Run.read(self.folder)
        require_finished(run)
        stored = columns_of(self.folder)
        if columns is None:
            return read_scores(self.folder, stored)
        columns = _names(columns)
        other = [name for name in columns if name not in stored]
        if not other:
            return read_scores(self.folder, columns)
        # Both have the order of `scores.parquet`.
        with quiet_libraries() if any("." in name for name in other) else contextlib.nullcontext():
            computed = _joined(run, rows, join).read(other)[1]
        table = read_scores(self.folder, [name for name in columns if name in stored])
        return pa.table({name: computed[name] if name in other else table[name] for name in columns})

    def errors(self) -> list[ErrorRow]:
        """The rows without a score, each with the reason. Raises LadmError for an unfinished run."""
        from ladm.runs.folder import Run
        from ladm.runs.records import ErrorRow, record_from_json
        from ladm.runs.results import error_lines, require_finished

        require_finished(Run.read(self.folder))
        found = [record_from_json(line) for line in error_lines(self.folder)]
        return [record for record in found if isinstance(record, ErrorRow)]

    def rescore(self, *, output: AnyPath, **settings: Unpack[RescoreFlags]) -> ScoredRun:
        """Combine the stored layers into another score, as `ladm rescore` does, in the folder `output`; no model runs.

        `settings`: the flags of the command, such as `score="robust"`, `reduce="median"` or `layers="0-10"`.
        Raises LadmError for an unfinished run, and for a score that needs what the run did not store.
        """
        from ladm.settings.runs import RescoreSettings

        given = parse_keywords(RescoreSettings, "rescore", settings, without=("run", "output"))
        wanted = RescoreSettings(run=str(self.folder), output=spell_path(output, "output"), **given)
        with quiet_libraries():
            from ladm.scoring.rescore import rescore

            rescore(wanted, echo=echo_to(progress=False))
        return ScoredRun(Path(wanted.output))

    def annotate(self, *, progress: bool = False, **settings: Unpack[AnnotateFlags]) -> ScoredRun:
        """Add statistics of every row's text as columns, as `ladm annotate` does; the same call resumes.

        `settings`: the flags of the command. Raises LadmError for an unfinished run, and for rows that are not its.
        """
        from ladm.settings.runs import AnnotateSettings

        given = parse_keywords(AnnotateSettings, "annotate", settings, without=("run",))
        with quiet_libraries():
            from ladm.annotation.annotate import annotate
            from ladm.progress_bars import ScoringBar

            bar = ScoringBar("annotating") if progress else None
            annotate(AnnotateSettings(run=str(self.folder), **given), echo=echo_to(progress=progress), progress=bar)
        return self

    def inspect(self, *, progress: bool = False, **settings: Unpack[InspectFlags]) -> list[Path]:
        """Find out which pairs of spans some scores come from, as `ladm inspect` does; a file for each document.

        `settings`: the flags of the command, such as `top=3` or `index="4711"`. The page of `report` shows the result.
        Raises LadmError for an unfinished run, a document without a score, and rows or a model that are not the run's.
        """
        from ladm.settings.runs import InspectSettings

        given = parse_keywords(InspectSettings, "inspect", settings, without=("run",))
        files: list[Path] = []
        with quiet_libraries():
            from ladm.explain.inspect_run import inspect
            from ladm.progress import NoProgress
            from ladm.progress_bars import ScoringBar

            inspect(
                InspectSettings(run=str(self.folder), **given), echo=echo_to(progress=progress),
                on_document=lambda _, path: files.append(path),
                progress=ScoringBar("inspecting") if progress else NoProgress(),
            )  # fmt: skip
        return files

    def report(
        self, *, subset: AnyPath | None = None, output: AnyPath | None = None, **settings: Unpack[ReportFlags]
    ) -> Path:
        """Write the page for a browser, as `ladm report` does, by default `report.html` in the run's folder.

        `subset`: what `ladm.select` made of this run; the page marks its documents, and has its domains. Raises
        LadmError for an unfinished run, a subset of another run, and a file at `output` that is no such page.
        """
        from ladm.settings.runs import ReportSettings

        places = {"subset": subset, "output": output}
        given = parse_keywords(ReportSettings, "report", settings, without=("run", *places))
        given |= {name: spell_path(path, name) for name, path in places.items() if path is not None}
        if isinstance(subset, Subset):
            given = {"domain_key": subset.manifest.domain_key} | given
        with quiet_libraries():
            from ladm.report.page import write_report

            return write_report(ReportSettings(run=str(self.folder), **given), echo=echo_to(progress=False))


def _names(columns: Sequence[str]) -> list[str]:
    """The names of columns as a list. Raises UsageError for what is no name."""
    # A text is a sequence too, of its letters.
    names = [columns] if isinstance(columns, str) else list(columns) if isinstance(columns, Iterable) else [columns]
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"columns must be names such as ['position', 'score'], not {name!r}")
    return names


def _joined(run: Run, rows: AnyPath | None, join: Mapping[str, AnyPath] | None) -> JoinedColumns:
    """The columns of a run, of its rows and of joined runs."""
    from ladm.runs.joined_columns import JoinedColumns
    from ladm.settings.joins import parse_joins

    if not isinstance(join, Mapping | None):
        raise UsageError(f"join must be a dictionary of runs, such as {{'other': run2}}, not {join!r}")
    joins = parse_joins(f"{name}={spell_path(place, f'join[{name!r}]')}" for name, place in (join or {}).items())
    return JoinedColumns(run, rows=None if rows is None else spell_path(rows, "rows"), joins=joins)


@dataclass(frozen=True, kw_only=True)
class Subset:
    """What `ladm.select` wrote, or with `dry_run` would have written."""

    folder: Path | str
    """A text where the subset is at an address such as s3://bucket/subset, which is no path of this machine."""
    manifest: Manifest

    def __repr__(self) -> str:
        # The last line of a notebook's cell is shown, and the manifest would fill a screen.
        taken = f"taken_documents={self.manifest.taken_documents}, taken_tokens={self.manifest.taken_tokens}"
        return f"{type(self).__name__}(folder={str(self.folder)!r}, {taken})"

    def __fspath__(self) -> str:
        return str(self.folder)

    def ids(self) -> list[str | int]:
        """The `id` of each chosen row, in the order of the subset, run after run; its `index` where it has no id.

        Reads `manifest.json`, which has them. Raises LadmError after a dry run, and where the subset is at an address.
        """
        from ladm.selection.manifest_file import read_manifest_and_chosen

        if not isinstance(self.folder, Path):
            raise LadmError(f"{self.folder} is not a folder on this machine; its manifest.json has the ids")
        _, chosen = read_manifest_and_chosen(self.folder)
        return [name for part in chosen or () for name in part["ids"]]


@dataclass(frozen=True, kw_only=True)
class FinishedJob:
    """What `ladm.run` wrote."""

    folder: Path
    rows: Path
    """The rows that were scored: those that it made, or the source."""
    run: ScoredRun
    subset: Subset
    page: Path | None
    """None for scores without CDS, which the page is about."""
