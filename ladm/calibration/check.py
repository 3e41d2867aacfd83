"""A model and rows -> is it fit to be a calculator? Figure 2 of the paper, AUC of scores, a verdict, a picture."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ladm.calibration.calibrate import (
    CONTRAST,
    SPANS_AIMED_AT,
    choose_documents,
    measure,
    open_work,
    require_spans,
    save_contrast,
)
from ladm.calibration.candidates import Estimate, Measured, everything, judge
from ladm.calibration.contrast import INTACT, Contrast, contrast_set, halves
from ladm.calibration.findings import Findings, find
from ladm.corpus.prepare import Progress as PrepareProgress
from ladm.corpus.prepare import prepare
from ladm.corpus.rows import open_rows
from ladm.errors import LadmError
from ladm.method.reduction import Floats
from ladm.modeling.facts import ModelFacts, model_facts
from ladm.progress import Echo, Progress
from ladm.runs.folder import Run
from ladm.runs.results import read_scores
from ladm.scoring.score import score as run_score
from ladm.settings.commands import CalibrateSettings, CheckSettings, PrepareSettings
from ladm.settings.score import ScoreSettings
from ladm.storage.files import io_errors, write_whole

PIECES = (2, 4, 8)
"""Figure 2 concatenates documents of 1/2, 1/4 and 1/8 of the length."""
FEWEST = 2 * max(PIECES)
GOOD, FAIR = 0.8, 0.6
"""A lower bound of the AUC above these is called fit, and weak; anything below is unfit."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What `ladm check` found. `long_range` is the median focus at long range by kind, over layers and documents."""

    facts: ModelFacts
    length_tokens: int
    documents: int
    long_range: dict[str, float]
    findings: Findings
    scores: dict[str, Estimate]

    def verdict(self) -> Iterator[str]:
        """The judgement in words, a line each."""
        trained, seen = self.facts.max_tokens, self.length_tokens
        if trained is None:
            yield f"positions: the model sets no limit; it was looked at with {seen:,} tokens"
        elif 2 * seen < trained:
            yield (
                f"positions: made for {trained:,} tokens, looked at with {seen:,}; nothing here says what it does with "
                "longer rows"
            )
        else:
            yield f"positions: made for {trained:,} tokens, looked at with {seen:,}; longer rows are refused"
        falling = list(self.long_range.values())
        if all(more > less for more, less in itertools.pairwise(falling)):
            yield "figure 2: long-range attention falls with every halving of the pieces, as it should"
        elif falling[0] > max(falling[1:]):
            yield "figure 2: intact documents have the most long-range attention, the pieces are out of order"
        else:
            yield "figure 2: pasted documents have as much long-range attention as intact ones; structure is not seen"
        yield from self._by_score()

    def _by_score(self) -> Iterator[str]:
        best = max(self.scores, key=lambda name: self.scores[name].low)
        low = self.scores[best].low
        use = {
            "mean": "score as released",
            "median": "score with --reduce median",
            "profile": "calibrate it on more documents, and score with the profile: ladm calibrate",
        }[best]
        if low >= GOOD:
            yield f"verdict: fit to be a calculator; {use}"
        elif low >= FAIR:
            yield f"verdict: weak: it tells intact from pasted documents, not reliably; {use}"
        elif max(found.high for found in self.scores.values()) < FAIR:
            yield "verdict: unfit: no score separates intact from pasted documents"
        else:
            yield f"verdict: undecided: {self.documents} documents are too few to tell; give more with --rows"
        if best != "mean" and self.scores["mean"].high < self.scores[best].low:
            yield "warning: the released score, the mean over layers, is worse by more than its interval"


