"""Documents of another pipeline -> scores, the model loaded when the first is scored. What the integrations share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ladm.api.keywords import AnyPath, spell_path
from ladm.api.memory import RowScore, Scorer, scorer_settings
from ladm.corpus.encoding import Ids
from ladm.corpus.meta import whole_text
from ladm.errors import LadmError, require_whole_number

COLUMNS = ("ladm_score", "ladm_tokens", "ladm_error")
"""What a document gets: the score, how many tokens it is the score of, and where it has none, why."""


@dataclass(frozen=True, kw_only=True)
class ScoredText:
    """What the three columns hold."""

    score: float | None
    tokens: int | None
    error: str | None

    def columns(self) -> dict[str, Any]:
        """The values by the names of `COLUMNS`."""
        return dict(zip(COLUMNS, (self.score, self.tokens, self.error), strict=True))


class LazyScorer:
    """Settings of `ladm.Scorer`, which become a loaded model at the first document.

    It can be pickled before that, so that a pipeline can send it to its workers. `length`: texts are cut to that number
    of tokens, and shorter ones have no score; scores of different lengths are hard to compare. `settings` are those of
    `ladm.Scorer`, such as `span_tokens`, `device` or `profile`; spans are a 256th of the length by default.
    `own`: arguments of the step that uses it, for a message about a misspelt one.
    Raises LadmError for a model that is no name or path, a length that is no positive number, and settings that no
    model could be scored with; whether model, device and settings fit is checked when the model loads.
    """

    def __init__(self, model: AnyPath, *, length: int, settings: Mapping[str, Any], own: Iterable[str] = ()) -> None:
        # Here, and not in a worker at the first document.
        require_whole_number("length", length, least=1)
        _require_settings("LadmScore", model, settings, own=own)
        self.model, self.length, self.settings = spell_path(model, "model"), length, settings
        self._scorer: Scorer | None = None
        self._tokenizer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # A loaded model stays where it is; a copy of this object loads its own.
        return self.__dict__ | {"_scorer": None, "_tokenizer": None}

    def score(self, texts: Sequence[Any]) -> list[ScoredText]:
        """The scores of the texts, in their order. All rows have one length, so that they are scored in batches."""
        scorer, tokenizer = self._load()
        # Tables may hold null for a text; such a document is too short rather than an error of the whole batch.
        given = [text if isinstance(text, str) else "" for text in texts]
        # Half of a surrogate pair, which the tokenizer refuses; of such a document the text here is not scored.
        plain = [whole_text(text) for text in given]
        rows: dict[int, Ids] = {}
        found: dict[int, ScoredText] = {}
        for k, cut in enumerate(tokenizer.cut(plain, self.length, most_windows=1)):
            if plain[k] != given[k]:
                found[k] = ScoredText(score=None, tokens=None, error="bad_text: the text is not valid Unicode")
            elif cut.is_unbroken:
                long = "unbroken: the text is too long to be tokenised at once, and the tokenizer cannot be given parts"
                found[k] = ScoredText(score=None, tokens=None, error=long)
            elif cut.windows:
                rows[k] = cut.windows[0].ids
            else:
                short = f"too_short: {cut.num_tokens} of {self.length} tokens"
                found[k] = ScoredText(score=None, tokens=cut.num_tokens, error=short)
        # One call for all of them: the scorer makes batches of rows of equal length.
        scores: Iterable[RowScore] = scorer.score(list(rows.values())) if rows else ()
        for k, row in zip(rows, scores, strict=True):
            error = None if row.error is None else f"{row.error_type}: {row.error}"
            found[k] = ScoredText(score=row.score, tokens=row.num_tokens, error=error)
        return [found[k] for k in range(len(plain))]

    def _load(self) -> tuple[Scorer, Any]:
        if self._scorer is None:
            from ladm.corpus.tokenization import load_tokenizer

            self._tokenizer = load_tokenizer(self.model, bos=None)
            self._scorer = Scorer(self.model, **self.settings)
        return self._scorer, self._tokenizer


def require_model(model: AnyPath, *, length: int, **settings: Any) -> None:
    """Raise LadmError where a pipeline with these could score nothing, before its framework starts.

    `settings`: those of the step, such as `span_tokens`.
    Its workers would each end with a traceback of the framework. Weights of a Hub id are not fetched here: the machine
    that starts a pipeline may not be one that scores.
    """
    from ladm.corpus.tokenization import load_tokenizer
    from ladm.modeling.facts import model_facts, stated_positions

    require_whole_number("length", length, least=1)
    name = spell_path(model, "model")
    _require_settings("require_model", name, settings)
    load_tokenizer(name, bos=None)
    if os.path.isdir(name):
        model_facts(name)
        most = stated_positions(name)
        if most is not None and length > most:
            raise LadmError(f"length {length:,} is beyond the {most:,} positions of {name}")


def _require_settings(call: str, model: AnyPath, settings: Mapping[str, Any], *, own: Iterable[str] = ()) -> None:
    # As `Scorer` takes them.
    rest = {name: value for name, value in settings.items() if name != "config"}
    scorer_settings(call, model, config=settings.get("config"), settings=rest, beside=("length", *own))


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
