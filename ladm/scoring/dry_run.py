"""Rows and a model -> what scoring them would take: at most three rows are timed, and nothing is written."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LadmError, RowError, count_of, hours_text, three_digits
from ladm.modeling.facts import ModelFacts, model_facts
from ladm.progress import Echo
from ladm.runs.lines import encode_line
from ladm.runs.records import ScoredRow
from ladm.scoring.engines.batch_sizes import BatchSizes
from ladm.scoring.engines.batches import CheckedRow, checked_row, start_batch
from ladm.scoring.identity import require_model_of_profile, require_same_settings
from ladm.scoring.plan import Plan
from ladm.scoring.row_checks import plan_for_rows, require_rows
from ladm.scoring.row_lengths import BadIds, RowLengths, find_bad_ids, refusal
from ladm.scoring.signal_choice import choose_signals
from ladm.settings.common import TEXT_COLUMN
from ladm.settings.score import ScoreSettings
from ladm.signals.scorer import SignalScorer
from ladm.signals.text_columns import TextColumns, count_unigrams

TIMED_ROWS = 3
SLOW_SECONDS = 10.0
"""A row that takes a CPU so long is timed once.

The first pass is hardly slower then, and four passes over 32,768 tokens may take an hour.
"""
MOST_TRIED = 64
"""Rows that are tried in search of one that can be scored."""
MORE_DEVICES = 8
"""Devices of the second estimate where this machine uses a single one."""
COUNTED_ROWS = 16
"""Rows of which tokens are counted, where a run would count those of thousands before it starts."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What scoring the rows would take."""

    rows_by_length: dict[int, int]
    """Rows by their number of tokens."""
    refused: dict[str, int]
    """Rows that will have no score, as far as their lengths and ids say, by the type of the error."""
    seconds_by_length: dict[int, float]
    """Seconds a row on one device, as timed."""
    seconds: float
    """All rows on one device."""
    devices: int
    """That this machine would use."""
    memory_bytes: int
    """The most that was in use on one device for the timed rows; on a CPU by this process, whatever else it holds."""
    result_bytes: int
    """Size of the run folder, about."""
    runs_model: bool = True
    """Does a signal run the model? Without one, processes of the CPU take the place of devices."""

    @property
    def hours(self) -> dict[int, float]:
        """Hours by the number of devices: one, and those of this machine, or 8 where it has one."""
        more = self.devices if self.devices > 1 else MORE_DEVICES
        return {count: self.seconds / count / 3600 for count in (1, more)}


def dry_run(settings: ScoreSettings, *, echo: Echo) -> DryRun:
    """Load the model, time up to three rows, and estimate the rest.

    Raises LadmError where no row can be scored, and for whatever `ladm score` would refuse before it starts.
    """
    require_rows(settings.rows, model=settings.model)
    rows = open_rows(settings.rows, limit=settings.limit)
    lengths = RowLengths(rows.lengths())
    choice = choose_signals(settings)
    passes = [choice.of_added(settings, name) for name in choice.added]
    if not choice.only_adds:
        passes.insert(0, choice.of_run(settings))
    if not passes:
        raise LadmError(f"{settings.output} has {settings.signals} already: nothing is left to score")
    facts = model_facts(settings.model, weights=choice.runs_model)
    bad = find_bad_ids(rows, lengths, vocab_size=facts.vocab_size)
    timed = [_time_pass(each, rows, facts, bad, echo=echo) for each in passes]
    first, devices = timed[0], timed[0].plan.hardware.devices
    return DryRun(
        rows_by_length=lengths.counts,
        refused=dict(bad.counts + bad.good_lengths.refusals(first.plan.settings, first.plan.facts)),
        seconds_by_length={n: sum(each.seconds_of(n) for each in timed) for n in first.seconds},
        seconds=sum(count * each.seconds_of(n) for each in timed for n, count in each.scored.items()),
        devices=len(devices),
        runs_model=choice.runs_model,
        memory_bytes=_peak_memory_bytes(devices[0]),
        # Every line is in a unit and again in sorted_by_score.jsonl; scores.parquet is smaller than either.
        result_bytes=int(sum(3 * each.line_bytes * sum(each.scored.values()) for each in timed)),
    )


@dataclass(frozen=True, kw_only=True)
class _TimedPass:
    """What the rows would take in one pass: that of the run, or of a signal that is added to it."""

    plan: Plan
    scored: dict[int, int]
    """The rows that will have a score, by length."""
    seconds: dict[int, float]
    """Seconds a row, by the lengths that were timed."""
    line_bytes: float
    """The mean length of a stored line."""

    def seconds_of(self, length: int) -> float:
        """Seconds of a row of that length; 0 where it will have no score."""
        typical = sorted(self.seconds)
        return float(np.interp(length, typical, [self.seconds[k] for k in typical])) if length in self.scored else 0.0


def _time_pass(settings: ScoreSettings, rows: Rows, facts: ModelFacts, bad: BadIds, *, echo: Echo) -> _TimedPass:
    plan, lines = plan_for_rows(settings, rows, facts, echo=echo)
    for line in lines:
        echo(line)
    if plan.text is not None:
        plan = replace(plan, text=_text_columns(plan.text, rows, facts))
    require_model_of_profile(plan)
    require_same_settings(plan)
    lengths = bad.good_lengths
    scored = {n: count for n, count in lengths.counts.items() if refusal(n, plan.settings, plan.facts) is None}
    if not scored:
        refused = bad.counts + lengths.refusals(plan.settings, plan.facts)
        reasons = ", ".join(f"{kind} {count:,}" for kind, count in sorted(refused.items()))
        raise LadmError(f"no row of {rows.name} can be scored: {reasons}")
    seconds, line_bytes = _time(plan, rows, plan.make_scorer()(plan.hardware.devices[0]), lengths, echo=echo)
    return _TimedPass(plan=plan, scored=scored, seconds=seconds, line_bytes=line_bytes)


