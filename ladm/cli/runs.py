"""The commands that look at a run or add to it: status, verify, rescore, annotate, inspect, report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladm.cli.display import inspected_lines, inspected_summary, preparation_report, status_report
from ladm.cli.options import settings_command
from ladm.cli.scoring import print_summary, propose_selection
from ladm.cli.terminal import AS_JSON, configure_libraries, is_set, next_step, note, print_result, scoring_bar, show
from ladm.errors import IncompleteError, LadmError, StorageError, count_of
from ladm.settings.runs import (
    AnnotateSettings,
    InspectSettings,
    ReportSettings,
    RescoreSettings,
    StatusSettings,
    VerifySettings,
)
from ladm.settings.signals import CDS, COLUMNS_OF, TEXT

if TYPE_CHECKING:
    from ladm.explain.explainer import ScoredDocument


@settings_command(
    StatusSettings,
    short_help="The progress of a run",
    examples=("ladm status run", "ladm status run --json"),
)
def status(settings: StatusSettings) -> None:
    """Show the progress of RUN, also while it runs: units, rows, errors by type, rate, time left.

    Of the output of ladm prepare, and of a job of ladm run before it scores: documents and rows so far.
    """
    from ladm.runs import preparation
    from ladm.runs.folder import Run
    from ladm.runs.status import describe
    from ladm.runs.status import status as read_status

    rows = preparation.find_preparation(settings.run)
    if rows is not None:
        print_result(preparation_report(rows), lambda: preparation.describe(rows))
        if rows.finished and not is_set(AS_JSON):
            next_step("ladm", "score", rows.folder, "--model", "MODEL", "-o", "run")
        return
    found = read_status(Run.open(settings.run))
    print_result(status_report(found), lambda: describe(found))


@settings_command(
    VerifySettings,
    short_help="Check a run, a job, rows or a subset for damage",
    examples=("ladm verify run", "ladm verify run --deep --rows rows", "ladm verify subset", "ladm verify job"),
)
def verify(settings: VerifySettings) -> None:
    """Check RUN for damage: checksums, every row exactly once, results that agree with the units.

    RUN may also be the output of ladm prepare or ladm select, such as a copy on another machine, or the folder of ladm
    run, whose rows, scores and subset are all checked. Ends with 0 where all is sound, 74 where a file is damaged or
    rows are missing, 1 where a run is of other rows or of another model than it says, or where there are no checksums,
    and 3 where there is no damage so far and the folder is not finished.
    """
    configure_libraries()
    from ladm.selection.verify import RUN, verify_folder

    found = verify_folder(settings.run, deep=settings.deep, rows=settings.rows, model=settings.model)
    # All of them are printed, because one damaged file often explains the others.
    problems = [problem.text for problem in found.problems]
    sound = found.sound if found.finished else []
    content = {"kind": found.kind, "finished": found.finished, "problems": problems, "rows": found.rows}
    print_result(problems or sound, lambda: {"run" if found.kind == RUN else "folder": str(found.folder)} | content)
    if problems:
        kind = StorageError if any(problem.is_damage for problem in found.problems) else LadmError
        raise kind(f"{found.folder} is not sound: {count_of(len(problems), 'problem')}")
    if not found.finished:
        raise IncompleteError(
            f"{found.folder} shows no damage so far, but is not finished; rerun the command that started it"
        )


@settings_command(
    RescoreSettings,
    short_help="Another score from the recorded layers",
    examples=(
        "ladm rescore run --reduce median -o run-median",
        "ladm rescore run --profile profile.yaml -o run2",
        "ladm rescore run --so-far -o run-so-far",
    ),
)
def rescore(settings: RescoreSettings) -> None:
    """Compute another score for the documents of RUN from the layers that it stored; no model runs.

    With --so-far, look at a RUN that is not finished, also while it is scored: RUN2 has the rows so far, with the score
    of RUN, for ladm top, report, compare, select and inspect. RUN stays as it is. The same command later brings RUN2 up
    to date.
    """
    from ladm.scoring.rescore import rescore as run_rescore

    start = time.monotonic()
    result = run_rescore(settings, echo=note)
    done = "made" if settings.so_far else "rescored"
    print_summary(f"{done} in {time.monotonic() - start:.1f} s", result.summary, result.run)
    if settings.so_far:
        next_step("ladm", "top", settings.output)
    else:
        propose_selection(result.run)


@settings_command(
    AnnotateSettings,
    short_help="Statistics of the texts for a finished run",
    examples=("ladm annotate run", "ladm annotate run2 --unigrams run/unigrams.npy"),
)
def annotate(settings: AnnotateSettings) -> None:
    """Add statistics of every row's text to a finished RUN, on the CPU and without a model.

    Adds columns for ladm select, top and compare: gzip_ratio, far_rare, unigram_entropy, repeated_4grams,
    repeated_13grams, characters_per_token, digits. If stopped, the same command continues. With --unigrams they are
    computed again where RUN has them with other counts; they then count instead of those that RUN was scored with.
    """
    configure_libraries()
    from ladm.annotation.annotate import annotate as run_annotate
    from ladm.runs.columns.added_signals import stored_columns
    from ladm.runs.columns.by_name import SCORE, score_name
    from ladm.runs.folder import Run
    from ladm.runs.layout import UNIGRAMS_FILE

    start = time.monotonic()
    result = run_annotate(settings, echo=note, progress=scoring_bar("annotating"))
    seconds = time.monotonic() - start
    done = "has the text statistics already" if result.already_finished else f"annotated in {seconds:.1f} s"
    summary, folder = result.summary, str(result.run.folder)
    # A run that was scored with them has other columns too.
    columns = [name for name in stored_columns(result.run.folder) if name in COLUMNS_OF[TEXT]]
    table = str(result.run.folder / UNIGRAMS_FILE)
    run = Run.open(settings.run)
    is_replaced = TEXT in run.identity.signals and run.folder != result.run.folder
    instead = f", instead of {run.folder / UNIGRAMS_FILE}" if is_replaced else ""
    lacking = "a score" if CDS in result.run.identity.signals else "token ids"
    lines = [
        f"{done}: {count_of(summary.scored, 'row')}, {summary.failed:,} without {lacking}",
        f"columns: {', '.join(columns)}",
        f"token counts: {table}{instead}",
        f"results: {folder}",
    ]
    content = {"run": folder, "rows": summary.scored, "failed": summary.failed, "columns": columns, "unigrams": table}
    print_result(lines, lambda: content)
    # The score of a run of these statistics alone is the first of them.
    score = [] if score_name(run) in columns else [SCORE]
    next_step("ladm", "compare", settings.run, "--columns", ",".join([*score, "gzip_ratio", "far_rare"]))


@settings_command(
    InspectSettings,
    short_help="Where some documents' scores come from",
    examples=("ladm inspect run", "ladm inspect run --top 10 --bottom 10", "ladm inspect run --id 4711"),
)
def inspect(settings: InspectSettings) -> None:
    """Find out where the scores of some documents of RUN come from, for ladm report to show.

    Prints the three strongest pairs of spans of each: their share of the score, and how the two texts begin. Writes
    RUN/inspected/POSITION.json: what each pair adds to the score, and the texts of the strongest pairs. At most 100
    documents at once; documents that have such a file are not inspected again.
    """
    configure_libraries()
    from ladm.explain.inspect_run import inspect as run_inspect
    from ladm.explain.inspected_document import read_inspected

    files: list[str] = []
    documents: list[dict[str, Any]] = []

    def on_document(scored: ScoredDocument, path: Path) -> None:
        found = read_inspected(path)
        files.append(str(path))
        documents.append(inspected_summary(found, scored) | {"file": str(path)})
        # A document at a time, because each takes a while.
        if not is_set(AS_JSON):
            for line in [*inspected_lines(found, scored.name), str(path)]:
                show(line)

    run_inspect(settings, echo=note, on_document=on_document, progress=scoring_bar("inspecting"))
    print_result([], lambda: {"files": files, "documents": documents})
    next_step("ladm", "report", settings.run)


@settings_command(
    ReportSettings,
    short_help="An HTML page about a run",
    examples=(
        "ladm report run",
        "ladm report run --subset subset -o page.html",
        "ladm report run --by far_rare -o by-far-rare.html",
    ),
)
def report(settings: ReportSettings) -> None:
    """Write an HTML page about RUN: the distribution of its scores, the best documents, and why they score high.

    One file, which needs no network. Ranked by another column (--by), or of a run without CDS, it has the same without
    why.
    """
    from ladm.report.page import write_report

    page = write_report(settings, echo=note)
    print_result([f"page: {page}"], lambda: {"page": page})
