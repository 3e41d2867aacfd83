"""A finished run and another reduction -> a run folder with the scores that it gives. No forward pass, no torch.

A run reduces its scores from the float32 numbers that it stores, widened to float64. Rescoring reads the same float32
numbers, so that the run's own reduction gives its own scores to the last bit.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ladm.errors import StorageError, one_line
from ladm.method.reduction import Floats, Reduction, reduce_cds
from ladm.progress import Echo, silent
from ladm.runs.columns.added_signals import finished_signals
from ladm.runs.columns.profile_length import length_warning
from ladm.runs.columns.sink_layers import describe_layers
from ladm.runs.derived_identity import rescored_identity
from ladm.runs.folder import Run, require_own_or_empty
from ladm.runs.layout import ERRORS_FILE, PARQUET_FILE, SIGNALS, SORTED_FILE
from ladm.runs.reset import forget_earlier_rows, undone_on_error
from ladm.runs.results import (
    lists_as_matrix,
    open_scores,
    read_scores,
    require_any_score,
    require_digest,
    require_finished,
    score_batches,
    summarise,
)
from ladm.runs.sorting import LABELS, RESULT_FIELDS, Staging, sorting, staged_schema, write_sorted
from ladm.runs.unigrams import copy_counts
from ladm.scoring.requested_reduction import requested_reduction, stored_column
from ladm.scoring.result import ScoreResult
from ladm.scoring.so_far import keep_so_far
from ladm.settings.layers import AFTER_SINKS
from ladm.settings.profiles import read_profile
from ladm.settings.runs import RescoreSettings
from ladm.storage.files import io_errors, write_whole
from ladm.storage.locks import locked

ROWS_AT_A_TIME = 2_000
# The front of a result line up to its score. A `"score": ` inside `meta` cannot come first: `index` and `chunked_index`
# are numbers or strings, and a quotation mark in a JSON string is escaped.
_FRONT = re.compile(r'\{"rank": \d+, (.*?"score": )[^,]+', re.DOTALL)


def rescore(settings: RescoreSettings, *, echo: Echo = silent) -> ScoreResult:
    """Score the rows of `settings.run` again from their stored CDS, into the folder `settings.output`.

    `echo` is called with the layers that a word such as `after-sinks` or `robust` stands for, and with warnings.
    Raises UsageError for a layer that the run does not have, and LadmError when no row has a score, the run did not
    store what is needed, or a profile is for another model or method. With `settings.so_far` as `keep_so_far`.
    """
    if settings.so_far:
        return keep_so_far(settings, echo=echo)
    run, output = Run.open(settings.run), Path(settings.output)
    require_finished(run)
    require_any_score(run)
    require_own_or_empty(output)
    reduction, ablation = requested_reduction(settings, run)
    # Before the folder is made: a score that cannot be computed leaves nothing behind.
    column = stored_column(run, reduction, ablation)
    identity = rescored_identity(
        run.identity, reduction, ablation, source=str(run.folder), profile=settings.profile_path
    )
    with locked(output):
        forget_earlier_rows(output, identity)
        rescored = Run.create_or_resume(output, identity, remedy="give what it was started with, or another --output")
        already_finished = rescored.is_finished
        with undone_on_error(rescored), sorting(output) as staged:
            copy_counts(run, output)
            _stage(run, reduction, column, staged)
            write_whole(output / ERRORS_FILE, _errors_of(run.folder))
            write_sorted(output, staged)
        if settings.layers == AFTER_SINKS or settings.score is not None:
            echo(describe_layers(run, reduction.layers, after_sinks=settings.layers == AFTER_SINKS))
        _warn_about_length(settings, run, echo)
        _name_added_signals(run, rescored, echo)
        return ScoreResult(run=rescored, summary=summarise(rescored), already_finished=already_finished)


def _warn_about_length(settings: RescoreSettings, run: Run, echo: Echo) -> None:
    """Warn where the documents are not of the length at which the profile was calibrated."""
    if settings.profile_path is not None:
        tokens_N = read_scores(run.folder, ["num_tokens"])["num_tokens"].to_numpy()
        line = length_warning(read_profile(settings.profile_path), settings.profile_path, tokens_N)
        if line is not None:
            echo(f"warning   {line}")


def _name_added_signals(run: Run, rescored: Run, echo: Echo) -> None:
    """Name the signals that were added to the run and are not in the rescored one, and how to have them there."""
    own = {signal.folder.name for signal in finished_signals(rescored)}
    names = [
        signal.folder.name for signal in finished_signals(run)
        if signal.folder.name not in own and signal.identity.data == run.identity.data
    ]  # fmt: skip
    if names:
        # Of the same rows, so that nothing has to be computed again.
        place = rescored.folder / SIGNALS
        commands = [
            shlex.join(["mkdir", "-p", str(place)]),
            shlex.join(["cp", "-r", *(str(run.folder / SIGNALS / name) for name in names), str(place)]),
        ]
        lacking = f"{rescored.folder} lacks {', '.join(names)}, which {run.folder} has as added signals"
        echo(f"note      {lacking}; to copy them: {' && '.join(commands)}")
    again = [name for name in names if name in run.identity.signals]
    if again:
        echo(f"warning   {rescored.folder} has {', '.join(again)} as {run.folder} was scored, not as computed again")


def _stage(run: Run, reduction: Reduction, name: str, staged: Path) -> None:
    """The rows of the run with their new scores, ready to be sorted."""
    stored_layers = run.identity.layers
    stored, digest = open_scores(run.folder).schema_arrow, xxhash.xxh3_128()
    schema = staged_schema([(field.name, field.type) for field in stored if field.name not in RESULT_FIELDS])
    try:
        with Staging(staged, schema) as writer:
            lines = _lines(run, digest)
            for batch in score_batches(run.folder, stored.names, rows=ROWS_AT_A_TIME):
                cds_BL = lists_as_matrix(batch[name], run.folder)
                num_heads = None if reduction.heads is None else cds_BL.shape[1] // len(stored_layers)
                used = reduction.columns(stored_layers, num_heads=num_heads)
                scores_B = reduce_cds(cds_BL[:, used], reduction.how, reduction.weights)
                writer.write_table(pa.Table.from_batches([_staged_batch(batch, scores_B, lines, schema, run)]))
            if next(lines, None) is not None:
                raise StorageError(
                    f"{run.folder / SORTED_FILE} is damaged: it has more lines than {PARQUET_FILE} has rows"
                )
    except pa.ArrowException as error:
        raise StorageError(f"{run.folder / PARQUET_FILE} is damaged: {one_line(error)}") from None
    # The lines are copied without being decoded, so nothing else would notice one that was damaged.
    require_digest(run.folder, SORTED_FILE, digest.hexdigest())


def _lines(run: Run, digest: xxhash.xxh3_128) -> Iterator[str]:
    """The lines of the sorted file, each added to the digest first. Raises StorageError where they cannot be read."""
    path = run.folder / SORTED_FILE
    for line in _raw_lines(path, digest):
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise StorageError(f"{path} is damaged: a line is not UTF-8") from None


def _errors_of(folder: Path) -> Iterator[bytes]:
    """The lines of `errors.jsonl`. Raises StorageError after the last one where the file is damaged."""
    digest = xxhash.xxh3_128()
    yield from _raw_lines(folder / ERRORS_FILE, digest)
    require_digest(folder, ERRORS_FILE, digest.hexdigest())


def _raw_lines(path: Path, digest: xxhash.xxh3_128) -> Iterator[bytes]:
    with io_errors(path, "read"), path.open("rb") as file:
        for line in file:
            digest.update(line)
            yield line


def _staged_batch(
    batch: pa.RecordBatch, scores_B: Floats, lines: Iterator[str], schema: pa.Schema, run: Run
) -> pa.RecordBatch:
    """The rows of a batch with their new scores; `lines` are their lines of the sorted file."""
    if not np.isfinite(scores_B).all():
        raise StorageError(f"{run.folder / PARQUET_FILE} is damaged: a row's numbers do not make a score")
    texts = []
    # Only the rank and the score change. Editing the text is ten times as fast as decoding a line with hundreds of
    # numbers and encoding it again, and leaves everything else in it as it was, byte for byte.
    for score, line in zip(scores_B.tolist(), lines, strict=False):
        front = _FRONT.match(line)
        if front is None:
            raise StorageError(f"{run.folder / SORTED_FILE} is damaged: {line[:60]!r} is not a line of results")
        texts.append(f"{front[1]}{score!r}{line[front.end() : -1]}")
    if len(texts) != len(batch):
        raise StorageError(f"{run.folder / SORTED_FILE} is damaged: it has fewer lines than {PARQUET_FILE} has rows")
    made: dict[str, Any] = {"score": pa.array(scores_B), "line": pa.array(texts, pa.string())}
    for column, number, text in LABELS:
        values = batch[column]
        is_text = pa.types.is_string(values.type)
        nothing = pa.nulls(len(values), pa.int64() if is_text else pa.string())
        made[number], made[text] = (nothing, values) if is_text else (values, nothing)
    arrays = [made[name] if name in made else batch[name] for name in schema.names]
    return pa.RecordBatch.from_arrays([pc.cast(a, f.type) for a, f in zip(arrays, schema, strict=True)], schema=schema)
