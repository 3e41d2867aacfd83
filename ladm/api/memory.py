"""`ladm.Scorer`: token ids in memory -> their scores, the same numbers as `ladm score` writes. Imports no torch."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ladm.api.given_rows import rows_of, texts_of
from ladm.api.keywords import AnyPath, parse_keywords, spell_config, spell_path
from ladm.api.quiet import quiet_libraries, warn
from ladm.errors import LadmError, RowError, require_whole_number

if TYPE_CHECKING:
    from typing import NoReturn, Self, Unpack

    from ladm.api.flags import ScorerFlags
    from ladm.runs.records import Column, Record
    from ladm.scoring.engines.batch_sizes import BatchRule
    from ladm.scoring.engines.batches import CheckedRow
    from ladm.settings.score import ScoreSettings
    from ladm.signals.scorer import SignalScorer

OF_RUNS_ALONE = (
    "rows", "output", "engine", "workers", "shard", "limit", "max_errors", "fail_fast", "retry_errors", "overwrite",
    "dry_run", "allow_other_tokenizer",
)  # fmt: skip
"""Settings of `ladm score` that say where rows come from, where results go, or who computes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowScore:
    """The score of one row; or, where it has none, why."""

    score: float | None
    """Higher means that the document depends more on its distant parts; None: see `error`."""
    columns: Mapping[str, Column]
    """What `scores.parquet` has beside the score, such as `cds_per_layer`: a number, or one for each layer or head."""
    num_tokens: int | None
    """None where the row is no list of tokens."""
    error_type: str | None = None
    """A short stable word, as in `errors.jsonl`: `too_short`, `outside_vocabulary`, ..."""
    error: str | None = None
    """The same in a sentence."""


