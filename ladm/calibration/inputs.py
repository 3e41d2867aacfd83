"""The rows and lists of a check or a calibration -> opened, or refused by the rules of `ladm score`. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from ladm.corpus.rows.reading import Rows, open_rows
from ladm.modeling.facts import ModelFacts
from ladm.scoring.row_checks import differing_lengths, require_rows, require_tokenizer, warnings_about
from ladm.scoring.row_lengths import RowLengths, default_span
from ladm.settings.calibration import CalibrateSettings, CheckSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Rows that have passed every check that needs no model."""

    rows: Rows
    lists: Rows | None
    span_tokens: int
    """As given, or the default for all rows: that of a score of them."""
    notes: list[str]
    """Lines for the user: what is unusual about the rows, and the span where it is the default."""


def require_rows_and_lists(settings: CalibrateSettings | CheckSettings, *, command: str) -> None:
    """Raise UsageError for what is no data set of rows, with the command that was meant. The model is not needed."""
    for flag, name in (("--rows", settings.rows), ("--lists", settings.lists)):
        if name is not None:
            require_rows(name, model=settings.model, command=f"{command} {flag}")


def open_inputs(settings: CalibrateSettings | CheckSettings, facts: ModelFacts, *, rows: str) -> Inputs:
    """Open what `settings` names, with `rows` in the place of its rows.

    Raises UsageError for rows of another tokenizer, and LadmError for what cannot be opened.
    """
    opened = _open(settings, facts, rows)
    lists = None if settings.lists is None else _open(settings, facts, settings.lists)
    lengths = RowLengths(opened.lengths())
    default = default_span(lengths, facts)
    notes = [*differing_lengths(lengths), *warnings_about(opened), *(warnings_about(lists) if lists else ())]
    if settings.span_tokens is not None:
        return Inputs(rows=opened, lists=lists, span_tokens=settings.span_tokens, notes=notes)
    return Inputs(rows=opened, lists=lists, span_tokens=default.span_tokens, notes=[default.line, *notes])


def _open(settings: CalibrateSettings | CheckSettings, facts: ModelFacts, name: str) -> Rows:
    rows = open_rows(name)
    require_tokenizer(rows, facts, allow_other=settings.allow_other_tokenizer)
    return rows
