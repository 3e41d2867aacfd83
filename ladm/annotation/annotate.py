"""A finished run and its rows -> `RUN/signals/text`: statistics of every row's text, as a run of its own. No torch.

The same as `ladm score --signals text` adds, for whoever has no model at hand: either command goes on with what the
other started. With another table of token counts they are computed again, also where the run was scored with them: its
own files stay, and `ladm.runs.columns.by_name` reads those here instead. Stopped at any moment the same command goes
on, and the result has the same bytes for any number of processes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ladm.cores import available_cores
from ladm.corpus.rows.fingerprint import absolute_name, rows_fingerprint, sample_digest
from ladm.corpus.rows.reading import Rows
from ladm.errors import UsageError
from ladm.progress import Echo, NoProgress, Progress
from ladm.runs.derived_identity import identity_of_text
from ladm.runs.folder import Run
from ladm.runs.growth import resume_or_grow
from ladm.runs.identity import RunIdentity
from ladm.runs.layout import IDENTITY_FILE, SIGNALS
from ladm.runs.reset import delete_run
from ladm.runs.results import require_finished, summarise
from ladm.runs.rows_of_run import open_rows_of
from ladm.runs.unigrams import digest_of_counts, read_given_counts
from ladm.runs.unsealed import adopt_shared
from ladm.scoring.engines.job import WorkerConfig
from ladm.scoring.result import ScoreResult
from ladm.scoring.scoring_pass import ScoringPass, processes_for_texts
from ladm.settings.common import TEXT_COLUMN
from ladm.settings.runs import AnnotateSettings
from ladm.settings.signals import TEXT
from ladm.signals.text_columns import TextColumns, count_unigrams, store_unigrams, unigrams_of_folder
from ladm.signals.text_scorer import TextScorerFactory
from ladm.signals.text_statistics import UnigramTable
from ladm.storage.interrupts import stop_on_signals
from ladm.storage.locks import locked

ROWS_AT_A_TIME = 1024
DURABLE_ROWS = 16
"""Rows that are made durable at once."""
MOST_IDS = 1 << 22
"""Larger ids cannot belong to a real vocabulary, and a table that covers them would not fit in memory."""


def annotate(settings: AnnotateSettings, *, echo: Echo, progress: Progress | None = None) -> ScoreResult:
    """Compute the statistics of every row of a finished run, or go on with them.

    A run that was scored with them is returned itself, unless other token counts are given, or were given before.
    Raises LadmError for an unfinished run, and for rows that are not the run's.
    """
    run = Run.open(settings.run)
    require_finished(run)
    folder = run.folder / SIGNALS / TEXT
    if _has_own(run, folder, settings.unigrams):
        if settings.rows is not None:
            open_rows_of(run, settings.rows)
        return ScoreResult(run=run, summary=summarise(run), already_finished=True)
    rows = open_rows_of(run, settings.rows)
    # The lock is that of the signal's own folder: another signal may be added to the same run meanwhile.
    with stop_on_signals(folder) as signals, locked(folder):
        columns = _text_columns(settings, rows, folder)
        identity = identity_of_text(run.identity, columns.how())
        if settings.unigrams is not None:
            _remove_of_other_table(folder, identity, echo)
        made = resume_or_grow(folder, identity, rows=rows, is_shared=False, echo=echo)
        store_unigrams(folder, columns)
        adopt_shared(made)
        already_finished = made.is_finished
        if not already_finished:
            processes = min(settings.num_proc or available_cores(), processes_for_texts(made))
            ScoringPass(
                run=made, rows=rows, worker=_worker(made, rows, columns), echo=echo, devices=("cpu",) * processes,
                progress=progress or NoProgress(), signals=signals,
            ).finish_run()  # fmt: skip
        return ScoreResult(run=made, summary=summarise(made), already_finished=already_finished)


def _has_own(run: Run, folder: Path, unigrams: str | None) -> bool:
    """Are the statistics that count, once the command is done, those that the run was scored with?

    `folder`: of those that are added. `unigrams`: the file of the table that is given; None: any.
    """
    # Those that are added stay in use, or are finished, until another table is given.
    if TEXT not in run.identity.signals or (folder / IDENTITY_FILE).is_file():
        return False
    own = run.identity.signals[TEXT].get("unigrams")
    return unigrams is None or digest_of_counts(read_given_counts(Path(unigrams))) == own


def _remove_of_other_table(folder: Path, wanted: RunIdentity, echo: Echo) -> None:
    """Remove added statistics that were made with another table than `wanted`; only for the holder of the lock."""
    if not (folder / IDENTITY_FILE).is_file():
        return
    had = Run.read(folder).identity.signals.get(TEXT, {}).get("unigrams")
    if had != wanted.signals[TEXT]["unigrams"]:
        echo(f"replacing the text statistics in {folder}, which were made with other token counts")
        delete_run(folder)


def _worker(run: Run, rows: Rows, columns: TextColumns) -> WorkerConfig:
    return WorkerConfig(
        folder=run.folder.absolute(),
        rows=absolute_name(rows.name),
        limit=len(rows),
        rows_sample=sample_digest(rows),
        data=rows_fingerprint(rows, name=absolute_name(rows.name)),
        make_scorer=TextScorerFactory(columns=columns, vocab_size=MOST_IDS),
        batch_rows=_batch_rows,
        threads=1,
    )


def _batch_rows(_num_tokens: int) -> int:
    return DURABLE_ROWS


def _text_columns(settings: AnnotateSettings, rows: Rows, folder: Path) -> TextColumns:
    """With the table of unigrams that is given, that of an earlier start, or one counted on the rows."""
    unigrams = unigrams_of_folder(folder) if settings.unigrams is None else _given(settings.unigrams, rows)
    return TextColumns(
        unigrams=unigrams or count_unigrams(rows, vocab_size=_vocab_size(rows)),
        has_text=TEXT_COLUMN in rows.column_names,
    )


def _given(path: str, rows: Rows) -> UnigramTable:
    """A table of any vocabulary that has every id of the rows."""
    counts, vocab_size = read_given_counts(Path(path)), _vocab_size(rows)
    if len(counts) < vocab_size:
        raise UsageError(
            f"--unigrams {path} has counts for {len(counts):,} token ids, but the rows have ids up to "
            f"{vocab_size - 1:,}; give counts made with their tokenizer"
        )
    return UnigramTable(counts)


def _vocab_size(rows: Rows) -> int:
    """One more than the highest id: a run does not know the vocabulary of its model, and the model may be gone."""
    # Known before any row is annotated, because the share of a rare token depends on the size of the vocabulary.
    highest = 0
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        for row in rows.read(start, min(start + ROWS_AT_A_TIME, len(rows))):
            if isinstance(row.raw_ids, np.ndarray) and len(row.raw_ids):
                highest = max(highest, int(row.raw_ids.max()))
    return min(highest + 1, MOST_IDS)
