"""A finished run -> for some of its documents, where their scores come from: one JSON file each in `RUN/inspected`.

The model runs twice over each: once for every pair of spans, once more for the tokens of the strongest pairs.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ladm.corpus.rows import Rows, open_rows
from ladm.corpus.tokenization import disagreement, plain_tokenizer
from ladm.errors import LadmError
from ladm.explain.decompose import take_apart
from ladm.explain.document import Explainer, Wanted
from ladm.method.reduction import Reduction
from ladm.modeling.facts import ModelFacts, model_facts, model_identity
from ladm.progress import Echo, Progress
from ladm.runs.folder import INSPECTED, Run
from ladm.runs.results import columns_of, require_finished, score_batches
from ladm.scoring.plan import load_planned, make_plan
from ladm.settings.layers import spell_layers
from ladm.settings.runs import MOST_INSPECTED, InspectSettings
from ladm.settings.score import ScoreSettings
from ladm.storage.files import PARTIAL_SUFFIX, io_errors, write_whole
from ladm.storage.interrupts import StopSignal, stop_on_signals

MOST_PAIRS = 4
TOLERANCE = {"float32": 1e-3, "float16": 3e-2, "bfloat16": 0.1}
"""How far a document's CDS may be from those of the run, relatively, before it is another document."""


def inspect(settings: InspectSettings, *, echo: Echo, tell: Callable[[Path], None], progress: Progress) -> None:
    """Look at the best and worst documents of a run, or at those named; `tell` hears of each file, once it is there.

    A document that was looked at in the same way before is not looked at again.
    Raises LadmError for an unfinished run, a document without a score, and for rows or a model that
    are not the run's.
    """
    run = Run.read(Path(settings.run))
    require_finished(run)
    with stop_on_signals(run.folder / INSPECTED) as signals:
        _inspect(run, settings, signals, echo, tell, progress)


def _inspect(
    run: Run,
    settings: InspectSettings,
    signals: list[int],
    echo: Echo,
    tell: Callable[[Path], None],
    progress: Progress,
) -> None:
    reduction, ablation = run.identity.reduction, run.identity.score_form
    column = run.identity.cds_column(ablation, heads=reduction.heads is not None)
    wanted = _choose(run, settings, column if column in columns_of(run.folder) else None)
    facts = _facts(run, settings)
    rows = _rows(run, settings)
    plan = make_plan(_score_settings(run, settings, reduction))
    used = plan.hardware
    echo(
        f"device    {used.devices[0]} in {used.dtype}, layers {spell_layers(plan.layers)} of {facts.num_layers}, twice "
        f"over {len(wanted)} document{'s' if len(wanted) > 1 else ''}"
    )
    problem = disagreement(rows, facts.folder)
    if problem is not None:
        echo(f"warning   {problem}")
    tokenizer = _tokenizer(facts, echo)
    folder = run.folder / INSPECTED
    with io_errors(folder, "write in"):
        folder.mkdir(exist_ok=True)
        for left in folder.glob(f"*{PARTIAL_SUFFIX}"):
            left.unlink(missing_ok=True)
    made_with = {"dtype": used.dtype, "backend": used.backend, "device": used.devices[0].split(":")[0]}
    take = partial(
        take_apart,
        load_planned(plan, used.devices[0]),
        reduction=reduction,
        ablation=ablation,
        backend=used.backend,
        most_pairs=MOST_PAIRS,
    )
    kept_at = reduction.columns(run.identity.layers, num_heads=_num_heads(run, wanted, reduction))
    explainer = Explainer(
        take=take,
        method=plan.settings.method,
        vocab_size=facts.vocab_size,
        kept_at=kept_at,
        names=_names(reduction),
        tolerance=max(TOLERANCE[used.dtype], TOLERANCE[run.identity.dtype]),
        tokenizer=tokenizer,
        made_with=made_with,
    )
    progress.start(total=len(wanted), done=0)
    try:
        for one in wanted:
            path = folder / f"{one.position:09d}.json"
            if not explainer.is_explained(path, one):
                (row,) = rows.read(one.position, one.position + 1)
                found = explainer.explain(row, one, rows.name)
                write_whole(path, [json.dumps(found, allow_nan=False).encode() + b"\n"])
            tell(path)
            progress.advance(rows=1, tokens=2 * one.num_tokens)
            if signals:
                raise StopSignal(signals[0])
    finally:
        progress.close()


