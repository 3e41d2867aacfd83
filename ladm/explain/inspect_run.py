"""A finished run -> for some of its documents, where their scores come from: one JSON file each in `RUN/inspected`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ladm.corpus.preparation.tokenization import TokenizerError, disagreement, plain_tokenizer
from ladm.corpus.rows.reading import Rows
from ladm.errors import LackOfMemoryError, LadmError, count_of
from ladm.explain.chosen_documents import choose_documents
from ladm.explain.decompose import Decomposer
from ladm.explain.explainer import Explainer, ScoredDocument
from ladm.explain.inspected_document import write_inspected
from ladm.method.attribution import require_parts
from ladm.method.reduction import Reduction
from ladm.modeling.facts import ModelFacts, model_facts
from ladm.modeling.model_files import model_identity
from ladm.progress import Echo, Progress
from ladm.runs.folder import Run
from ladm.runs.layout import INSPECTED
from ladm.runs.results import require_finished
from ladm.runs.rows_of_run import place_of_rows, rows_of_run
from ladm.scoring.plan import load_planned, make_plan
from ladm.settings.layers import spell_layers
from ladm.settings.runs import InspectSettings
from ladm.settings.score import ScoreSettings
from ladm.storage.files import io_errors, remove_all_abandoned
from ladm.storage.interrupts import StopSignal, stop_on_signals

MOST_PAIRS = 4
TOLERANCE = {"float32": 1e-3, "float16": 3e-2, "bfloat16": 0.1}
"""How far a document's CDS may differ from the run's, relatively, before it is another document."""


def inspect(
    settings: InspectSettings, *, echo: Echo, on_document: Callable[[ScoredDocument, Path], None], progress: Progress
) -> None:
    """Explain the scores of a run's best and worst documents, or of those named; calls `on_document` with each file.

    A document that was inspected before in the same way keeps its file.

    Raises LadmError for an unfinished run, a score without parts, a document without a score, and for rows or a model
    that are not the run's.
    """
    run = Run.open(settings.run)
    require_finished(run)
    # Before rows and model are opened, which takes minutes of a large one.
    require_parts(run.identity.reduction)
    folder = run.folder / INSPECTED
    with stop_on_signals(folder) as signals:
        documents = choose_documents(run, settings)
        facts, rows = _open_model(run, settings), _open_rows(run, settings)
        explainer = _explainer(run, settings, facts, rows, documents, echo=echo)
        _create(folder)
        progress.start(total=len(documents), done=0)
        try:
            for document in documents:
                path = folder / f"{document.position:09d}.json"
                if not explainer.is_explained(path, document):
                    (row,) = rows.read(document.position, document.position + 1)
                    write_inspected(path, explainer.explain(row, document, rows.name))
                on_document(document, path)
                progress.advance(rows=1, tokens=document.num_tokens)
                # A signal that arrives inside a callback of Python's does not raise here; see `stop_on_signals`.
                if signals:
                    raise StopSignal(signals[0])
        finally:
            progress.close()


def _create(folder: Path) -> None:
    with io_errors(folder, "write in"):
        folder.mkdir(exist_ok=True)
        # What a killed inspection was still writing; another one may be at work.
        remove_all_abandoned(folder)


def _explainer(
    run: Run, settings: InspectSettings, facts: ModelFacts, rows: Rows, documents: list[ScoredDocument], *, echo: Echo
) -> Explainer:
    """Load the model and prepare to explain `documents`."""
    identity, reduction = run.identity, run.identity.reduction
    # Rows that fit a layer's window were scored in that layer too.
    facts = facts.at_length(max(document.num_tokens for document in documents))
    plan = make_plan(_score_settings(run, settings, reduction), facts=facts)
    used = plan.hardware
    echo(
        f"device    {used.devices[0]} in {used.dtype}, layers {spell_layers(plan.layers)} of {facts.num_layers}, "
        f"{count_of(len(documents), 'row')}"
    )
    problem = disagreement(rows, facts.folder)
    if problem is not None:
        echo(f"warning   {problem}")
    return Explainer(
        decomposer=Decomposer(
            observer=load_planned(plan, used.devices[0]),
            reduction=reduction,
            ablation=identity.score_form,
            backend=used.backend,
            most_pairs=MOST_PAIRS,
        ),
        method=plan.settings.method,
        vocab_size=facts.vocab_size,
        stored_at=reduction.columns(identity.layers, num_heads=_num_heads(run, documents[0], reduction)),
        column_names=_column_names(reduction),
        # The coarser of the two precisions: that of the run, and that of this inspection.
        tolerance=max(TOLERANCE[used.dtype], TOLERANCE[identity.dtype]),
        tokenizer=_open_tokenizer(facts, echo),
        made_with={"dtype": used.dtype, "backend": used.backend, "device": used.devices[0].split(":")[0]},
    )


def _num_heads(run: Run, document: ScoredDocument, reduction: Reduction) -> int | None:
    """Heads of a layer: as many as the run stored, or, where it stored none, as the score needs; None: no heads."""
    if reduction.heads is None:
        return None
    if document.cds is None:
        return 1 + max(head for _, head in reduction.heads)
    return len(document.cds) // len(run.identity.layers)


def _open_model(run: Run, settings: InspectSettings) -> ModelFacts:
    """The model that scored the run. Raises LadmError for another."""
    name = settings.model or run.identity.model_name
    try:
        facts = model_facts(name)
    except LackOfMemoryError:
        raise
    except LadmError as error:
        raise LadmError(str(error) if settings.model else f"{error}; give its new path with --model") from None
    # By the content of its files: a folder may have moved, and a name may stand for new weights.
    if model_identity(facts.folder) != run.identity.model_sha256:
        raise LadmError(f"{name} is not the model that scored {run.folder}; give that model's folder with --model")
    return facts


def _open_rows(run: Run, settings: InspectSettings) -> Rows:
    """The rows that the run scored. Raises LadmError for another number of rows.

    Their content is compared row by row in `Explainer.explain`: a digest of all would read the whole data set.
    """
    name = settings.rows or place_of_rows(run)
    rows = rows_of_run(run, settings.rows)
    if len(rows) != run.num_rows:
        raise LadmError(
            f"{name} has {len(rows):,} rows, but {run.folder} scored {run.num_rows:,}; give --rows the rows that it "
            "scored"
        )
    return rows


def _score_settings(run: Run, settings: InspectSettings, reduction: Reduction) -> ScoreSettings:
    """How the run was scored, with only those layers that make its score."""
    return ScoreSettings(
        **run.identity.method.as_dict(),
        layers=spell_layers(reduction.layers),
        model=settings.model or run.identity.model_name,
        dtype=settings.dtype or run.identity.dtype,
        device=settings.device,
    )


def _open_tokenizer(facts: ModelFacts, echo: Echo) -> Any:
    """The model's tokenizer; None, with a warning, where there is none that works."""
    if not (Path(facts.folder) / "tokenizer.json").exists():
        echo("warning   the model's folder has no tokenizer: positions will be shown without their text")
        return None
    try:
        return plain_tokenizer(facts.folder)
    except TokenizerError as error:
        echo(f"warning   positions will be shown without their text: {error}")
        return None


def _column_names(reduction: Reduction) -> list[str]:
    if reduction.heads is None:
        return [f"L{layer}" for layer in reduction.layers]
    return [f"L{layer}H{head}" for layer, head in reduction.heads]
