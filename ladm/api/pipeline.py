"""`ladm.prepare`, `ladm.score`, `ladm.select`, `ladm.open_run`: the commands as functions. Imports no torch.

They write and resume the same files as the commands, take the flags as keyword arguments (`--span-tokens 64` is
`span_tokens=64`), print nothing by default, and raise `ladm.LadmError`. Any thread may call them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladm.api.keywords import Path as AnyPath
from ladm.api.keywords import checked, spell_path
from ladm.api.quiet import echo_to, quiet_libraries

if TYPE_CHECKING:
    import pyarrow as pa

    from ladm.corpus.prepare import PreparedRows
    from ladm.runs.identity import RunIdentity
    from ladm.runs.records import ErrorRow
    from ladm.runs.results import Summary
    from ladm.selection.manifest import Manifest


@dataclass(frozen=True)
class ScoredRun:
    """A run folder. It can be given to `ladm.select`, or to whatever takes a path."""

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

    def scores(self, columns: Sequence[str] | None = None) -> pa.Table:
        """`scores.parquet` as a table, best first; all columns, or those named.

        Raises LadmError for an unfinished run, and for a column that it does not have.
        """
        from ladm.errors import LadmError
        from ladm.runs.folder import Run
        from ladm.runs.results import columns_of, read_scores, require_finished

        require_finished(Run.read(self.folder))
        present = columns_of(self.folder)
        for name in columns or ():
            if name not in present:
                raise LadmError(f"{self.folder} has no column {name} (it has {', '.join(present)})")
        return read_scores(self.folder, present if columns is None else list(columns))

    def errors(self) -> list[ErrorRow]:
        """The rows without a score, each with the reason. Raises LadmError for an unfinished run."""
        from ladm.runs.folder import Run
        from ladm.runs.records import ErrorRow, record_from_json
        from ladm.runs.results import error_lines, require_finished

        require_finished(Run.read(self.folder))
        found = [record_from_json(line) for line in error_lines(self.folder)]
        return [record for record in found if isinstance(record, ErrorRow)]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """What `ladm.select` wrote, or with `dry_run` would have written."""

    folder: Path | str
    """A text where the subset is at an address such as s3://bucket/subset, which is no path of this machine."""
    manifest: Manifest

    def __fspath__(self) -> str:
        return str(self.folder)


def prepare(
    sources: AnyPath | Sequence[AnyPath],
    *,
    tokenizer: AnyPath,
    output: AnyPath,
    progress: bool = False,
    **settings: Any,
) -> PreparedRows:
    """Turn documents into rows of token ids, as `ladm prepare` does; the same call resumes.

    `sources`: files, folders, globs, URLs of fsspec, or data sets. `settings`: the flags of the command.
    Raises LadmError for a source, tokenizer or output that cannot be used, and for settings that cannot work.
    """
    from ladm.settings.data import PrepareSettings

    given = checked(PrepareSettings, "ladm.prepare", settings)
    wanted = PrepareSettings(
        sources=_paths(sources, what="sources"), tokenizer=spell_path(tokenizer), output=spell_path(output), **given
    )
    with quiet_libraries():
        from ladm.corpus.prepare import prepare as run_prepare
        from ladm.progress_bars import PreparingBar

        bar = PreparingBar() if progress else None
        return run_prepare(wanted, echo=echo_to(progress=progress), progress=bar)


def score(
    rows: AnyPath,
    *,
    model: AnyPath,
    output: AnyPath,
    config: AnyPath | None = None,
    progress: bool = False,
    **settings: Any,
) -> ScoredRun:
    """Score rows into a run folder, as `ladm score` does; the same call resumes, and a finished run is only opened.

    `settings`: the flags of the command; `config`: its YAML file. With several GPUs or `workers`, processes are
    spawned: a script must then make the call under `if __name__ == "__main__":`.
    Raises LadmError for rows, a model or settings that cannot be used; rows that are durable by then stay.
    """
    from ladm.settings.config_file import score_settings
    from ladm.settings.score import ScoreSettings

    given = checked(ScoreSettings, "ladm.score", settings, without=("dry_run",))
    given |= {"rows": spell_path(rows), "model": spell_path(model), "output": spell_path(output)}
    wanted = score_settings(None if config is None else spell_path(config), given)
    with quiet_libraries():
        from ladm.progress_bars import ScoringBar
        from ladm.scoring.score import score as run_score

        bar = ScoringBar() if progress else None
        run_score(wanted, echo=echo_to(progress=progress), progress=bar)
    return ScoredRun(Path(wanted.output))


def select(
    run: AnyPath | Sequence[AnyPath],
    *,
    output: AnyPath,
    rows: AnyPath | Sequence[AnyPath] | None = None,
    tokens: int | str | None = None,
    **settings: Any,
) -> Subset:
    """Select the best documents of every domain for a budget, as `ladm select` does.

    `run`: a run, or several of one model and method. `rows`: those of the run, or of each of the runs; None: where the
    run found them. The budget is one of `tokens` (a number, or a text such as `"1B"` or `"50%"`), `documents`, `top`
    (`"20%"`) and `min_score`. `settings`: the flags of the command, such as `by="rank(gain) + rank(robust)"` or
    `within=["gzip_ratio:20%-80%"]`.
    Raises LadmError for an unfinished run, for rows that are not the run's, and for a pool smaller than the budget.
    """
    from ladm.settings.selection import SelectSettings

    given = checked(SelectSettings, "ladm.select", settings | {"tokens": tokens})
    wanted = SelectSettings(
        runs=_paths(run, what="runs"),
        rows=() if rows is None else _paths(rows, what="rows"),
        output=spell_path(output),
        **given,
    )
    with quiet_libraries():
        from ladm.selection.subset import select as run_select

        folder = wanted.output if "://" in wanted.output else Path(wanted.output)
        return Subset(folder=folder, manifest=run_select(wanted))


def _paths(given: AnyPath | Sequence[AnyPath], *, what: str) -> tuple[str, ...]:
    """One path or several, as the settings hold them. Raises UsageError where there is none."""
    paths = tuple(map(spell_path, [given] if isinstance(given, (str, os.PathLike)) else given))
    if not paths:
        from ladm.errors import UsageError

        raise UsageError(f"there are no {what}; give at least one")
    return paths


def open_run(folder: AnyPath) -> ScoredRun:
    """A run folder of `ladm score`, finished or not. Raises LadmError where there is none."""
    from ladm.runs.folder import Run

    place = Path(spell_path(folder))
    Run.read(place)
    return ScoredRun(place)