def _choose(run: Run, settings: InspectSettings, column: str | None) -> list[Wanted]:
    """The documents asked for, best first, each once."""
    names = ["rank", "position", "score", "num_tokens", "index", "meta", *([column] if column else [])]
    chosen: dict[int, dict[str, Any]] = {}
    labels, named = set(settings.index), set()
    last: deque[dict[str, Any]] = deque(maxlen=settings.last)
    for batch in score_batches(run.folder, names):
        best_of_batch = batch["rank"][0].as_py()
        looked_at = batch if labels or best_of_batch <= settings.first else batch.slice(0, 0)
        indices = [str(index) for index in looked_at["index"].to_pylist()]
        for k, (rank, index) in enumerate(zip(looked_at["rank"].to_pylist(), indices, strict=True)):
            if rank <= settings.first or index in labels:
                chosen[rank] = batch.slice(k, 1).to_pylist()[0]
                named.add(index)
        if len(chosen) > MOST_INSPECTED:
            raise LadmError(
                f"more than {MOST_INSPECTED} documents of {run.folder} have such an index; ask for others, or by --top"
            )
        last.extend(batch.slice(max(0, len(batch) - settings.last)).to_pylist())
        if not (settings.last or labels) and len(chosen) == settings.first:
            break
    if labels - named:
        raise LadmError(
            f"no document of {run.folder} with the index {sorted(labels - named)[0]!r} has a score; its errors.jsonl "
            "says which rows have none, and why"
        )
    chosen |= {one["rank"]: one for one in last}
    if not chosen:
        raise LadmError(f"{run.folder}: no document has a score; its errors.jsonl says why")
    return [
        Wanted(cds=chosen[rank].pop(column) if column else None, **chosen[rank]) for rank in sorted(chosen)
    ]  # fmt: skip


def _num_heads(run: Run, wanted: list[Wanted], reduction: Reduction) -> int | None:
    if reduction.heads is None or wanted[0].cds is None:
        return None if reduction.heads is None else 1 + max(head for _, head in reduction.heads)
    return len(wanted[0].cds) // len(run.identity.layers)


def _facts(run: Run, settings: InspectSettings) -> ModelFacts:
    """The model that scored the run. Raises LadmError for another."""
    name = settings.model or run.identity.model_name
    try:
        facts = model_facts(name)
    except LadmError as error:
        raise LadmError(str(error) if settings.model else f"{error}; give --model where it is now") from None
    if model_identity(facts.folder) != run.identity.model_sha256:
        raise LadmError(f"{name} is not the model that scored {run.folder}; give --model its folder")
    return facts


def _rows(run: Run, settings: InspectSettings) -> Rows:
    """The rows that the run scored, as far as their number tells; single ones are judged by what they hold."""
    name = settings.rows or run.identity.rows_name
    try:
        rows = open_rows(name, limit=run.num_rows)
    except LadmError as error:
        raise LadmError(str(error) if settings.rows else f"{error}; give --rows where they are now") from None
    if len(rows) != run.num_rows:
        raise LadmError(
            f"{name} has {len(rows):,} rows, and {run.folder} scored {run.num_rows:,}; give --rows those that it scored"
        )
    return rows


def _score_settings(run: Run, settings: InspectSettings, reduction: Reduction) -> ScoreSettings:
    """How the run was scored, with the layers alone that make its score."""
    return ScoreSettings(
        **run.identity.method.as_dict(),
        layers=spell_layers(reduction.layers),
        model=settings.model or run.identity.model_name,
        dtype=settings.dtype or run.identity.dtype,
        device=settings.device,
    )


def _tokenizer(facts: ModelFacts, echo: Echo) -> Any:
    if not (Path(facts.folder) / "tokenizer.json").exists():
        echo("warning   the model's folder has no tokenizer: no text will be shown, only where it is")
        return None
    try:
        return plain_tokenizer(facts.folder)
    except LadmError as error:
        echo(f"warning   no text will be shown, only where it is: {error}")
        return None


def _names(reduction: Reduction) -> list[str]:
    if reduction.heads is None:
        return [f"L{layer}" for layer in reduction.layers]
    return [f"L{layer}H{head}" for layer, head in reduction.heads]
