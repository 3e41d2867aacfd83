"""Rows and a model -> a profile: make a contrast set of the rows, score it with all heads, choose the best score.

The contrast set and its run stay in a folder beside the profile, so that a stopped calibration resumes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ladm.calibration.band import band_of_layers, intact_band, text_band
from ladm.calibration.contrast import KINDS, ContrastRow, absent_kinds, contrast_set
from ladm.calibration.contrast_scores import WITH_SIGMA, WITHOUT_SIGMA, read_contrast_scores
from ladm.calibration.inputs import open_inputs, require_rows_and_lists
from ladm.calibration.packages import MIN_PACKAGES, Halves, split_by_package
from ladm.calibration.result import CalibrationResult, analyse
from ladm.calibration.sample import DocumentSample, ListSample, sample_rows
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

FEW_DOCUMENTS = 100
"""With fewer documents the intervals are so wide that a warning is printed."""


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
        run, contrast, clusters_of(sample, halves, contrast), num_layers=prepared.facts.num_layers,
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


@dataclass(frozen=True, kw_only=True)
class _Preparation:
    """What a calibration works with, made before anything is scored."""

    sample: DocumentSample
    halves: Halves
    contrast: list[ContrastRow]
    scoring: ScoreSettings
    facts: ModelFacts


def _prepare(settings: CalibrateSettings, folder: Path, *, echo: Echo) -> _Preparation:
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
    return _Preparation(sample=sample, halves=halves, contrast=contrast, scoring=scoring, facts=facts)


def _write(output: Path, content: bytes) -> None:
    """Write the profile. Raises LadmError where another one is; a command that is given again finds its own."""
    if not output.exists():
        write_whole(output, [content])
        return
    with io_errors(output, "read"):
        is_same = output.read_bytes() == content
    if not is_same:
        raise LadmError(f"{output} exists already and holds another profile; give another --output")


def make_contrast(
    sample: DocumentSample, lists: ListSample, *, span_tokens: int, seed: int, kinds: tuple[str, ...] = KINDS
) -> tuple[Halves, list[ContrastRow]]:
    """The halves, and the rows of the contrast set."""
    halves = split_by_package(sample.packages, sample.groups, seed=seed, list_packages=lists.packages)
    rows = contrast_set(sample.ids, halves, span_tokens=span_tokens, seed=seed, kinds=kinds, lists=lists.ids)
    return halves, rows


def contrast_notes(
    sample: DocumentSample,
    halves: Halves,
    contrast: list[ContrastRow],
    kinds: tuple[str, ...] = KINDS,
    *,
    by_halves: bool = True,
) -> Iterator[str]:
    """What limits the contrast set, a line for each: few documents, few packages, kinds that it lacks.

    `by_halves`: does one half choose and the other judge? Then a kind is of use only where both have it.
    """
    if len(sample.ids) < FEW_DOCUMENTS:
        yield f"warning   only {len(sample.ids)} documents: the intervals will be wide; use at least {FEW_DOCUMENTS}"
    packages = Counter(sample.packages)
    if not halves.by_package:
        why = f"too few packages ({len(packages)}) to hold out whole ones"
        if len(packages) >= MIN_PACKAGES:
            why = (
                f"{max(packages.values())} of {len(sample.ids)} documents are from one package, too many to hold it out"
            )
        yield f"warning   {why}, so single documents are held out; see --package-key"
    if not halves.lists_by_package:
        yield "warning   all lists are from one package, so lists are held out one by one; see --package-key"
    for line in absent_kinds(contrast, kinds, by_halves=by_halves):
        yield f"absent    {line}"


def clusters_of(sample: DocumentSample, halves: Halves, contrast: list[ContrastRow]) -> list[str]:
    """What is held out together and drawn together, for every row of the set."""
    # Lists are numbered after the documents.
    clusters = halves.clusters(sample.groups)
    return [clusters[row.document] for row in contrast]


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


def require_spans(settings: ScoreSettings, length_tokens: int) -> None:
    """Raise UsageError when documents of this length leave no span to score, or not the same ones in both forms."""
    forms = (WITH_SIGMA, WITHOUT_SIGMA) if settings.record == "forms" else (settings.ablation,)
    grids = [replace(settings.method, ablation=form).grid(length_tokens) for form in forms]
    if not grids[0].J:
        raise UsageError(
            f"documents of {length_tokens:,} tokens have no span to score with spans of {settings.span_tokens} tokens; "
            "give a smaller --span-tokens or longer documents"
        )
    # Sigma needs two earlier spans, so without it one more span may qualify. The AUC of the two forms would then
    # differ for another reason than sigma.
    if grids[-1].J != grids[0].J:
        raise UsageError(
            "with these settings the forms with and without sigma score different spans; give another --n0"
        )


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
