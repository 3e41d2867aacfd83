"""A run's identity and its errors -> words for people: how it was scored, and why rows have no score. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ladm.runs.folder import Run
from ladm.runs.identity import RunIdentity
from ladm.runs.results import error_lines
from ladm.settings.layers import spell_layers
from ladm.settings.signals import CDS


@dataclass(kw_only=True)
class ErrorKind:
    """Rows without a score for one reason: how many, and the first of them."""

    count: int = 0
    position: int
    message: str


def error_kinds(run: Run) -> dict[str, ErrorKind]:
    """The rows without a score by kind of error, the most frequent kind first."""
    kinds: dict[str, ErrorKind] = {}
    for record in error_lines(run.folder):
        first = ErrorKind(position=record["position"], message=record["message"])
        kinds.setdefault(record["error_type"], first).count += 1
    return dict(sorted(kinds.items(), key=lambda item: -item[1].count))


def run_details(identity: RunIdentity) -> list[tuple[str, str]]:
    """How the run was made: names and values."""
    model, rows = _model(identity), _rows(identity)
    if CDS not in identity.signals:
        return [("signals", ", ".join(map(_signal, identity.signals.items()))), *model, *rows, *_machine(identity)]
    method, reduction, form = identity.method, identity.reduction, identity.score_form
    parts = f"layers {spell_layers(reduction.layers)}"
    if reduction.heads:
        parts = f"{len(reduction.heads)} heads of {parts}"
    if reduction.weights:
        parts = f"{parts}, weighted"
    n0 = "as released" if method.n0 is None else method.n0
    return [
        ("score", f"{reduction.how} over {parts}" + ("" if form == "none" else f", {form}")
         + ("" if reduction.focus == "plain" else ", value-weighted")),
        ("method", f"{method.variant}, spans of {method.span_tokens} tokens, m {method.m}, n {method.n}, n0 {n0}, "
                   f"d_afs {method.d_afs}, d_cds {method.d_cds}"),
        *model,
        *rows,
        *_machine(identity),
    ]  # fmt: skip


def _signal(item: tuple[str, dict[str, str]]) -> str:
    """Such as `text (unigrams 2c21a65b9c29c0b4, of text)`."""
    name, how = item
    # Sixteen digits of a digest, as of the model.
    settings = ", ".join(f"{key} {value[:16]}" for key, value in how.items())
    return f"{name} ({settings})" if settings else name


def _model(identity: RunIdentity) -> list[tuple[str, str]]:
    if not identity.content.get("model"):
        return []
    # Statistics of texts need no more of a model than its tokenizer.
    digests = identity.model_sha256 if identity.runs_model else identity.content["tokenizer"]
    return [
        ("model", f"{Path(identity.model_name).name}: {identity.model['type']}"),
        # Sixteen digits are enough to compare by eye; the rest is in run.json.
        *((name, f"SHA-256 {digest[:16]}…") for name, digest in digests.items()),
    ]


def _rows(identity: RunIdentity) -> list[tuple[str, str]]:
    return [
        ("rows", identity.rows_name),
        ("data", f"{identity.rows_in_words}, XXH3 {identity.data['xxh3_128']}"),
    ]


def _machine(identity: RunIdentity) -> list[tuple[str, str]]:
    """Hardware where a model ran on it, and versions where the run depends on any."""
    backend = identity.backend
    used = ("hardware", f"{backend['device']} in {identity.dtype}, attention {backend['attention']}")
    versions = ("versions", ", ".join(f"{name} {number}" for name, number in identity.versions.items()))
    return [*([used] if identity.runs_model else []), *([versions] if identity.versions else [])]


def score_weighting(identity: RunIdentity) -> str:
    """By what the score weights the attention between two spans, in words."""
    place = "the distance between the two spans and by how late in the document the later one is"
    unevenness = "how unevenly the later span attends to earlier ones"
    words = {
        "none": f"{place}, and by {unevenness}",
        "no-std": place,
        "no-length": unevenness,
    }[identity.score_form]
    return words if identity.reduction.focus == "plain" else f"{words}, and by the norms of the earlier span's values"
