"""A finished run -> for some of its documents, where their scores come from: one JSON file each in `RUN/inspected`.

The model runs twice over each: once for every pair of spans, once more for the tokens of the strongest pairs.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ladm.errors import LadmError, RowError
from ladm.focus import Grid, span_grid
from ladm.models import model_identity
from ladm.observer import Observer
from ladm.options import InspectSettings
from ladm.plan import Plan, load_planned, make_plan
from ladm.profiles import Reduction, reduction_of
from ladm.progress import Echo, Progress
from ladm.results import require_finished, score_batches
from ladm.rows import Row, Rows, open_rows, token_ids
from ladm.runs import INSPECTED, Run
from ladm.scorers.ladm import grid_settings
from ladm.scorers.parts import Parts, take_apart
from ladm.settings import ScoreSettings, spell_layers
from ladm.storage import naming, write_whole
from ladm.tokenizers import disagreement, plain_tokenizer, spell

FORMAT = 1
MOST_PAIRS = 4
EXCERPT_TOKENS, AROUND_TOKENS = 80, 32
TOLERANCE = {"float32": 1e-2, "float16": 5e-2, "bfloat16": 0.2}
"""How far a score may be from that of the run, relatively, before it is another document's or model's."""


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A document to look at, as the run has it."""

    rank: int
    position: int
    score: float
    num_tokens: int
    index: int | str


def inspect(settings: InspectSettings, *, echo: Echo, progress: Progress) -> list[Path]:
    """Look at the best and worst documents of a run, or at those named; returns the files.

    Raises LadmError for an unfinished run, a document without a score, and for rows or a model that
    are not the run's.
    """
    run = Run.read(Path(settings.run))
    require_finished(run)
    wanted = _choose(run, settings)
    reduction = reduction_of(run.identity["score"])
    rows = open_rows(settings.rows or run.identity["about"]["rows"], limit=run.num_rows)
    plan = make_plan(_score_settings(run, settings, reduction))
    _require_same(run, plan, rows)
    echo(
        f"device    {plan.hardware.devices[0]} in {plan.hardware.dtype}, layers {spell_layers(plan.layers)} of "
        f"{plan.facts.num_layers}, twice over {len(wanted)} documents"
    )
    problem = disagreement(rows, plan.facts.folder)
    if problem is not None:
        echo(f"warning   {problem}")
    tokenizer = _tokenizer(plan, echo)
    looking = _Looking(load_planned(plan, plan.hardware.devices[0]), plan, reduction, tokenizer)
    folder = run.folder / INSPECTED
    with naming(folder, "create"):
        folder.mkdir(exist_ok=True)
    written = []
    progress.start(total=len(wanted), done=0)
    try:
        for one in wanted:
            (row,) = rows.read(one.position, one.position + 1)
            found = looking.at(row, one, rows)
            written.append(folder / f"{one.position:09d}.json")
            write_whole(written[-1], [json.dumps(found, ensure_ascii=False, allow_nan=False).encode() + b"\n"])
            progress.advance(rows=1, tokens=2 * one.num_tokens)
    finally:
        progress.close()
    return written


def _choose(run: Run, settings: InspectSettings) -> list[_Wanted]:
    """The documents asked for, best first, each once."""
    names = ["rank", "position", "score", "num_tokens", "index"]
    chosen: dict[int, _Wanted] = {}
    labels, named = set(settings.index), set()
    last: deque[_Wanted] = deque(maxlen=settings.last)
    for batch in score_batches(run.folder, names):
        columns = [batch[name].to_pylist() for name in names]
        for values in zip(*columns, strict=True):
            one = _Wanted(**dict(zip(names, values, strict=True)))
            if one.rank <= settings.first or str(one.index) in labels:
                chosen[one.rank] = one
                named.add(str(one.index))
            last.append(one)
        if not (settings.last or labels) and len(chosen) == settings.first:
            break
    if labels - named:
        raise LadmError(f"no document of {run.folder} with the index {sorted(labels - named)[0]} has a score")
    chosen |= {one.rank: one for one in last}
    if not chosen:
        raise LadmError(f"{run.folder}: no document has a score")
    return [chosen[rank] for rank in sorted(chosen)]


def _score_settings(run: Run, settings: InspectSettings, reduction: Reduction) -> ScoreSettings:
    """How the run was scored, with the layers alone that make its score."""
    had = run.identity["settings"]
    method = {name: had[name] for name in ("variant", "span_tokens", "m", "n", "n0", "d_afs", "d_cds")}
    return ScoreSettings(
        **method,
        ablation=run.identity["score"].get("form", had["ablation"]),
        layers=spell_layers(reduction.layers),
        model=settings.model or run.identity["about"]["model"],
        dtype=settings.dtype or run.identity["dtype"],
        device=settings.device,
    )


