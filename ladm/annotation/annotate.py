"""A finished run and its rows -> `RUN/signals/text`: statistics of every row's text, as a run of its own. No torch.

The store and the engine are those of a score: stopped at any moment the same command goes on, and the result has the
same bytes for any number of processes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ladm.annotation.statistics_scorer import MakeStatisticsScorer, rows_in_batch
from ladm.corpus.rows import Rows
from ladm.errors import LadmError, UsageError
from ladm.progress import Echo, NoProgress, Progress
from ladm.runs.finish import finish
from ladm.runs.folder import Run, unit_rows_for
from ladm.runs.growth import resume_or_grow
from ladm.runs.heartbeat import Heartbeat
from ladm.runs.identity import FORMAT, RunIdentity
from ladm.runs.layout import SIGNALS, UNIGRAMS_FILE
from ladm.runs.records import Record
from ladm.runs.results import require_finished, summarise
from ladm.scoring.engines.assignments import OwnUnits
from ladm.scoring.engines.job import ScoreJob, WorkerConfig
from ladm.scoring.engines.local import run_units
from ladm.scoring.identity import absolute_name
from ladm.scoring.result import ScoreResult
from ladm.selection.sources import open_rows_of
from ladm.settings.comparison import AnnotateSettings
from ladm.settings.signals import TEXT
from ladm.signals import text_columns
from ladm.signals.text_columns import TextColumns, count_unigrams, read_unigrams
from ladm.signals.text_statistics import UnigramTable
from ladm.storage.files import write_whole
from ladm.storage.interrupts import StopSignal, stop_on_signals
from ladm.storage.locks import locked

ROWS_AT_A_TIME = 1024
MOST_IDS = 1 << 22
"""Ids above are no vocabulary's, and a table for them would fill the memory."""


def annotate(settings: AnnotateSettings, *, echo: Echo, progress: Progress | None = None) -> ScoreResult:
    """Compute the statistics of every row of a finished run, or go on with them.

    Raises LadmError for an unfinished run, one that has the statistics already, and rows that are not the run's.
    """
    run = Run.read(Path(settings.run))
    require_finished(run)
    if TEXT in run.identity.signals:
        raise LadmError(f"{run.folder} was scored with --signals text: its scores.parquet has these columns already")
    rows = open_rows_of(run, settings.rows)
    folder = run.folder / SIGNALS / TEXT
    # The lock is that of the signal's own folder: another signal may be added to the same run meanwhile.
    with stop_on_signals(folder) as signals, locked(folder):
        vocab_size = _vocab_size(rows)
        columns = _text_columns(settings, rows, folder, vocab_size=vocab_size)
        identity = _identity(run, rows, columns)
        made = resume_or_grow(folder, identity, first_rows=rows.identity_of_first, is_shared=False, echo=echo)
        if columns.unigrams is not None and not (folder / UNIGRAMS_FILE).exists():
            write_whole(folder / UNIGRAMS_FILE, [columns.unigrams.file_content()])
        already_finished = made.is_finished
        if not already_finished:
            make_scorer = MakeStatisticsScorer(columns=columns, vocab_size=vocab_size)
            count = settings.num_proc or len(os.sched_getaffinity(0))
            _compute(made, rows, make_scorer, count, echo=echo, progress=progress or NoProgress(), signals=signals)
            finish(made)
        return ScoreResult(run=made, summary=summarise(made), already_finished=already_finished)


def _vocab_size(rows: Rows) -> int:
    """One more than the highest id: a run does not know the vocabulary of its model, and the model may be gone."""
    # Known before any row is annotated, because the share of a rare token depends on the size of the vocabulary.
    highest = 0
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        for row in rows.read(start, min(start + ROWS_AT_A_TIME, len(rows))):
            if isinstance(row.raw_ids, np.ndarray) and len(row.raw_ids):
                highest = max(highest, int(row.raw_ids.max()))
    return min(highest + 1, MOST_IDS)


def _text_columns(settings: AnnotateSettings, rows: Rows, folder: Path, *, vocab_size: int) -> TextColumns:
    """The table of unigrams that is given, that of an earlier start, or one counted on the rows."""
    given, own = settings.unigrams, folder / UNIGRAMS_FILE
    if given is not None:
        unigrams = _read_given(given, vocab_size=vocab_size)
    elif own.exists():
        # That of the rows when the work was started: with more rows it must not change what is there.
        unigrams = _read_given(str(own), vocab_size=0)
    else:
        unigrams = count_unigrams(rows, vocab_size=vocab_size)
    return TextColumns(unigrams=unigrams, has_text=text_columns.TEXT in rows.column_names)


def _read_given(path: str, *, vocab_size: int) -> UnigramTable:
    """A table of any vocabulary that has every id of the rows."""
    try:
        size = len(np.load(Path(path), allow_pickle=False, mmap_mode="r"))
    except (OSError, ValueError, EOFError, TypeError):
        size = vocab_size
    if size < vocab_size:
        raise UsageError(f"--unigrams {path} counts {size:,} tokens, and the rows have ids up to {vocab_size - 1:,}")
    return read_unigrams(path, vocab_size=size)


def _identity(run: Run, rows: Rows, columns: TextColumns) -> RunIdentity:
    """What the statistics are made of; all but `about` must be the same when they are gone on with."""
    unigrams = "none" if columns.unigrams is None else columns.unigrams.digest()
    content: dict[str, Any] = {
        "format": FORMAT,
        "settings": {"method": TEXT},
        "layers": [],
        "score": {},
        "signals": {TEXT: {"unigrams": unigrams, "of": "text" if columns.has_text else "ids"}},
        # Those of the run, for whoever asks which rows of which model these are; no statistic depends on a package.
        "model": run.identity.content.get("model", {}),
        "tokenizer": run.identity.content.get("tokenizer", {}),
        "versions": {},
        "data": run.identity.data,
        "dtype": "float32",
        "backend": {"device": "cpu", "attention": "none", "focus": "none"},
        "unit_rows": unit_rows_for(len(rows)),
        "about": {"rows": absolute_name(rows.name), "model": run.identity.about.get("model", "")},
    }
    return RunIdentity(content)


def _compute(
    run: Run,
    rows: Rows,
    make_scorer: MakeStatisticsScorer,
    processes: int,
    *,
    echo: Echo,
    progress: Progress,
    signals: list[int],
) -> None:
    """Seal every unit that is not sealed yet."""
    heartbeat = Heartbeat(run.folder, shard=0)
    missing = sum(unit.stop - unit.start for unit in run.unsealed())
    progress.start(total=len(rows), done=len(rows) - missing)

    def report(records: list[Record]) -> None:
        if signals:
            raise StopSignal(signals[0])
        heartbeat.advance(len(records))
        progress.advance(rows=len(records), tokens=sum(record.num_tokens or 0 for record in records))

    # The engine of a score: it hands out units, replaces workers that die, and finds a row that takes them with it.
    worker = WorkerConfig(
        folder=run.folder.absolute(),
        rows=absolute_name(rows.name),
        limit=len(rows),
        rows_sample=rows.sample(),
        make_scorer=make_scorer,
        batch_rows=rows_in_batch,
        threads=1,
    )
    # A process for a handful of rows would take longer to start than the rows.
    devices = ("cpu",) * max(1, min(processes, len(run.unsealed())))
    try:
        run_units(
            ScoreJob(run=run, rows=rows, source=OwnUnits(run), worker=worker, devices=devices, report=report, warn=echo)
        )
    except BaseException:
        run.forget_if_empty()
        raise
    finally:
        heartbeat.close()
        progress.close()
