"""Rows and a model -> the plan for them, and what is known about them before the model loads. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ladm.corpus.files.data_set import is_saved
from ladm.corpus.files.other_stages import documents_as_rows
from ladm.corpus.preparation.tokenization import TokenizerError, load_tokenizer
from ladm.corpus.rows.identity import PREPARED
from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError, UsageError
from ladm.modeling.facts import ModelFacts
from ladm.progress import Echo, silent
from ladm.runs.columns.profile_length import length_warning
from ladm.runs.folder import Run
from ladm.runs.layout import IDENTITY_FILE
from ladm.runs.rows_of_run import place_of_rows
from ladm.scoring.plan import Hardware, Plan, make_plan
from ladm.scoring.plan_report import prolong_cost
from ladm.scoring.row_lengths import RowLengths, default_span, remedy_for_short_rows
from ladm.settings.score import ScoreSettings
from ladm.settings.signals import CDS, PROLONG
from ladm.storage.json_object import read_json_object

_DOCUMENTS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".ndjson", ".parquet", ".txt", ".csv")
_OUTPUTS = {"ladm score": " -o run", "ladm calibrate": " -o profile.yaml"}
"""What a suggested command must end with."""
LOOKED_AT_ROWS = 256
"""Rows, evenly spread, in which padding and packed documents are looked for."""
_PACKED_COLUMNS = ("seq_idx", "cu_seqlens", "seq_lengths", "document_ids")
"""Columns that trainers write beside rows of several documents."""


def plan_for_rows(
    settings: ScoreSettings,
    rows: Rows,
    facts: ModelFacts,
    *,
    ask: Callable[[Callable[[], Hardware]], Hardware] | None = None,
    echo: Echo = silent,
) -> tuple[Plan, list[str]]:
    """The plan of a score, its span length resolved, and lines to print about the rows.

    `ask` and `echo` are as for `make_plan`.

    Raises UsageError for rows of another tokenizer, and LadmError where no row can have a score, or the model or
    the device cannot be used.
    """
    if settings.runs_model:
        require_tokenizer(rows, facts, allow_other=settings.allow_other_tokenizer)
    lengths = RowLengths(rows.lengths())
    lines = []
    has_cds = CDS in settings.signal_names
    if settings.span_tokens is None:
        span = default_span(lengths, facts)
        settings = replace(settings, span_tokens=span.span_tokens)
        lines += [span.line] if has_cds else []
    facts = facts.at_length(_longest_that_fits(lengths, facts))
    lines += differing_lengths(lengths)
    lines += _refuse_or_count(settings, lengths, facts)
    if PROLONG in settings.signal_names:
        lines.append(prolong_cost(lengths.counts, most_pairs=settings.prolong_pairs))
    lines += warnings_about(rows)
    plan = make_plan(settings, facts=facts, ask=ask, echo=echo)
    warnings = list(plan.hardware.passed_over)
    if has_cds and plan.profile is not None:
        other = length_warning(plan.profile, str(settings.profile), lengths.tokens[lengths.tokens > 0])
        warnings += [] if other is None else [other]
    return plan, [*lines, *(f"warning   {line}" for line in warnings)]


def warnings_about(rows: Rows) -> list[str]:
    """A line for each of padding and packed documents in the rows, which a score takes for text of one document."""
    return [f"warning   {problem}" for problem in (_padding(rows), _packing(rows)) if problem is not None]


def require_rows(name: str, *, model: str, command: str = "ladm score") -> None:
    """Raise UsageError for what is no data set of rows, where it is plain which command was meant.

    `command` comes before the rows in a suggestion.
    """
    path = Path(name)
    if _is_model(path):
        # Before documents are looked for: every model folder has JSON files.
        raise UsageError(f"{name} is a model, not rows; {_rows_remedy(name, model, command)}")
    if (path / IDENTITY_FILE).is_file() and not is_saved(path):
        raise UsageError(
            f"{name} is a run of ladm score, not rows; give the rows that it scored{_name_of_rows(path)}, or use the "
            f"run itself: ladm rescore {name} makes another score of it, ladm select {name} chooses its best documents"
        )
    documents = path if path.is_file() and path.name.endswith(_DOCUMENTS) else None
    if path.is_dir() and not is_saved(path):
        documents = next((each for each in sorted(path.iterdir()) if each.name.endswith(_DOCUMENTS)), None)
    if documents is not None:
        raise UsageError(documents_as_rows(name, documents))


def _name_of_rows(folder: Path) -> str:
    try:
        return f" ({place_of_rows(Run.read(folder))})"
    # A file of that name may be another program's.
    except (LadmError, KeyError):
        return ""


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _rows_remedy(name: str, model: str, command: str) -> str:
    output = next((output for each, output in _OUTPUTS.items() if command.startswith(each)), "")
    if not Path(model).is_dir() or _is_model(Path(model)):
        return f"give rows as well: {command} ROWS --model {name}{output}"
    return f"the two arguments are swapped: {command} {model} --model {name}{output}"


def _longest_that_fits(lengths: RowLengths, facts: ModelFacts) -> int:
    limit = facts.max_tokens
    return max((length for length in lengths.counts if limit is None or length <= limit), default=0)


def differing_lengths(lengths: RowLengths) -> Iterator[str]:
    """A line where the rows are not all of one length."""
    if len(lengths.counts) > 1:
        common, shortest, longest = lengths.common, min(lengths.counts), max(lengths.counts)
        yield (
            f"lengths   {shortest:,} to {longest:,} tokens, {lengths.counts[common]:,} rows have {common:,}; scores "
            "can be compared only between rows of the same length"
        )


def _refuse_or_count(settings: ScoreSettings, lengths: RowLengths, facts: ModelFacts) -> Iterator[str]:
    """A line with the number of rows that will have no score. Raises LadmError where no row can have a CDS."""
    refused = lengths.refusals(settings, facts)
    if not refused:
        return
    # Without CDS no setting would help, and the signal may be one of several that the command adds.
    if CDS in settings.signal_names and refused.total() == sum(lengths.counts.values()):
        raise LadmError(_no_row_fits(settings, lengths, facts, refused))
    reasons = ", ".join(f"{kind} {count:,}" for kind, count in sorted(refused.items()))
    yield f"warning   {refused.total():,} of {len(lengths.tokens):,} rows will have no score: {reasons}"


def _no_row_fits(settings: ScoreSettings, lengths: RowLengths, facts: ModelFacts, refused: Counter[str]) -> str:
    shortest, longest = min(lengths.counts), max(lengths.counts)
    if not refused["too_short"]:
        return (
            f"every row is longer than the {facts.max_tokens:,} positions of {facts.name} (the shortest has "
            f"{shortest:,} tokens); make shorter rows (--length {facts.max_tokens} of ladm prepare), or use "
            "another model"
        )
    # A setting can help against rows that are too short, not against rows that are too long.
    fitting = [length for length in lengths.counts if facts.max_tokens is None or length <= facts.max_tokens]
    length = max(fitting, key=lambda each: (lengths.counts[each], each))
    message = f"rows of {length:,} tokens" if shortest == longest else f"rows of {shortest:,} to {longest:,} tokens"
    if settings.profile is not None:
        remedy = "give rows as long as those that the profile was calibrated on, or calibrate at this length"
    else:
        remedy = remedy_for_short_rows(settings.method, length)
    return f"{message} have no span to score with spans of {settings.method.span_tokens} tokens; {remedy}"


def _spread(rows: Rows) -> list[int]:
    """Positions of a few rows, from all over the data."""
    return sorted({len(rows) * k // LOOKED_AT_ROWS for k in range(LOOKED_AT_ROWS)})


def _padding(rows: Rows) -> str | None:
    """A warning where the rows' own `attention_mask` marks padding, which a score takes for text."""
    if "attention_mask" not in rows.column_names:
        return None
    looked_at = _spread(rows)
    masks = [rows.column("attention_mask", k, k + 1)[0] for k in looked_at]
    padded = sum(isinstance(mask, list) and 0 in mask for mask in masks)
    if not padded:
        return None
    return (
        f"padding: attention_mask has zeros in {padded:,} of the {len(looked_at):,} rows looked at, and padding is "
        "scored as if it were text; make rows without padding: ladm prepare"
    )


