"""Rows and a model -> what scoring them would take: three rows are timed, and nothing is written."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ladm.corpus.rows import Rows, open_rows
from ladm.errors import LadmError, RowError
from ladm.modeling.facts import model_facts
from ladm.progress import Echo
from ladm.runs.lines import encode_line
from ladm.runs.records import ScoredRow
from ladm.scoring.engines.batches import BatchSizes, CheckedRow, checked_row, start_batch
from ladm.scoring.plan import Plan
from ladm.scoring.row_checks import RowLengths, plan_for_rows, require_rows
from ladm.settings.score import ScoreSettings
from ladm.signals.scorer import Scorer

TIMED_ROWS = 3
MOST_TRIED = 64
"""Rows that are looked at in search of those that can be scored."""
DEVICES_BEYOND_ONE = 8
"""Devices of the second estimate where this machine uses a single one."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What scoring the rows would take."""

    rows_by_length: dict[int, int]
    refused: dict[str, int]
    """Rows that will have no score, as far as their lengths say, by the type of the error."""
    seconds_by_length: dict[int, float]
    """Seconds a row on one device, as timed."""
    seconds: float
    """All rows on one device."""
    devices: int
    """Of the second estimate: those of this machine, or 8."""
    memory_bytes: int
    result_bytes: int

    @property
    def hours(self) -> dict[int, float]:
        """Hours by the number of devices."""
        return {count: self.seconds / count / 3600 for count in sorted({1, self.devices})}


def dry_run(settings: ScoreSettings, *, echo: Echo) -> DryRun:
    """Load the model, time three rows, and estimate the rest.

    Raises LadmError where no row can be scored, and for whatever `ladm score` would refuse before it starts.
    """
    require_rows(settings.rows, model=settings.model)
    rows = open_rows(settings.rows, limit=settings.limit)
    plan, lines = plan_for_rows(settings, rows, model_facts(settings.model))
    for line in lines:
        echo(line)
    lengths = RowLengths(rows.lengths())
    refused = lengths.refusals(plan.settings.method, plan.facts)
    scored = {n: count for n, count in lengths.counts.items() if not _is_refused(plan, n)}
    empty = len(rows) - sum(lengths.counts.values())
    device = plan.hardware.devices[0]
    scorer = plan.make_scorer()(device)
    timed, line_bytes = _time(plan, rows, scorer, lengths)
    typical = sorted(timed)
    seconds = sum(count * float(np.interp(n, typical, [timed[k] for k in typical])) for n, count in scored.items())
    return DryRun(
        rows_by_length=lengths.counts,
        refused=dict(refused + Counter(empty=empty)),
        seconds_by_length=timed,
        seconds=seconds,
        devices=len(plan.hardware.devices) if len(plan.hardware.devices) > 1 else DEVICES_BEYOND_ONE,
        memory_bytes=_peak_memory_bytes(device),
        # Every line is in a unit and again in sorted_by_score.jsonl; scores.parquet is smaller than either.
        result_bytes=int(3 * line_bytes * sum(scored.values())),
    )


def _is_refused(plan: Plan, length: int) -> bool:
    limit = plan.facts.max_tokens
    return (limit is not None and length > limit) or not plan.settings.method.grid(length).J


def _time(plan: Plan, rows: Rows, scorer: Scorer, lengths: RowLengths) -> tuple[dict[int, float], float]:
    """Seconds a row by length, of three rows; and the mean length of a stored line in bytes."""
    chosen = _timed_rows(rows, scorer, lengths)
    if not chosen:
        raise LadmError(f"none of {MOST_TRIED} rows of {rows.name} can be scored; run ladm score, which says why")
    # The first call compiles kernels and fills caches, which the rows after it do not pay for.
    start_batch([chosen[0]], scorer, BatchSizes(lambda _tokens: 1))()
    found: dict[int, list[float]] = {}
    line_bytes: list[int] = []
    for checked in chosen:
        sizes = BatchSizes(plan.batch_rows())
        count = sizes(len(checked.ids))
        start = time.perf_counter()
        records = start_batch([checked] * count, scorer, sizes)()
        found.setdefault(len(checked.ids), []).append((time.perf_counter() - start) / count)
        line_bytes += [len(encode_line(record)) for record in records[:1] if isinstance(record, ScoredRow)]
    return {n: min(seconds) for n, seconds in found.items()}, float(np.mean(line_bytes or [0]))


def _timed_rows(rows: Rows, scorer: Scorer, lengths: RowLengths) -> list[CheckedRow]:
    """A row of the least, of the commonest and of the greatest length that can be scored."""
    order = np.argsort(lengths.tokens, kind="stable")
    usual = np.flatnonzero(lengths.tokens == lengths.common)
    chosen: dict[int, CheckedRow] = {}
    for positions in (order, usual, order[::-1]):
        for position in positions[:MOST_TRIED].tolist():
            if position not in chosen:
                (row,) = rows.read(position, position + 1)
                try:
                    chosen[position] = checked_row(row, scorer, text=None)
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
    """The lines for people."""
    yield f"{'tokens':>15} {'rows':>12}"
    for lengths, count in _shown(found.rows_by_length):
        yield f"{lengths:>15} {count:>12,}"
    for kind, count in sorted(found.refused.items()):
        yield f"no score: {kind} {count:,}"
    for length, seconds in sorted(found.seconds_by_length.items()):
        yield f"a row of {length:,} tokens: {seconds:.3g} s"
    for devices, hours in found.hours.items():
        yield f"hours on {devices} device{'s' if devices > 1 else ''}: {hours:,.3g}"
    yield f"memory: {found.memory_bytes / 2**30:.1f} GiB on a device"
    yield f"results: about {found.result_bytes / 2**20:,.3g} MiB"


def _shown(by_length: dict[int, int]) -> Iterator[tuple[str, int]]:
    """Every length, or ten ranges of them where there are more."""
    if len(by_length) <= 10:
        yield from ((f"{length:,}", count) for length, count in sorted(by_length.items()))
        return
    lengths = sorted(by_length)
    for part in np.array_split(np.array(lengths), 10):
        yield f"{part[0]:,}-{part[-1]:,}", sum(by_length[length] for length in part.tolist())
