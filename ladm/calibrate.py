"""Rows and a model -> a profile: a contrast set is made of the rows, scored with all layers, and judged.

The contrast set and its run stay in a folder beside the profile, so that a stopped calibration goes on.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladm.calibration import FEW_DOCUMENTS, WITH_SIGMA, WITHOUT_SIGMA, Measured, reduction_of
from ladm.config import score_settings
from ladm.contrast import DEGRADED_EVERY, FEWEST_DOCUMENTS, INTACT, Contrast, contrast_set, halves
from ladm.errors import LadmError, RowError, UsageError
from ladm.findings import Findings, find
from ladm.models import model_facts
from ladm.options import CalibrateSettings
from ladm.profiles import METHOD_KEYS, Profile, profile_text
from ladm.results import columns_of, read_scores
from ladm.rows import Ids, Rows, look_up, open_rows, token_ids
from ladm.runs import Run
from ladm.score import Echo, Progress
from ladm.score import score as run_score
from ladm.settings import ScoreSettings
from ladm.storage import naming, write_whole

SPANS_AIMED_AT = 256
ROWS_AT_A_TIME = 10_000


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The documents that a contrast set is made of, all cut to the same length."""

    ids: list[Ids]
    groups: list[str]
    length_tokens: int


def calibrate(settings: CalibrateSettings, *, echo: Echo, progress: Progress) -> Findings:
    """Find the layers to score with and write them to `settings.output`.

    Raises LadmError where there are too few documents, and whatever scoring raises.
    """
    output = Path(settings.output)
    work = output.with_suffix(".calibration") if settings.work is None else Path(settings.work)
    if output.exists():
        raise LadmError(f"{output} exists already; give --output another name")
    facts = model_facts(settings.model)
    chosen = choose_documents(open_rows(settings.rows), settings, vocab_size=facts.vocab_size)
    span_tokens = settings.span_tokens or max(1, chosen.length_tokens // SPANS_AIMED_AT)
    half_of = halves(chosen.groups, seed=settings.seed)
    contrast = contrast_set(chosen.ids, half_of, span_tokens=span_tokens, seed=settings.seed)
    asked = _score_settings(settings, span_tokens=span_tokens, work=work)
    if asked.ablation != "none":
        raise UsageError(f"--config {settings.config}: ablation {asked.ablation}; calibration tries both forms itself")
    echo(
        f"contrast  {len(contrast):,} rows of {chosen.length_tokens:,} tokens from {len(chosen.ids):,} documents, "
        f"kept in {work}"
    )
    if len(chosen.ids) < FEW_DOCUMENTS:
        echo(f"warning   {len(chosen.ids)} documents are few: at least {FEW_DOCUMENTS} make intervals that decide")
    save_contrast(contrast, work / "rows")
    run_score(asked, echo=echo, progress=progress)
    run = Run.read(work / "run")
    measured = measure(run, contrast, num_layers=facts.num_layers, heads=settings.heads)
    findings = find(measured, objective=settings.objective, max_cost=settings.max_cost, seed=settings.seed)
    write_whole(output, [profile_text(_profile(settings, run, chosen, measured, findings)).encode()])
    return findings


def choose_documents(
    rows: Rows, settings: CalibrateSettings, *, vocab_size: int, fewest: int = FEWEST_DOCUMENTS
) -> Chosen:
    """A draw of documents of the length that most rows have, longer ones cut to it, of the domains that are wanted.

    Rows that are not ids of the model's vocabulary are passed over.

    Raises LadmError where there are too few, UsageError for a domain to exclude that no row is of.
    """
    lengths = np.where(_wanted(rows, settings), rows.lengths(), 0)
    found, counts = np.unique(lengths[lengths > 0], return_counts=True)
    length = int(found[len(counts) - 1 - counts[::-1].argmax()]) if len(found) else 0
    fit = np.flatnonzero(lengths >= max(length, 1))
    chosen: dict[int, tuple[Ids, str]] = {}
    for position in np.random.default_rng(settings.seed).permutation(fit):
        if len(chosen) < settings.documents:
            (row,) = rows.read(position, position + 1)
            with contextlib.suppress(RowError):
                chosen[position] = token_ids(row, vocab_size=vocab_size)[:length], str(row.index)
    if len(chosen) < fewest:
        raise LadmError(f"{rows.name}: {len(chosen)} documents of {length:,} tokens, and at least {fewest} are needed")
    documents = [chosen[position] for position in sorted(chosen)]
    return Chosen(ids=[ids for ids, _ in documents], groups=[group for _, group in documents], length_tokens=length)


def _wanted(rows: Rows, settings: CalibrateSettings) -> npt.NDArray[np.bool_]:
    """Which rows are of no excluded domain."""
    if not settings.exclude_domains:
        return np.ones(len(rows), dtype=bool)
    column, *path = settings.domain_key.split(".")
    domains: list[str | None] = []
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        stop = min(start + ROWS_AT_A_TIME, len(rows))
        domains += [look_up(value, path) for value in rows.column(column, start, stop)]
    for domain in settings.exclude_domains:
        if domain not in domains:
            raise UsageError(f"--exclude-domain {domain}: no row of {rows.name} is of it")
    return np.array([domain not in settings.exclude_domains for domain in domains])


def save_contrast(contrast: list[Contrast], folder: Path) -> None:
    """Write the rows as `ladm score` reads them, anew each time; the run's identity says whether they are the same."""
    from datasets import Dataset

    partial = folder.with_name(folder.name + ".partial")
    columns = {
        "input_ids": [row.ids for row in contrast],
        "index": list(range(len(contrast))),
        "meta": [{"kind": row.kind, "half": row.half, "document": row.document} for row in contrast],
    }
    with naming(folder, "write"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in (partial, folder):
            shutil.rmtree(left, ignore_errors=True)
        Dataset.from_dict(columns).save_to_disk(str(partial))
        partial.rename(folder)


def _score_settings(settings: CalibrateSettings, *, span_tokens: int, work: Path) -> ScoreSettings:
    return score_settings(
        settings.config,
        {
            "rows": str(work / "rows"),
            "model": settings.model,
            "output": str(work / "run"),
            "span_tokens": span_tokens,
            "layers": settings.layers,
            "record": "forms",
            "device": settings.device,
            "dtype": settings.dtype,
            "batch_size": settings.batch_size,
        },
    )


def measure(run: Run, contrast: list[Contrast], *, num_layers: int, heads: bool) -> Measured:
    """The finished run of a contrast set as numbers. Rows without a score are left out."""
    name = "cds_per_head" if heads else "cds_per_layer"
    kept = {form: column for form, column in _columns(name).items() if column in columns_of(run.folder)}
    table = read_scores(run.folder, ["index", *kept.values()])
    found = [contrast[index] for index in table["index"].to_pylist()]
    cds = {form: np.array(table[column].to_pylist(), dtype=np.float64) for form, column in kept.items()}
    layers = tuple(run.identity["layers"])
    if not any(row.kind == INTACT for row in found):
        raise LadmError(f"{run.folder}: no intact document has a score; its errors.jsonl says why")
    return Measured(
        kinds=np.array([row.kind for row in found]),
        halves=np.array([row.half for row in found]),
        cds=cds,
        layers=layers,
        num_layers=num_layers,
        num_heads=cds[WITH_SIGMA].shape[1] // len(layers) if heads else None,
    )


def _columns(name: str) -> dict[str, str]:
    return {WITH_SIGMA: name, WITHOUT_SIGMA: f"{name}_no_std"}


def _profile(settings: CalibrateSettings, run: Run, chosen: Chosen, measured: Measured, findings: Findings) -> Profile:
    identity = run.identity
    return Profile(
        model=identity["model"],
        settings={key: identity["settings"][key] for key in METHOD_KEYS} | {"ablation": findings.recommended.form},
        length_tokens=chosen.length_tokens,
        reduction=reduction_of(measured, findings.recommended),
        found={
            "documents": len(chosen.ids),
            "degraded_every": DEGRADED_EVERY,
            "seed": settings.seed,
            "objective": settings.objective,
            "dtype": identity["dtype"],
            "data": identity["data"]["xxh3_128"],
            **json.loads(json.dumps(findings.summary())),
        },
    )