def _packing(rows: Rows) -> str | None:
    """A warning where columns of the rows show that a row holds several documents."""
    names = rows.column_names
    packed = next((name for name in _PACKED_COLUMNS if name in names), None)
    if packed is None and "position_ids" in names:
        # Positions that start again are how trainers mark the next document of a row.
        positions = (rows.column("position_ids", k, k + 1)[0] for k in _spread(rows))
        packed = "position_ids" if any(isinstance(each, list) and each.count(0) > 1 for each in positions) else None
    if packed is None:
        return None
    return (
        f"packed rows: the column {packed} shows several documents in one row, which would be scored as one; give rows "
        "of one document each: ladm prepare"
    )


def require_tokenizer(rows: Rows, facts: ModelFacts, *, allow_other: bool) -> None:
    """Raise UsageError for rows that `ladm prepare` made with another tokenizer than the model's.

    Rows without a `prepare.json` and models without a tokenizer pass.
    """
    made_with = _tokenizer_of_rows(rows)
    if allow_other or made_with is None or not (Path(facts.folder) / "tokenizer.json").exists():
        return
    name, digest = made_with
    try:
        own = load_tokenizer(facts.folder, bos=False)
    except TokenizerError:
        # A model whose tokenizer does not load can score all the same; there is nothing to compare then.
        return
    if own.sha256 != digest:
        raise UsageError(
            f"{rows.name} was made with the tokenizer of {name}, which is not that of {facts.name}; prepare the rows "
            f"with --tokenizer {facts.name}, or, where both make the same ids, give --allow-other-tokenizer"
        )


def _tokenizer_of_rows(rows: Rows) -> tuple[str, str] | None:
    """Name and SHA-256 of the tokenizer that made the rows, where `prepare.json` beside them says."""
    path = Path(rows.name) / PREPARED
    if not path.is_file():
        return None
    record = read_json_object(path)
    try:
        tokenizer = record["asked"]["tokenizer"]
        return str(tokenizer["name"]), str(tokenizer["sha256"])
    except (KeyError, TypeError):
        return None
