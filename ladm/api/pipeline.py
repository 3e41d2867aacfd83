"""`ladm.run`, `prepare`, `score`, `select`, `verify` and `open_run`: the commands as functions. Imports no torch.

They write and resume the same files as the commands, take the flags as keyword arguments (`--span-tokens 64` is
`span_tokens=64`), print nothing by default, and raise `ladm.LadmError`. What a command prints after the word "warning"
is a Python warning, `ladm.LadmWarning`. Any thread may call them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladm.api.ids import split_id_lists
from ladm.api.keywords import AnyPath, parse_keywords, spell_config, spell_path
from ladm.api.quiet import echo_to, quiet_libraries, system_errors_in_words, warn
from ladm.api.results import FinishedJob
from ladm.api.scored_run import ScoredRun
from ladm.api.sources import split_sources
from ladm.api.subset import Subset
from ladm.errors import UsageError, count_of

if TYPE_CHECKING:
    from typing import Unpack

    from ladm.api.flags import PrepareFlags, RunFlags, ScoreFlags, SelectFlags
    from ladm.corpus.preparation.prepare import PreparedRows
    from ladm.progress import Echo
    from ladm.runs.verify import Problem


def prepare(
    sources: Any,
    *,
    tokenizer: AnyPath,
    output: AnyPath,
    config: AnyPath | None = None,
    progress: bool = False,
    **settings: Unpack[PrepareFlags],
) -> PreparedRows:
    """Turn documents into rows of token ids, as `ladm prepare` does; the same call resumes.

    `sources`: files, folders, globs, URLs of fsspec, or data sets, one or several. Or documents in memory:
    dictionaries in a list or an iterator, a table of Arrow, pandas or polars, a data set of the library `datasets`; the
    same documents resume. `settings`: the flags of the command; `config`: its YAML file. Files left out and repeated
    ids are LadmWarnings.
    Raises LadmError for a source, tokenizer or output that cannot be used, and for settings that cannot work.
    """
    from ladm.settings.config_file import load_settings
    from ladm.settings.data import PrepareSettings

    given = parse_keywords(PrepareSettings, "ladm.prepare", settings)
    names, in_memory = split_sources(sources)
    given |= {"sources": names, "output": spell_path(output, "output")}
    given |= {"tokenizer": spell_path(tokenizer, "tokenizer")}
    wanted = load_settings(PrepareSettings, spell_config(config), given)
    with quiet_libraries(in_memory):
        from ladm.corpus.preparation.prepare import prepare as run_prepare
        from ladm.corpus.preparation.report import repeated_ids_text
        from ladm.progress_bars import PreparingBar

        bar = PreparingBar() if progress else None
        prepared = run_prepare(wanted, echo=echo_to(progress=progress), progress=bar, in_memory=in_memory)
    repeated = prepared.repeated_ids
    if repeated is not None:
        # The command's report has it; here nobody would look before a join multiplies rows.
        warn(f"{count_of(repeated.documents, 'document')} {repeated_ids_text(repeated)}")
    return prepared


def score(
    rows: AnyPath,
    *,
    model: AnyPath,
    output: AnyPath,
    config: AnyPath | None = None,
    progress: bool = False,
    **settings: Unpack[ScoreFlags],
) -> ScoredRun:
    """Score rows into a run folder, as `ladm score` does; the same call resumes, and a finished run is only opened.

    `settings`: the flags of the command; `config`: its YAML file. With several GPUs or `workers`, processes are
    spawned: a script must then make the call under `if __name__ == "__main__":`.
    A run in which no row has a score is a LadmWarning; its `errors()` have the reasons. Raises LadmError for rows, a
    model or settings that cannot be used; rows that are durable by then stay.
    """
    from ladm.settings.config_file import score_settings
    from ladm.settings.score import ScoreSettings

    given = parse_keywords(ScoreSettings, "ladm.score", settings, without=("dry_run",))
    given |= {
        "rows": spell_path(rows, "rows"),
        "model": spell_path(model, "model"),
        "output": spell_path(output, "output"),
    }
    wanted = score_settings(spell_config(config), given)
    with quiet_libraries():
        from ladm.progress_bars import ScoringBar
        from ladm.scoring.score import score as run_score

        bar = ScoringBar() if progress else None
        result = run_score(wanted, echo=echo_to(progress=progress), progress=bar)
    if result.summary.scores is None:
        warn(f"no document has a score; {wanted.output}/errors.jsonl says why")
    return ScoredRun(Path(wanted.output))


def select(
    run: AnyPath | Sequence[AnyPath],
    *,
    output: AnyPath,
    rows: AnyPath | Sequence[AnyPath] | None = None,
    tokens: int | str | None = None,
    config: AnyPath | None = None,
    **settings: Unpack[SelectFlags],
) -> Subset:
    """Select the best documents of every domain for a budget, as `ladm select` does.

    `run`: a run, or several of one model and method. `rows`: those of the run, or of each of the runs; None: where the
    run found them. The budget is one of `tokens` (a number, or a text such as `"1B"` or `"50%"`), `documents`, `top`
    (`"20%"`) and `min_score`. `settings`: the flags of the command, such as `by="rank(gain) + rank(robust)"` or
    `within=["gzip_ratio:20%-80%"]`; `config`: its YAML file. `exclude_ids` and `only_ids` are files, or ids in a set or
    a column of Arrow, pandas or polars; a list of texts is a list of files.
    Raises LadmError for an unfinished run, for rows that are not the run's, and for a pool smaller than the budget.
    """
    from ladm.settings.config_file import load_settings
    from ladm.settings.selection import SelectSettings

    named, ids = split_id_lists(settings)
    given = parse_keywords(SelectSettings, "ladm.select", {**named, "tokens": tokens}, without=("runs",))
    given |= {"runs": _paths(run, what="run"), "output": spell_path(output, "output")}
    given |= {"rows": None if rows is None else _paths(rows, what="rows")}
    wanted = load_settings(SelectSettings, spell_config(config), given)
    with quiet_libraries():
        from ladm.selection.id_lists import read_id_lists
        from ladm.selection.subset import select as run_select

        folder = wanted.output if "://" in wanted.output else Path(wanted.output)
        echo = echo_to(progress=False)
        warn_about_a_bare_share(settings, wanted, echo)
        lists = read_id_lists(wanted, in_memory=ids) if ids else None
        return Subset(folder=folder, manifest=run_select(wanted, lists=lists, echo=echo))


def run(
    sources: AnyPath | Sequence[AnyPath],
    *,
    model: AnyPath,
    output: AnyPath,
    tokens: int | str | None = None,
    config: AnyPath | None = None,
    progress: bool = False,
    **settings: Unpack[RunFlags],
) -> FinishedJob:
    """Prepare, score, select and report in one, as `ladm run` does; the same call resumes.

    `sources`: what `prepare` takes, or a data set of token ids. The budget and `settings` are those of `prepare`,
    `score` and `select`, also lists of ids; `config`: the command's YAML file. Processes are spawned as by `score`.
    Raises LadmError for documents, a model or settings that cannot be used; what is finished by then stays.
    """
    places = {"model": spell_path(model, "model"), "output": spell_path(output, "output")}
    named, ids = split_id_lists(settings)
    wanted = settings_of_job("ladm.run", sources, config, {**named, "tokens": tokens}, places)
    with quiet_libraries():
        warn_about_a_bare_share(settings, wanted, echo_to(progress=progress))
        from ladm.pipeline.run import run as run_job
        from ladm.progress_bars import JobBars

        bars = JobBars(is_shown=progress)
        done = run_job(wanted, echo=echo_to(progress=progress), bars=bars, ids_in_memory=ids)
    return FinishedJob(
        folder=done.folder,
        rows=Path(done.rows),
        run=ScoredRun(Path(done.scores)),
        subset=Subset(folder=Path(done.subset), manifest=done.manifest),
        page=Path(done.page),
    )


def settings_of_job(
    call: str, sources: Any, config: AnyPath | None, settings: Mapping[str, Any], more: Mapping[str, Any]
) -> Any:
    """The settings of a job from the arguments of the function `call`; `more` are settings that need no check.

    Raises UsageError for sources in memory, and for settings that cannot work.
    """
    from ladm.settings.config_file import job_settings
    from ladm.settings.pipeline import RunSettings

    given = parse_keywords(RunSettings, call, settings, without=("dry_run",))
    names, in_memory = split_sources(sources)
    if in_memory:
        raise UsageError(
            "ladm.run reads its documents again when it resumes, so they cannot be in memory; make rows of them with "
            f"ladm.prepare, and pass those to {call}"
        )
    given |= {"sources": names, **more}
    return job_settings(RunSettings, spell_config(config), given)


def warn_about_a_bare_share(given: Mapping[str, Any], wanted: Any, echo: Echo) -> None:
    """Warn where `top=0.1` may have been meant as a tenth."""
    from ladm.settings.quantities import bare_share_warning

    if given.get("top") is not None and (line := bare_share_warning(str(given["top"]), wanted.top)) is not None:
        echo(line)


def _paths(given: Any, *, what: str) -> tuple[str, ...]:
    """One path or several, as the settings hold them. Raises UsageError where there is none."""
    # What is no collection is left to the check of a path, which refuses it.
    is_one = isinstance(given, (str, bytes, os.PathLike)) or not isinstance(given, Iterable)
    paths = tuple(spell_path(path, what) for path in ([given] if is_one else given))
    if not paths:
        raise UsageError(f"{what} is empty; give at least one")
    return paths


def open_run(folder: AnyPath) -> ScoredRun:
    """A run folder of `ladm score`, finished or not, or the folder of a job. Raises LadmError where it is neither."""
    from ladm.runs.folder import Run

    with system_errors_in_words():
        return ScoredRun(Run.open(spell_path(folder, "folder")).folder)


def verify(
    folder: AnyPath, *, deep: bool = False, rows: AnyPath | None = None, model: AnyPath | None = None
) -> list[Problem]:
    """What `ladm verify` finds wrong with rows, a run, a subset or a job: a list that is empty where nothing is.

    A problem is a `text`, and `is_damage` where a file is damaged or rows are missing. `deep`, of a run or a
    job: also look whether the rows and the model are still those that were scored, those at `rows` and `model` where
    they are given. Of an unfinished run, what exists so far is checked.
    Raises LadmError for a folder that is none of the four, has no checksums, or holds unfinished rows.
    """
    from ladm.settings.runs import VerifySettings

    keywords = {"deep": deep, "rows": rows, "model": model}
    given = parse_keywords(VerifySettings, "ladm.verify", keywords, without=("run",))
    wanted = VerifySettings(run=spell_path(folder, "folder"), **given)
    with quiet_libraries():
        from ladm.selection.verify import verify_folder

        return verify_folder(wanted.run, deep=wanted.deep, rows=wanted.rows, model=wanted.model).problems
