"""Rows and a model -> a profile: make a contrast set of the rows, score it with all heads, choose the best score.

The contrast set and its run stay in a folder beside the profile, so that a stopped calibration resumes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ladm.calibration.band import band_of_layers, intact_band, text_band
from ladm.calibration.contrast_rows import PreparedContrast, contrast_notes, make_contrast, require_spans
from ladm.calibration.contrast_scores import read_contrast_scores
from ladm.calibration.inputs import open_inputs, require_rows_and_lists
from ladm.calibration.result import CalibrationResult, analyse
from ladm.calibration.sample import DocumentSample, sample_rows
from ladm.calibration.work_folder import (
    CONTRAST,
    RUN,
    claim_work_folder,
    is_scored,
    require_work_folder,
    save_contrast,
)
from ladm.errors import LadmError, UsageError, count_of
from ladm.modeling.facts import ModelFacts, model_facts
from ladm.progress import Echo, Progress
from ladm.runs.folder import Run
from ladm.scoring.dry_run import DryRun, dry_run
from ladm.scoring.plan import make_plan
from ladm.scoring.score import score as run_score
from ladm.settings.calibration import CalibrateSettings, Search
from ladm.settings.layers import parse_layers
from ladm.settings.profiles import Profile, Quantiles, profile_text
from ladm.settings.score import ScoreSettings
from ladm.storage.files import io_errors, require_place, write_whole
from ladm.storage.temporary import temporary_folder


def calibrate(settings: CalibrateSettings, *, echo: Echo, progress: Progress) -> CalibrationResult:
    """Find the layers to score with and write them to the profile `settings.output`.

    A profile that the same command has made of the same data is left as it is.
    Raises LadmError where there are too few documents or another profile exists, and whatever scoring raises.
    """
    output, folder = Path(settings.output), work_folder(settings)
    # A profile is written when its run is finished: without one, this is another's.
    if output.exists() and not is_scored(folder):
        raise LadmError(f"{output} exists already; give another --output")
    require_rows_and_lists(settings, command="ladm calibrate")
    require_work_folder(folder, rows=settings.rows)
    prepared = _prepare(settings, folder, echo=echo)
    sample, halves, contrast, scoring = prepared.sample, prepared.halves, prepared.contrast, prepared.scoring
    # A model or device that cannot be used is refused here; all that is refused at all leaves no folder behind.
    # The run below makes a plan of its own, in the process that scores: this one must not occupy the device.
    make_plan(scoring, facts=prepared.facts, try_attention=False)
    # Before the hours of scoring rather than after them.
    if not output.parent.exists():
        with io_errors(output, "write"):
            output.parent.mkdir(parents=True, exist_ok=True)
    require_place(output, mark="length_tokens:")
    claim_work_folder(folder)
    echo(
        f"contrast  {count_of(len(contrast), 'row')} of {sample.length_tokens:,} tokens from "
        f"{count_of(len(sample.ids), 'document')}, stored in {folder}"
    )
    for line in contrast_notes(sample, halves, contrast):
        echo(line)
    save_contrast(contrast, folder)
    run_score(scoring, echo=echo, progress=progress)
    run = Run.read(folder / RUN)
    scores = read_contrast_scores(
        run, contrast, prepared.clusters, num_layers=prepared.facts.num_layers,
        heads=settings.search != "layers",
    )  # fmt: skip
    result = analyse(
        scores, search=settings.search, objective=settings.objective, max_cost=settings.most_cost, seed=settings.seed
    )
    band = intact_band(run, scores, result.recommended) | text_band(sample.ids, prepared.facts.folder)
    # Last, so that a profile exists only where the calibration is complete.
    profile = make_profile(
        run, result, length_tokens=sample.length_tokens, packages=sample.packages, seed=settings.seed,
        search=settings.search, band=band,
        score_layers_band=band_of_layers(run, scores, result.reduction.layers),
    )  # fmt: skip
    _write(output, profile_text(profile).encode())
    return result


def estimate(settings: CalibrateSettings, *, echo: Echo) -> DryRun:
    """What the scoring of the contrast set will take, from three of its rows.

    The contrast set is made in a temporary folder; nothing stays, and `settings.output` is not looked at. Raises as
    `calibrate` does for rows, a model or settings that cannot be used.
    """
    require_rows_and_lists(settings, command="ladm calibrate")
    with temporary_folder() as folder:
        prepared = _prepare(settings, folder, echo=echo)
        for line in contrast_notes(prepared.sample, prepared.halves, prepared.contrast):
            echo(line)
        save_contrast(prepared.contrast, folder)
        return dry_run(replace(prepared.scoring, dry_run=True), echo=echo)


def _prepare(settings: CalibrateSettings, folder: Path, *, echo: Echo) -> PreparedContrast:
    """Draw the documents and make the contrast set that is to be scored in `folder`; writes nothing."""
    facts = model_facts(settings.model)
    inputs = open_inputs(settings, facts, rows=settings.rows)
    sample, lists = sample_rows(
        inputs.rows, inputs.lists, settings, facts=facts, exclude_domains=settings.exclude_domains
    )
    facts = facts.at_length(sample.length_tokens)
    _require_layer_within_cost(settings, facts)
    scoring = _score_settings(settings, sample, span_tokens=inputs.span_tokens, folder=folder)
    halves, contrast = make_contrast(sample, lists, span_tokens=scoring.method.span_tokens, seed=settings.seed)
    for line in inputs.notes:
        echo(line)
    return PreparedContrast(sample=sample, halves=halves, contrast=contrast, scoring=scoring, facts=facts)


def _write(output: Path, content: bytes) -> None:
    """Write the profile. Raises LadmError where another one is; a command that is given again finds its own."""
    if not output.exists():
        write_whole(output, [content])
        return
    with io_errors(output, "read"):
        is_same = output.read_bytes() == content
    if not is_same:
        raise LadmError(f"{output} exists already and holds another profile; give another --output")


def work_folder(settings: CalibrateSettings) -> Path:
    """Where the contrast set and its run are stored: beside the profile unless `settings.work` names a folder."""
    if settings.work is not None:
        return Path(settings.work)
    output = Path(settings.output)
    stem = output.with_suffix("") if output.suffix in (".yaml", ".yml") else output
    return stem.with_name(f"{stem.name}.calibration")


def _require_layer_within_cost(settings: CalibrateSettings, facts: ModelFacts) -> None:
    """Fail before the hours of scoring rather than after them."""
    first = min(facts.choose_layers(parse_layers(settings.layers)))
    # Rounded as where candidates are compared with it: 0.29 of 100 layers is 28.999999999999996.
    if (first + 1) / facts.num_layers > settings.most_cost + 1e-9:
        raise UsageError(f"no layer can be reached within {settings.most_cost:g} of a forward pass; raise --max-cost")


def _score_settings(
    settings: CalibrateSettings, sample: DocumentSample, *, span_tokens: int, folder: Path
) -> ScoreSettings:
    """Those of the contrast set's run: the method and the device as given, everything else from here."""
    used = settings.scoring | {
        "rows": str(folder / CONTRAST),
        "model": settings.model,
        "output": str(folder / RUN),
        # One pass stores what every candidate needs: layers and heads, with sigma and without.
        "record": "forms",
    }
    scoring = ScoreSettings(**used | {"span_tokens": span_tokens})
    require_spans(scoring, sample.length_tokens)
    return scoring


def make_profile(
    run: Run,
    result: CalibrationResult,
    *,
    length_tokens: int,
    packages: list[str],
    seed: int,
    search: Search,
    band: dict[str, Quantiles],
    score_layers_band: dict[str, Quantiles],
) -> Profile:
    """The profile of what was found in the run of a contrast set. `packages`: the package of every document.

    `band` and `score_layers_band`: see `intact_band` and `band_of_layers`.
    """
    identity = run.identity
    return Profile(
        model=identity.model,
        method=replace(identity.method, ablation=result.recommended.form.ablation),
        length_tokens=length_tokens,
        reduction=result.reduction,
        band=band,
        band_layers=identity.layers,
        score_layers_band=score_layers_band,
        found={
            "documents": len(packages),
            "packages": len(set(packages)),
            "seed": seed,
            "objective": result.objective,
            "search": search,
            "dtype": identity.dtype,
            "data": identity.data["xxh3_128"],
            **result.summary(),
        },
    )
