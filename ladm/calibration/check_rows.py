"""A model and the settings of a check -> the rows that it scores and how. Nothing is scored here."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path

from ladm.calibration.contrast import KINDS
from ladm.calibration.contrast_rows import PreparedContrast, make_contrast, require_spans
from ladm.calibration.inputs import open_inputs
from ladm.calibration.sample import sample_rows
from ladm.calibration.work_folder import CONTRAST, RUN
from ladm.corpus.preparation.prepare import PrepareProgress, prepare
from ladm.errors import LadmError
from ladm.modeling.facts import ModelFacts
from ladm.progress import Echo
from ladm.settings.calibration import CheckSettings
from ladm.settings.data import PrepareSettings
from ladm.settings.score import Recorded, ScoreSettings
from ladm.storage.files import io_errors, write_whole

PIECES = (2, 4, 8)
"""Figure 2 of the paper concatenates documents of 1/2, 1/4 and 1/8 of the length."""
CHECKED_KINDS = tuple(kind for kind in KINDS if kind != "16 pieces")
"""16 pieces would need 32 documents, and differ little from 8."""
MIN_DOCUMENTS = 2 * max(PIECES)


def prepare_check(
    settings: CheckSettings, facts: ModelFacts, output: Path, *, rows: str, echo: Echo
) -> PreparedContrast:
    """Everything before the first row is scored; writes nothing. Raises whatever `check` raises for its input."""
    inputs = open_inputs(settings, facts, rows=rows)
    sample, lists = sample_rows(inputs.rows, inputs.lists, settings, facts=facts, min_documents=MIN_DOCUMENTS)
    facts = facts.at_length(sample.length_tokens)
    scoring = score_settings(settings, facts, inputs.span_tokens, output)
    require_spans(scoring, sample.length_tokens)
    halves, contrast = make_contrast(
        sample, lists, span_tokens=inputs.span_tokens, seed=settings.seed, kinds=CHECKED_KINDS
    )
    for line in inputs.notes:
        echo(line)
    return PreparedContrast(sample=sample, halves=halves, contrast=contrast, scoring=scoring, facts=facts)


def prepare_packaged_documents(
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


def score_settings(
    settings: CheckSettings, facts: ModelFacts, span_tokens: int, output: Path, *, record: Recorded = "range"
) -> ScoreSettings:
    """Those of the contrast set's run, with every layer that attends to the whole document."""
    # A layer with a sliding window has no attention at long range, whatever the document.
    layers = facts.full_layers
    if not layers:
        raise LadmError(f"{facts.name}: no layer attends to every earlier token; use another model")
    return ScoreSettings(
        rows=str(output / CONTRAST),
        model=settings.model,
        output=str(output / RUN),
        span_tokens=span_tokens,
        layers=",".join(map(str, layers)),
        record=record,
        device=settings.device,
        dtype=settings.dtype,
    )
