"""A model and rows -> is it fit to be a calculator? Figure 2, sinks, two spans, AUC by kind, and a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ladm.calibration.check_result import CheckResult, draw_check
from ladm.calibration.check_rows import (
    CHECKED_KINDS,
    PIECES,
    prepare_check,
    prepare_packaged_documents,
    score_settings,
)
from ladm.calibration.contrast import INTACT, ContrastRow
from ladm.calibration.contrast_rows import PreparedContrast, contrast_notes
from ladm.calibration.contrast_scores import ContrastScores, read_contrast_scores
from ladm.calibration.estimates import Estimate, estimate_spearman
from ladm.calibration.inputs import require_rows_and_lists
from ladm.calibration.result import by_kind, every_form, layer_results
from ladm.calibration.work_folder import (
    RUN,
    claim_work_folder,
    remove_when_refused,
    require_work_folder,
    save_contrast,
)
from ladm.corpus.preparation.prepare import PrepareProgress
from ladm.modeling.facts import model_facts
from ladm.progress import Echo, Progress
from ladm.runs.columns.sink_layers import median_sink_mass
from ladm.runs.folder import Run
from ladm.runs.results import read_scores
from ladm.scoring.dry_run import DryRun, dry_run
from ladm.scoring.plan import load_planned, make_plan
from ladm.scoring.score import score as run_score
from ladm.settings.calibration import CheckSettings
from ladm.settings.score import ScoreSettings
from ladm.storage.files import remove_abandoned, write_whole
from ladm.storage.json_object import json_with_checksum
from ladm.storage.temporary import temporary_folder

OTHER_SPANS = (128, 64, 32, 16, 8, 4)
"""Of these the first that differs from the span of the check by a factor of 2 or more and leaves spans to score."""
OTHER_SPAN = "other-span"
JSON_FILE, PICTURE_FILE = "check.json", "check.png"


def check(
    settings: CheckSettings, *, echo: Echo, new_progress: Callable[[], Progress], preparing: PrepareProgress
) -> tuple[CheckResult, Path]:
    """Test a model, with all files in the folder `settings.output`; returns the result and the picture's path.

    `new_progress` makes the progress of each of two runs.

    Raises LadmError where there are too few documents, and whatever preparing and scoring raise.
    """
    # Not at the top: it needs torch, which takes seconds to load, and errors in the settings should come at once.
    from ladm.calibration.sink_words import sink_words

    output = Path(settings.output or f"check-{Path(settings.model).name}")
    require_rows_and_lists(settings, command="ladm check")
    require_work_folder(output, rows=settings.rows)
    facts = model_facts(settings.model)
    if settings.rows is not None:
        prepared = prepare_check(settings, facts, output, rows=settings.rows, echo=echo)
        plan = make_plan(prepared.scoring, facts=prepared.facts)
        claim_work_folder(output)
    else:
        # The documents of the package are prepared in the folder, before anything is known about their rows.
        with remove_when_refused(output):
            rows = prepare_packaged_documents(settings, facts, output, echo=echo, progress=preparing)
            prepared = prepare_check(settings, facts, output, rows=rows, echo=echo)
            plan = make_plan(prepared.scoring, facts=prepared.facts)
    sample, contrast = prepared.sample, prepared.contrast
    facts, scoring = plan.facts, prepared.scoring
    for line in contrast_notes(sample, prepared.halves, contrast, CHECKED_KINDS, by_halves=False):
        echo(line)
    save_contrast(contrast, output)
    run_score(scoring, echo=echo, progress=new_progress())
    run = Run.read(output / RUN)
    scores = read_contrast_scores(run, contrast, prepared.clusters, num_layers=facts.num_layers, heads=False)
    other = _score_other_span(settings, prepared, output, echo=echo, progress=new_progress())
    values = {name: candidate.values(scores) for name, candidate in every_form(scores).items()} | scores.counts
    result = CheckResult(
        facts=facts,
        rows=settings.rows,
        length_tokens=sample.length_tokens,
        documents=len(sample.ids),
        long_range=_long_range(run, contrast),
        sink_mass=median_sink_mass(run),
        sink_words=sink_words(
            load_planned(plan, plan.hardware.devices[0]), sample.ids, scoring.method.grid(sample.length_tokens)
        ),
        spans=(scoring.method.span_tokens, other.identity.method.span_tokens) if other else None,
        spearman=_spearman(run, other, contrast, scores, seed=settings.seed) if other else {},
        layers=list(layer_results(scores, seed=settings.seed)),
        # Nothing is chosen here, so both halves judge.
        kinds=by_kind(scores, values, half=None, seed=settings.seed),
    )
    for name in (PICTURE_FILE, JSON_FILE):
        remove_abandoned(output / name)
    draw_check(result, output / PICTURE_FILE)
    write_whole(output / JSON_FILE, [json_with_checksum(result.to_json())])
    return result, output / PICTURE_FILE


def estimate(settings: CheckSettings, *, echo: Echo, preparing: PrepareProgress) -> DryRun:
    """What the scoring of a check will take, from three of its rows.

    They are made in a temporary folder; nothing stays, and `settings.output` is not looked at. Raises as `check` does
    for rows, a model or settings that cannot be used.
    """
    require_rows_and_lists(settings, command="ladm check")
    facts = model_facts(settings.model)
    with temporary_folder() as folder:
        rows = settings.rows or prepare_packaged_documents(settings, facts, folder, echo=echo, progress=preparing)
        prepared = prepare_check(settings, facts, folder, rows=rows, echo=echo)
        contrast, scoring = prepared.contrast, prepared.scoring
        for line in contrast_notes(prepared.sample, prepared.halves, contrast, CHECKED_KINDS, by_halves=False):
            echo(line)
        # A row of the second run costs what one of the first does: the length of the spans hardly matters.
        again = _intact(contrast) if _other_span(settings, prepared, folder) else []
        save_contrast([*contrast, *again], folder)
        return dry_run(replace(scoring, dry_run=True), echo=echo)


def _intact(contrast: list[ContrastRow]) -> list[ContrastRow]:
    return [row for row in contrast if row.kind == INTACT]


def _other_span(settings: CheckSettings, prepared: PreparedContrast, output: Path) -> ScoreSettings | None:
    """The settings of the run with spans of another length; None where no other length leaves spans to score."""
    length_tokens, used = prepared.sample.length_tokens, prepared.scoring.method.span_tokens
    for span_tokens in OTHER_SPANS:
        if not used / 2 < span_tokens < used * 2:
            other = score_settings(settings, prepared.facts, span_tokens, output / OTHER_SPAN, record="layers")
            if other.method.grid(length_tokens).J:
                return other
    return None


def _score_other_span(
    settings: CheckSettings, prepared: PreparedContrast, output: Path, *, echo: Echo, progress: Progress
) -> Run | None:
    """The run of the intact documents with spans of another length; None where no other length leaves spans to score.

    A score that means something orders the documents alike with both.
    """
    other = _other_span(settings, prepared, output)
    if other is None:
        return None
    save_contrast(_intact(prepared.contrast), output / OTHER_SPAN)
    run_score(other, echo=echo, progress=progress)
    return Run.read(output / OTHER_SPAN / RUN)


def _spearman(
    run: Run, other: Run, contrast: list[ContrastRow], scores: ContrastScores, *, seed: int
) -> dict[str, Estimate]:
    """The rank correlation of the intact documents between the two runs, for every score."""
    intact = [k for k, row in enumerate(contrast) if row.kind == INTACT]
    rows = [contrast[k] for k in intact]
    # The index of a row is its place in the rows of its own run, and those of `other` are the intact ones.
    place = {index: k for k, index in enumerate(read_scores(run.folder, ["index"])["index"].to_pylist())}
    other_place = {index: k for k, index in enumerate(read_scores(other.folder, ["index"])["index"].to_pylist())}
    both = [(place[k], other_place[n]) for n, k in enumerate(intact) if k in place and n in other_place]
    ours, theirs = np.array(both).T
    other_scores = read_contrast_scores(
        other, rows, [str(row.document) for row in rows], num_layers=scores.num_layers, heads=False
    )
    found = {}
    for name, candidate in every_form(scores).items():
        a_B, b_B = candidate.values(scores)[ours], candidate.values(other_scores)[theirs]
        found[name] = estimate_spearman(a_B, b_B, scores.clusters[ours], seed=seed)
    return found


def _long_range(run: Run, contrast: list[ContrastRow]) -> dict[str, float]:
    """For each kind the median over documents of the median over layers of the focus at long range."""
    table = read_scores(run.folder, ["index", "range_per_layer"])
    kinds = [INTACT, *(f"{pieces} pieces" for pieces in PIECES)]
    by_kind: dict[str, list[float]] = {kind: [] for kind in kinds}
    for index, layers in zip(table["index"].to_pylist(), table["range_per_layer"].to_pylist(), strict=True):
        # The index of a row is its place in the contrast set. Figure 2 has pasted rows only.
        if contrast[index].kind in by_kind:
            by_kind[contrast[index].kind].append(float(np.median(layers)))
    return {kind: float(np.median(values)) for kind, values in by_kind.items()}