class Scorer:
    """A model on one device, ready to score token ids in memory. No file is written.

        scorer = ladm.Scorer("org/model", span_tokens=64, device="cuda:1")
        scorer.score(ids)

    `settings` are the flags of `ladm score`, without those about files and processes. Of several devices the first
    is used. Any thread may call `score`; the calls take turns. `close` gives the memory of a GPU back.
    Raises LadmError for a model, device or settings that cannot be used.
    """

    def __init__(self, model: AnyPath, *, config: AnyPath | None = None, **settings: Unpack[ScorerFlags]) -> None:
        self._load(scorer_settings("ladm.Scorer", model, config=config, settings=settings))

    @classmethod
    def for_length(cls, settings: ScoreSettings, length: int) -> Self:
        """Score rows of at most `length` tokens, so that a model may have windows that are no shorter.

        Raises LadmError as `Scorer` does.
        """
        scorer = cls.__new__(cls)
        scorer._load(settings, length=length)
        return scorer

    def _load(self, settings: ScoreSettings, *, length: int | None = None) -> None:
        with quiet_libraries():
            from ladm.modeling.facts import model_facts
            from ladm.scoring.identity import require_model_of_profile
            from ladm.scoring.plan import make_plan

            facts = model_facts(settings.model, weights=settings.runs_model)
            plan = make_plan(settings, facts=facts if length is None else facts.at_length(length))
            require_model_of_profile(plan)
            for line in plan.hardware.passed_over:
                warn(line)
            self._set(plan.make_scorer()(plan.hardware.devices[0]), plan.batch_rows())

    @classmethod
    def from_signal(cls, signal: SignalScorer, *, batch_rows: int = 1) -> Scorer:
        """Score with a signal of one's own: an object that follows the protocol `ladm.signals.scorer.SignalScorer`.

        `batch_rows`: how many rows of one length it gets at a time. Raises LadmError where that is not at least
        1, and for an object that does not follow the protocol.
        """
        require_whole_number("batch_rows", batch_rows, least=1)
        lacking = [name for name in ("asynchronous", "check", "score") if not hasattr(signal, name)]
        if lacking:
            kind, protocol = type(signal).__name__, "ladm.signals.scorer.SignalScorer"
            raise LadmError(f"an object of type {kind} is no signal: it has no {', '.join(lacking)} ({protocol})")
        scorer = cls.__new__(cls)
        scorer._set(signal, lambda _tokens: batch_rows)
        return scorer

    def _set(self, signal: SignalScorer, batch_rows: BatchRule) -> None:
        from ladm.scoring.engines.batch_sizes import BatchSizes

        self._signal: SignalScorer | None = signal
        self._sizes = BatchSizes(batch_rows)
        self._turn = threading.Lock()

    def close(self) -> None:
        """Let go of the model, and give its memory on a GPU back; `with ladm.Scorer(...) as scorer:` does so too."""
        with self._turn:
            self._signal = None
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            from ladm.method.constants import release_constants

            release_constants()
            torch.cuda.empty_cache()

    def __reduce__(self) -> NoReturn:
        # Else pickle would name a part of the model that it cannot take.
        raise TypeError("a ladm.Scorer holds a loaded model and cannot be pickled or copied; make one in each process")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def score(self, ids: Any, *, texts: Any = None) -> list[RowScore]:
        """The scores of a row of token ids, or of several rows, in their order: always a list.

        `ids`: one row as a list, an array or a tensor of whole numbers; or a list of such rows, or an array (B, T).
        `texts`: the text of each row, of its tokens alone and not of a longer document; the signal `text` reads it,
        and without it makes its columns of the ids. A list, an array or a column of a table.
        A row that cannot be scored, such as one that is too short, does not stop the others: its `score` is None,
        its `error` says why. Raises LadmError for `ids` that are neither, and for `texts` that are
        no texts, or not as many.
        """
        from ladm.scoring.engines.batches import checked_row, error_row

        records: dict[int, Record] = {}
        by_length: dict[int, list[CheckedRow]] = {}
        with self._turn:
            signal = self._signal
            if signal is None:
                raise LadmError("this ladm.Scorer is closed; make another one")
            rows = rows_of(ids)
            for row, text in zip(rows, texts_of(texts, len(rows)), strict=True):
                try:
                    one = checked_row(row, signal, text=text)
                except RowError as error:
                    records[row.position] = error_row(row, error, stage="check")
                else:
                    by_length.setdefault(len(one.ids), []).append(one)
            self._sizes.pause()
            for equal in by_length.values():
                records |= {record.position: record for record in self._score_equal(equal, signal)}
        return [_row_score(records[position]) for position in range(len(records))]

    def _score_equal(self, rows: list[CheckedRow], signal: SignalScorer) -> list[Record]:
        """The records of rows of one length."""
        from ladm.scoring.engines.batches import start_batch

        records: list[Record] = []
        pending = None
        while rows:
            size = self._sizes(len(rows[0].ids))
            batch, rows = rows[:size], rows[size:]
            # A GPU gets its next batch before this one's scores are waited for, so that it is never idle.
            started = start_batch(batch, signal, self._sizes)
            if pending is not None:
                records += pending()
            pending = started
        return records + (pending() if pending is not None else [])


def scorer_settings(
    call: str, model: AnyPath, *, config: AnyPath | None, settings: Mapping[str, Any], beside: Iterable[str] = ()
) -> ScoreSettings:
    """The settings of a `Scorer`, given to `call`, checked without its model.

    `beside`: other arguments of the call. Raises LadmError for settings that cannot be used with any model.
    """
    from ladm.scoring.signal_choice import require_effect
    from ladm.settings.config_file import score_settings
    from ladm.settings.score import ScoreSettings
    from ladm.settings.signals import CDS

    given = parse_keywords(ScoreSettings, call, settings, without=OF_RUNS_ALONE, beside=beside)
    # The settings of a run cannot do without these two; nothing here reads or writes them.
    # Rows in memory have no text, and the table of how common a token is would have to be given.
    given = {"signals": CDS} | given | {"model": spell_path(model, "model"), "rows": "-", "output": "-"}
    wanted = score_settings(spell_config(config), given)
    require_effect(wanted, wanted.signal_names)
    return wanted


def _row_score(record: Record) -> RowScore:
    from ladm.runs.records import ScoredRow

    if isinstance(record, ScoredRow):
        return RowScore(score=record.score, columns=record.columns, num_tokens=record.num_tokens)
    return RowScore(
        score=None, columns={}, num_tokens=record.num_tokens, error_type=record.error_type, error=record.message
    )