def _text_columns(planned: TextColumns, rows: Rows, facts: ModelFacts) -> TextColumns:
    counts = planned.unigrams or count_unigrams(rows, vocab_size=facts.vocab_size, most_rows=COUNTED_ROWS)
    return TextColumns(unigrams=counts, has_text=TEXT_COLUMN in rows.column_names)


def _time(
    plan: Plan, rows: Rows, scorer: SignalScorer, lengths: RowLengths, *, echo: Echo
) -> tuple[dict[int, float], float]:
    """Seconds a row by length, of at most three rows; and the mean length of a stored line in bytes."""
    chosen = _timed_rows(rows, scorer, lengths)
    if not chosen:
        raise LadmError(f"none of {MOST_TRIED} rows of {rows.name} can be scored; run ladm score, which says why")
    # Long rows on a CPU take minutes, in which nothing else would be printed.
    of_tokens = ", ".join(f"{length:,}" for length in sorted({len(checked.ids) for checked, _ in chosen}))
    echo(f"timing    at most {count_of(len(chosen), 'row')} of {of_tokens} tokens")
    on_cuda = plan.hardware.devices[0].startswith("cuda")
    found: dict[int, list[float]] = {}
    line_bytes: list[int] = []
    # The first row twice: the first call compiles kernels and fills caches, which the rows after it do not pay for.
    for checked, text in [chosen[0], *chosen]:
        if not on_cuda and max(found.get(len(checked.ids), [0.0])) >= SLOW_SECONDS:
            continue
        start = time.perf_counter()
        checked_row(checked.row, scorer, text=text)
        reading = time.perf_counter() - start
        sizes = BatchSizes(plan.batch_rows())
        count = sizes(len(checked.ids))
        start = time.perf_counter()
        records = start_batch([checked] * count, scorer, sizes)()
        # A run computes the columns of the texts in a thread of their own, beside the passes.
        found.setdefault(len(checked.ids), []).append(max(reading, (time.perf_counter() - start) / count))
        line_bytes += [len(encode_line(record)) for record in records[:1] if isinstance(record, ScoredRow)]
    return {n: min(seconds) for n, seconds in found.items()}, float(np.mean(line_bytes or [0]))


def _timed_rows(rows: Rows, scorer: SignalScorer, lengths: RowLengths) -> list[tuple[CheckedRow, str | None]]:
    """A row of the least, one of the commonest and one of the greatest length that can be scored, with their texts."""
    has_text = TEXT_COLUMN in rows.column_names
    # Rows without tokens or with bad ids would stand in front, and there may be more of them than are tried.
    order = np.argsort(lengths.tokens, kind="stable")[np.count_nonzero(lengths.tokens == 0) :]
    usual = np.flatnonzero(lengths.tokens == lengths.common)
    chosen: dict[int, tuple[CheckedRow, str | None]] = {}
    for positions in (order, usual, order[::-1]):
        for position in positions[:MOST_TRIED].tolist():
            if position not in chosen:
                (row,) = rows.read(position, position + 1)
                text = rows.column(TEXT_COLUMN, position, position + 1)[0] if has_text else None
                text = text if isinstance(text, str) else None
                try:
                    chosen[position] = checked_row(row, scorer, text=text), text
                except RowError:
                    continue
                break
    return list(chosen.values())[:TIMED_ROWS]


def _peak_memory_bytes(device: str) -> int:
    """The most memory that was in use: of the device, or of this process where that is the CPU."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return peak if sys.platform == "darwin" else peak * 1024


def describe(found: DryRun) -> Iterator[str]:
    """The lines to print."""
    yield f"{'tokens':>15} {'rows':>12}"
    for lengths, count in _shown(found.rows_by_length):
        yield f"{lengths:>15} {count:>12,}"
    for kind, count in sorted(found.refused.items()):
        yield f"no score: {kind} {count:,}"
    for length, seconds in sorted(found.seconds_by_length.items()):
        yield f"a row of {length:,} tokens: {three_digits(seconds)} s"
    for count, hours in found.hours.items():
        where = (
            f"on {count_of(count, 'device')}" if found.runs_model else f"in {count_of(count, 'process', 'processes')}"
        )
        yield f"hours {where}: {hours_text(hours)}"
    yield f"memory: {found.memory_bytes / 2**30:.1f} GiB {'on a device' if found.runs_model else 'in a process'}"
    yield f"results: about {three_digits(found.result_bytes / 2**20)} MiB"


def _shown(by_length: dict[int, int]) -> Iterator[tuple[str, int]]:
    """Every length, or ten ranges of them where there are more."""
    if len(by_length) <= 10:
        yield from ((f"{length:,}", count) for length, count in sorted(by_length.items()))
        return
    lengths = sorted(by_length)
    for part in np.array_split(np.array(lengths), 10):
        yield f"{part[0]:,}-{part[-1]:,}", sum(by_length[length] for length in part.tolist())
