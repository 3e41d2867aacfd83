"""A model and rows -> is it fit to be a calculator? Figure 2 of the paper, the AUC of three scores, a verdict."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path

import numpy as np

from ladm.calibration.calibrate import require_spans
from ladm.calibration.candidates import all_layers, judge
from ladm.calibration.check_result import CheckResult, draw_check
from ladm.calibration.contrast import INTACT, ContrastRow, contrast_set, halves
from ladm.calibration.contrast_scores import ContrastScores, read_contrast_scores
from ladm.calibration.estimates import Estimate
from ladm.calibration.result import analyse
from ladm.calibration.sample import sample_documents
from ladm.calibration.work_folder import CONTRAST, RUN, open_work_folder, save_contrast
from ladm.corpus.prepare import Progress as PrepareProgress
from ladm.corpus.prepare import prepare
from ladm.corpus.rows import open_rows
from ladm.errors import LadmError
from ladm.method.grid import default_span_tokens
from ladm.modeling.facts import ModelFacts, model_facts
from ladm.progress import Echo, Progress
from ladm.runs.folder import Run
from ladm.runs.results import read_scores
from ladm.scoring.row_checks import require_tokenizer
from ladm.scoring.score import score as run_score
from ladm.settings.calibration import CheckSettings
from ladm.settings.data import PrepareSettings
from ladm.settings.score import ScoreSettings
from ladm.storage.files import io_errors, write_whole
from ladm.storage.json_object import json_with_checksum

PIECES = (2, 4, 8)
"""Figure 2 of the paper concatenates documents of 1/2, 1/4 and 1/8 of the length."""
MIN_DOCUMENTS = 2 * max(PIECES)
JSON_FILE, PICTURE_FILE = "check.json", "check.png"


def check(
    settings: CheckSettings, *, echo: Echo, progress: Progress, preparing: PrepareProgress
) -> tuple[CheckResult, Path]:
    """Test a model, with all files in the folder `settings.output`; returns the result and the picture's path.

    Raises LadmError where there are too few documents, and whatever preparing and scoring raise.
    """
    output = Path(settings.output or f"check-{Path(settings.model).name}")
    facts = model_facts(settings.model)
    open_work_folder(output, rows=settings.rows)
    rows_name = settings.rows or _prepare_packaged_documents(settings, facts, output, echo=echo, progress=preparing)
    rows = open_rows(rows_name)
    require_tokenizer(rows, facts, allow_other=settings.allow_other_tokenizer)
    sample = sample_documents(
        rows,
        facts=facts,
        documents=settings.documents,
        seed=settings.seed,
        domain_key=settings.domain_key,
        min_documents=MIN_DOCUMENTS,
    )
    span_tokens = settings.span_tokens or default_span_tokens(sample.length_tokens)
    facts = facts.at_length(sample.length_tokens)
    scoring = _score_settings(settings, facts, span_tokens, output)
    require_spans(scoring, sample.length_tokens)
    # Without the degraded rows, which figure 2 does not have.
    contrast = contrast_set(
        sample.ids,
        halves(sample.groups, seed=settings.seed),
        span_tokens=span_tokens,
        seed=settings.seed,
        pieces=PIECES,
        degraded=False,
    )
    save_contrast(contrast, output)
    run_score(scoring, echo=echo, progress=progress)
    run = Run.read(output / RUN)
    scores = read_contrast_scores(run, contrast, num_layers=facts.num_layers, heads=False)
    # What `ladm calibrate` would choose from these documents, judged on the half that did not choose it.
    calibrated = analyse(scores, objective="auc", max_cost=1.0, seed=settings.seed)
    result = CheckResult(
        facts=facts,
        rows=settings.rows,
        length_tokens=sample.length_tokens,
        documents=len(sample.ids),
        long_range=_long_range(run, contrast),
        layers=calibrated.layers,
        scores={"profile": calibrated.overall["profile"], **_uncalibrated(scores, seed=settings.seed)},
        score_names=calibrated.names,
    )
    draw_check(result, output / PICTURE_FILE)
    write_whole(output / JSON_FILE, [json_with_checksum(result.to_json())])
    return result, output / PICTURE_FILE


def _uncalibrated(scores: ContrastScores, *, seed: int) -> dict[str, Estimate]:
    """AUC of the mean and the median over layers. Nothing was chosen for them, so all documents may judge."""
    return {
        how: judge(scores, all_layers(scores, how), scores.pasted, half=None, seed=seed) for how in ("mean", "median")
    }


def _prepare_packaged_documents(
    settings: CheckSettings, facts: ModelFacts, output: Path, *, echo: Echo, progress: PrepareProgress
) -> str:
    """Prepare those documents of the package that are known to be coherent; returns the folder of the rows."""
    folder = output / "documents"
    source = folder / "coherent.jsonl"
    packed = files("ladm") / "data" / "documents.jsonl.gz"
    lines = gzip.decompress(packed.read_bytes()).splitlines(keepends=True)
    coherent = b"".join(line for line in lines if json.loads(line)["meta"]["expected"] == "coherent")
    with io_errors(folder, "create"):
        folder.mkdir(parents=True, exist_ok=True)
    # An unchanged source keeps its modification time, which `prepare` compares when it resumes.
    if not source.exists() or source.read_bytes() != coherent:
        write_whole(source, [coherent])
    preparation = PrepareSettings(
        sources=(str(source),),
        tokenizer=settings.model,
        output=str(folder / "rows"),
        length=min(settings.length, facts.max_tokens or settings.length),
    )
    prepare(preparation, echo=echo, progress=progress)
    return preparation.output


def _score_settings(settings: CheckSettings, facts: ModelFacts, span_tokens: int, output: Path) -> ScoreSettings:
    """Those of the contrast set's run, with every layer that attends to the whole document."""
    # A layer with a sliding window has no attention at long range, whatever the document.
    layers = sorted(set(range(facts.num_layers)) - set(facts.windowed))
    if not layers:
        raise LadmError(f"{facts.name}: every layer attends to a window only; use another model")
    return ScoreSettings(
        rows=str(output / CONTRAST),
        model=settings.model,
        output=str(output / RUN),
        span_tokens=span_tokens,
        layers=",".join(map(str, layers)),
        record="range",
        device=settings.device,
        dtype=settings.dtype,
    )


def _long_range(run: Run, contrast: list[ContrastRow]) -> dict[str, float]:
    """For each kind the median over documents of the median over layers of the focus at long range."""
    table = read_scores(run.folder, ["index", "range_per_layer"])
    kinds = [INTACT, *(f"{pieces} pieces" for pieces in PIECES)]
    by_kind: dict[str, list[float]] = {kind: [] for kind in kinds}
    for index, layers in zip(table["index"].to_pylist(), table["range_per_layer"].to_pylist(), strict=True):
        # The index of a row is its place in the contrast set.
        by_kind[contrast[index].kind].append(float(np.median(layers)))
    return {kind: float(np.median(values)) for kind, values in by_kind.items()}