def _require_same(run: Run, plan: Plan, rows: Rows) -> None:
    """Raise LadmError for another model, or for fewer rows. Single rows are judged by their scores."""
    if model_identity(plan.facts.folder) != run.identity["model"]["sha256"]:
        raise LadmError(f"{plan.facts.name} is not the model that scored {run.folder}; give --model its folder")
    if len(rows) != run.num_rows:
        raise LadmError(f"{rows.name} has {len(rows):,} rows, and {run.folder} scored {run.num_rows:,}; give --rows")


def _tokenizer(plan: Plan, echo: Echo) -> Any:
    try:
        return plain_tokenizer(plan.facts.folder)
    except LadmError:
        echo("warning   the model's folder has no tokenizer: no text will be shown, only where it is")
        return None


class _Looking:
    """A model at work on single documents."""

    def __init__(self, observer: Observer, plan: Plan, reduction: Reduction, tokenizer: Any) -> None:
        self._observer = observer
        self._plan = plan
        self._reduction = reduction
        self._tokenizer = tokenizer

    def at(self, row: Row, wanted: _Wanted, rows: Rows) -> dict[str, Any]:
        """What is to be known of a document. Raises LadmError where it is not the one that was scored."""
        try:
            ids = token_ids(row, vocab_size=self._plan.facts.vocab_size)
        except RowError as error:
            raise LadmError(f"row {row.position} of {rows.name}: {error}") from None
        if row.index != wanted.index or len(ids) != wanted.num_tokens:
            raise LadmError(f"{rows.name} are not the rows of the run: row {row.position} is another document")
        settings, hardware = self._plan.settings, self._plan.hardware
        parts = take_apart(
            self._observer,
            torch.from_numpy(ids).unsqueeze(0),
            span_grid(len(ids), **grid_settings(settings)),
            reduction=self._reduction,
            ablation=settings.ablation,
            backend=hardware.backend,
            most_pairs=MOST_PAIRS,
        )
        if not abs(parts.score - wanted.score) <= TOLERANCE[hardware.dtype] * abs(wanted.score):
            raise LadmError(
                f"row {row.position} of {rows.name} has the score {parts.score:.6g} here and {wanted.score:.6g} in the "
                "run: another document, or another precision than the run's"
            )
        return {
            "format": FORMAT,
            "position": row.position,
            "index": row.index,
            "chunked_index": row.chunked_index,
            "num_tokens": len(ids),
            "score": wanted.score,
            "score_here": parts.score,
            "span_tokens": parts.grid.l,
            "first_token": parts.grid.start(0),
            "columns": [
                {"name": name, "cds": _short(cds), "weight": _short(w)}
                for name, cds, w in zip(self._names(), parts.cds_P, parts.w_P, strict=True)
            ],
            "j": list(parts.grid.J),
            "i": [list(spans) for spans in parts.grid.I],
            "pfs": _used(parts.pfs_JN, parts.grid),
            "part": _used(parts.part_JN, parts.grid),
            "excerpt": self._text(ids[:EXCERPT_TOKENS].tolist()),
            "pairs": [self._pair(ids.tolist(), parts, k) for k in range(len(parts.pairs))],
        }

    def _names(self) -> list[str]:
        heads = self._reduction.heads
        return [f"L{k}" for k in self._reduction.layers] if heads is None else [f"L{k}H{head}" for k, head in heads]

    def _pair(self, ids: list[int], parts: Parts, k: int) -> dict[str, Any]:
        """A pair of spans: its part of the score, and how much of that is each token's, on both sides."""
        (row, i), weights_ll = parts.pairs[k], parts.tokens[k]
        j = parts.grid.J[row]
        return {
            "j": j,
            "i": i,
            "part": _short(parts.part_JN[row, i]),
            "pfs": _short(parts.pfs_JN[row, i]),
            "later": self._span(ids, parts.grid, j, weights_ll.sum(dim=1)),
            "earlier": self._span(ids, parts.grid, i, weights_ll.sum(dim=0)),
        }

    def _span(self, ids: list[int], grid: Grid, span: int, weights_l: Tensor) -> dict[str, Any]:
        """Texts of the tokens of a span, what each adds to the score, and a little of what stands around it."""
        tokens = grid.tokens(span)
        return {
            "first_token": tokens.start,
            "tokens": [] if self._tokenizer is None else spell(self._tokenizer, ids[tokens]),
            "weights": [_short(w) for w in weights_l],
            "before": self._text(ids[max(0, tokens.start - AROUND_TOKENS) : tokens.start]),
            "after": self._text(ids[tokens.stop : tokens.stop + AROUND_TOKENS]),
        }

    def _text(self, ids: list[int]) -> str:
        if self._tokenizer is None:
            return ""
        text: str = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return text


def _used(values_JN: Tensor, grid: Grid) -> list[list[float]]:
    """The values of the pairs that are used, a list for each scored span."""
    return [[_short(x) for x in values_JN[row, list(spans)]] for row, spans in enumerate(grid.I)]


def _short(value: Any) -> float:
    """Six digits of a number."""
    return float(f"{float(value):.6g}")