def check(
    settings: CheckSettings, *, echo: Echo, progress: Progress, preparing: PrepareProgress
) -> tuple[Checked, Path]:
    """Look at a model, into the folder `settings.output`; returns what was found and the picture's path.

    Raises LadmError where there are too few documents, and whatever preparing and scoring raise.
    """
    output = Path(settings.output or f"check-{Path(settings.model).name}")
    facts = model_facts(settings.model)
    open_work(output, rows=settings.rows)
    rows_name = settings.rows or _own_rows(settings, facts, output, echo=echo, progress=preparing)
    asked = CalibrateSettings(
        rows=rows_name, documents=settings.documents, seed=settings.seed, domain_key=settings.domain_key
    )
    chosen = choose_documents(open_rows(rows_name), asked, facts=facts, fewest=FEWEST)
    span_tokens = settings.span_tokens or max(1, chosen.length_tokens // SPANS_AIMED_AT)
    scoring = _score_settings(settings, facts, span_tokens, output)
    require_spans(scoring, chosen.length_tokens)
    half_of = halves(chosen.groups, seed=settings.seed)
    contrast = contrast_set(
        chosen.ids, half_of, span_tokens=span_tokens, seed=settings.seed, pieces=PIECES, degraded=False
    )
    save_contrast(contrast, output)
    run_score(scoring, echo=echo, progress=progress)
    run = Run.read(output / "run")
    measured = measure(run, contrast, num_layers=facts.num_layers, heads=False)
    findings = find(measured, objective="auc", max_cost=1.0, seed=settings.seed)
    checked = Checked(
        facts=facts,
        length_tokens=chosen.length_tokens,
        documents=len(chosen.ids),
        long_range=_long_range(run, contrast),
        findings=findings,
        scores={"profile": findings.overall["profile"], **_uncalibrated(measured, seed=settings.seed)},
    )
    picture = output / "check.png"
    _draw(checked, measured, picture)
    write_whole(output / "check.json", [json.dumps(_record(checked, settings), indent=1).encode() + b"\n"])
    return checked, picture


def _uncalibrated(measured: Measured, *, seed: int) -> dict[str, Estimate]:
    """AUC of the mean and the median over layers, on all documents."""
    return {
        how: judge(measured, everything(measured, how), measured.pasted, half=None, seed=seed)
        for how in ("mean", "median")
    }


def _own_rows(
    settings: CheckSettings, facts: ModelFacts, output: Path, *, echo: Echo, progress: PrepareProgress
) -> str:
    """The coherent ones of the documents that come with the package, as rows."""
    folder = output / "documents"
    source = folder / "coherent.jsonl"
    packed = files("ladm") / "data" / "documents.jsonl.gz"
    lines = gzip.decompress(packed.read_bytes()).splitlines(keepends=True)
    coherent = b"".join(line for line in lines if json.loads(line)["meta"]["expected"] == "coherent")
    with io_errors(folder, "create"):
        folder.mkdir(parents=True, exist_ok=True)
    if not source.exists() or source.read_bytes() != coherent:
        write_whole(source, [coherent])
    asked = PrepareSettings(
        sources=(str(source),),
        tokenizer=settings.model,
        output=str(folder / "rows"),
        length=min(settings.length, facts.max_tokens or settings.length),
    )
    prepare(asked, echo=echo, progress=progress)
    return asked.output


def _score_settings(settings: CheckSettings, facts: ModelFacts, span_tokens: int, output: Path) -> ScoreSettings:
    free = sorted(set(range(facts.num_layers)) - set(facts.windowed))
    if not free:
        raise LadmError(f"{facts.name}: every layer sees only a window; use another model")
    return ScoreSettings(
        rows=str(output / CONTRAST),
        model=settings.model,
        output=str(output / "run"),
        span_tokens=span_tokens,
        layers=",".join(map(str, free)),
        record="range",
        device=settings.device,
        dtype=settings.dtype,
    )


def _long_range(run: Run, contrast: list[Contrast]) -> dict[str, float]:
    """By kind: the median over documents of the median over layers of the focus at long range."""
    table = read_scores(run.folder, ["index", "range_per_layer"])
    kinds = [INTACT, *(f"{pieces} pieces" for pieces in PIECES)]
    by_kind: dict[str, list[float]] = {kind: [] for kind in kinds}
    for index, layers in zip(table["index"].to_pylist(), table["range_per_layer"].to_pylist(), strict=True):
        by_kind[contrast[index].kind].append(float(np.median(layers)))
    return {kind: float(np.median(values)) for kind, values in by_kind.items()}


def _record(checked: Checked, settings: CheckSettings) -> dict[str, Any]:
    return {
        "model": checked.facts.name,
        "rows": settings.rows,
        "length_tokens": checked.length_tokens,
        "documents": checked.documents,
        "long_range": checked.long_range,
        "auc": {name: [found.value, found.low, found.high] for name, found in checked.scores.items()},
        "verdict": list(checked.verdict()),
    }


def _draw(checked: Checked, measured: Measured, path: Path) -> None:
    """Two panels: the focus at long range by kind, and the AUC of every layer beside those of the three scores."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(2, 3), layout="constrained")
    left.bar(
        list(checked.long_range), list(checked.long_range.values()), color=["#1b6e9c", "#6aa5c4", "#a5c8da", "#d3e3ec"]
    )
    left.set_ylabel("median focus at long range (half the document or more)")
    left.set_title("Figure 2 of the paper, for this model")
    layers = checked.findings.layers
    x = np.arange(len(layers))
    low, high = (_distances(layers, side) for side in ("low", "high"))
    right.errorbar(x, [layer.auc.value for layer in layers], yerr=[low, high], fmt="o", color="#1b6e9c", ms=4, lw=1)
    for (name, found), style in zip(checked.scores.items(), ("-", "--", ":"), strict=True):
        right.axhline(found.value, color="#333333", lw=1, ls=style, label=f"{name}: {found.value:.2f}")
    right.axhline(0.5, color="#bbbbbb", lw=1)
    right.set_xticks(x, [layer.name for layer in layers], fontsize=7)
    right.set_xlabel("layer")
    right.set_ylabel("AUC, intact against pasted")
    right.set_title(f"{len(measured.layers)} layers, {checked.documents} documents of {checked.length_tokens:,} tokens")
    right.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _distances(layers: list[Any], side: str) -> Floats:
    return np.array([abs(layer.auc.value - getattr(layer.auc, side)) for layer in layers])
