"""Documents of another pipeline -> scores, the model loaded when the first is scored. What the integrations share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ladm.api.keywords import AnyPath, spell_path
from ladm.api.memory import RowScore, Scorer, scorer_settings
from ladm.corpus.files.meta import decoded, is_missing, reason_of_text
from ladm.corpus.preparation.encoding import TokenWindow
from ladm.errors import LadmError, require_whole_number
from ladm.runs.records import Column
from ladm.settings.score import ScoreSettings
from ladm.settings.signals import CDS, COLUMNS_OF, FAR_RARE

PREFIX = "ladm_"
COLUMNS = ("ladm_score", "ladm_tokens", "ladm_error")
"""What a document gets: the score, how many tokens it is the score of, and where it has none, why."""
_PROBLEMS = {
    "no_text": "there is no text",
    "not_text": "the text is not a string",
    "bad_text": "the text is not valid Unicode",
}
"""By the words of `ladm prepare`, which drops such documents."""


@dataclass(frozen=True, kw_only=True)
class ScoredText:
    """What the columns hold."""

    score: float | None
    tokens: int | None
    error: str | None
    signals: Mapping[str, Column | None]
    """The columns of signals by their names in a step, such as `ladm_gzip_ratio`; None where there is no score."""

    def columns(self) -> dict[str, Any]:
        """The values by the names of `LazyScorer.columns`."""
        return dict(zip(COLUMNS, (self.score, self.tokens, self.error), strict=True)) | dict(self.signals)


class LazyScorer:
    """Settings of `ladm.Scorer`, which become a loaded model at the first document.

    It can be pickled before that, so that a pipeline can send it to its workers. `length`: texts are cut to that number
    of tokens, and shorter ones have no score; scores of different lengths are hard to compare. `settings` are those of
    `ladm.Scorer`, such as `span_tokens`, `device` or `profile`; spans are a 256th of the length by default.
    `own`: arguments of the step that uses it, for a message about a misspelt one.
    Raises LadmError for a model that is no name or path, a length that is no positive number, and settings that no
    model could be scored with; whether model, device and settings fit is checked when the model loads.

    `columns`: the names of what a document gets, those of `COLUMNS` and one for each column of the signals besides CDS.
    """

    def __init__(self, model: AnyPath, *, length: int, settings: Mapping[str, Any], own: Iterable[str] = ()) -> None:
        # Here, and not in a worker at the first document.
        require_whole_number("length", length, least=1)
        self._wanted = _require_settings("LadmScore", model, settings, own=own)
        self.columns = (*COLUMNS, *(PREFIX + name for name in _signal_columns(self._wanted)))
        self.model, self.length = spell_path(model, "model"), length
        self._scorer: Scorer | None = None
        self._tokenizer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # A loaded model stays where it is; a copy of this object loads its own.
        return self.__dict__ | {"_scorer": None, "_tokenizer": None}

    def score(self, texts: Sequence[Any]) -> list[ScoredText]:
        """The scores of the texts, in their order. All rows have one length, so that they are scored in batches."""
        scorer, tokenizer = self._load()
        # What is no text, or one that the tokenizer refuses, costs the other texts of the batch nothing.
        given = [None if is_missing(text) else decoded(text) for text in texts]
        problems = [reason_of_text(text) for text in given]
        plain = ["" if problem else str(text) for text, problem in zip(given, problems, strict=True)]
        rows: dict[int, TokenWindow] = {}
        found: dict[int, ScoredText] = {}
        for k, cut in enumerate(tokenizer.cut(plain, self.length, most_windows=1)):
            if (reason := problems[k]) is not None:
                found[k] = self._without_score(None, f"{reason}: {_PROBLEMS[reason]}")
            elif cut.is_unbroken:
                long = "unbroken: the text is too long to be tokenised at once, and the tokenizer cannot be given parts"
                found[k] = self._without_score(None, long)
            elif cut.windows:
                rows[k] = cut.windows[0]
            else:
                short = f"too_short: {cut.num_tokens} of {self.length} tokens"
                found[k] = self._without_score(cut.num_tokens, short)
        # One call for all of them: the scorer makes batches of rows of equal length.
        ids, texts = [row.ids for row in rows.values()], [plain[k][row.start : row.end] for k, row in rows.items()]
        scores: Iterable[RowScore] = scorer.score(ids, texts=texts) if rows else ()
        for k, row in zip(rows, scores, strict=True):
            if row.error is None:
                signals = {name: row.columns[name.removeprefix(PREFIX)] for name in self._signals}
                found[k] = ScoredText(score=row.score, tokens=row.num_tokens, error=None, signals=signals)
            else:
                found[k] = self._without_score(row.num_tokens, f"{row.error_type}: {row.error}")
        return [found[k] for k in range(len(plain))]

    @property
    def _signals(self) -> tuple[str, ...]:
        return self.columns[len(COLUMNS) :]

    def _without_score(self, tokens: int | None, error: str) -> ScoredText:
        return ScoredText(score=None, tokens=tokens, error=error, signals=dict.fromkeys(self._signals))

    def _load(self) -> tuple[Scorer, Any]:
        if self._scorer is None:
            from ladm.corpus.preparation.tokenization import load_tokenizer

            self._tokenizer = load_tokenizer(self.model, bos=None)
            self._scorer = Scorer.for_length(self._wanted, self.length)
        return self._scorer, self._tokenizer


def require_model(model: AnyPath, *, length: int, **settings: Any) -> None:
    """Raise LadmError where a pipeline with these could score nothing, before its framework starts.

    `settings`: those of the step, such as `span_tokens`.
    Its workers would each end with a traceback of the framework. Weights of a Hub id are not fetched here: the machine
    that starts a pipeline may not be one that scores.
    """
    from ladm.corpus.preparation.tokenization import load_tokenizer
    from ladm.modeling.facts import model_facts
    from ladm.scoring.plan import choose_layers
    from ladm.scoring.row_lengths import is_too_long, refusal
    from ladm.settings.profiles import read_profile
    from ladm.signals.text_columns import read_unigrams

    require_whole_number("length", length, least=1)
    name = spell_path(model, "model")
    wanted = _require_settings("require_model", name, settings)
    method = wanted.method_at(length)
    if CDS in wanted.signal_names and not method.grid(length).J:
        raise LadmError(
            f"length {length:,} leaves no span to score with these settings; give a smaller span_tokens or a greater "
            "length"
        )
    load_tokenizer(name, bos=None)
    if os.path.isdir(name):
        facts = model_facts(name, weights=wanted.runs_model)
        if wanted.unigrams is not None:
            read_unigrams(wanted.unigrams, vocab_size=facts.vocab_size)
        # Some signals need no position for each token.
        if is_too_long(length, wanted, facts):
            raise LadmError(f"length {length:,} is beyond the {facts.max_tokens:,} positions of {name}")
        if refusal(length, replace(wanted, span_tokens=method.span_tokens), facts) is not None:
            names = wanted.signal_names
            signals = f"signal{'s' if len(names) > 1 else ''} {', '.join(names)}"
            raise LadmError(f"length {length:,} is too short for the {signals}; give a greater length")
        profile = None if wanted.profile is None else read_profile(wanted.profile)
        choose_layers(wanted, facts.at_length(length), profile)


def _require_settings(
    call: str, model: AnyPath, settings: Mapping[str, Any], *, own: Iterable[str] = ()
) -> ScoreSettings:
    # As `Scorer` takes them.
    rest = {name: value for name, value in settings.items() if name != "config"}
    return scorer_settings(call, model, config=settings.get("config"), settings=rest, beside=("length", *own))


def _signal_columns(settings: ScoreSettings) -> list[str]:
    """The columns of the signals besides CDS, whose columns are lists over layers."""
    names = [name for signal in settings.signal_names for name in COLUMNS_OF.get(signal, ())]
    # It needs a table of how common each token is.
    return [name for name in names if name != FAR_RARE or settings.unigrams is not None]


def in_groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter."""
    group: list[Any] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        # The last documents are fewer than a batch.
        yield group
