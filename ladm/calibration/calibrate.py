"""Rows and a model -> a profile: a contrast set is made of the rows, scored with all layers, and judged.

The contrast set and its run stay in a folder beside the profile, so that a stopped calibration goes on.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladm.calibration.candidates import FEW_DOCUMENTS, WITH_SIGMA, WITHOUT_SIGMA, Measured
from ladm.calibration.contrast import DEGRADED_EVERY, FEWEST_DOCUMENTS, INTACT, PASTED, Contrast, contrast_set, halves
from ladm.calibration.findings import Findings, find
from ladm.corpus.rows import Ids, Rows, commonest, look_up, open_rows, token_ids
from ladm.errors import LadmError, RowError, UsageError
from ladm.method.grid import METHOD_FIELDS
from ladm.method.reduction import kept_column
from ladm.modeling.facts import ModelFacts, model_facts
from ladm.progress import Echo, Progress
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, read_scores
from ladm.scoring.score import score as run_score
from ladm.settings.commands import CalibrateSettings
from ladm.settings.config_file import read_config
from ladm.settings.profiles import Profile, profile_text
from ladm.settings.score import ScoreSettings, parse_layers
from ladm.storage.files import io_errors, write_whole

SPANS_AIMED_AT = 256
CONTRAST, MARK = "contrast", ".ladm-calibration"
CONFIGURED = ("layers", "dtype", "device", "batch_size", "attention", "backend")
"""What `--config` may set beside the method; what steers a run is not for the contrast set's."""
FEWEST_OF_A_KIND = 6
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
    if output.exists():
        raise LadmError(f"{output} exists already; give --output another name")
    work = work_folder(settings)
    facts = model_facts(settings.model)
    layers = facts.choose_layers(parse_layers(settings.layers))
    if min(layers) + 1 > settings.most_cost * facts.num_layers:
        raise UsageError(f"no layer ends within {settings.most_cost:g} of a forward pass; allow more with --max-cost")
    chosen = choose_documents(open_rows(settings.rows), settings, facts=facts)
    asked = _score_settings(settings, chosen, work=work)
    open_work(work, rows=settings.rows)
    half_of = halves(chosen.groups, seed=settings.seed)
    contrast = contrast_set(chosen.ids, half_of, span_tokens=asked.span_tokens, seed=settings.seed)
    echo(
        f"contrast  {len(contrast):,} rows of {chosen.length_tokens:,} tokens from {len(chosen.ids):,} documents, "
        f"kept in {work}"
    )
    if len(chosen.ids) < FEW_DOCUMENTS:
        echo(f"warning   {len(chosen.ids)} documents are few: at least {FEW_DOCUMENTS} make intervals that decide")
    save_contrast(contrast, work)
    run_score(asked, echo=echo, progress=progress)
    run = Run.read(work / "run")
    measured = measure(run, contrast, num_layers=facts.num_layers, heads=settings.heads)
    findings = find(measured, objective=settings.objective, max_cost=settings.most_cost, seed=settings.seed)
    with io_errors(output, "write"):
        output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, [profile_text(_profile(settings, run, chosen, findings)).encode()])
    return findings


def work_folder(settings: CalibrateSettings) -> Path:
    """Where the contrast set and its run are kept: beside the profile, where the user does not say."""
    if settings.work is not None:
        return Path(settings.work)
    output = Path(settings.output)
    stem = output.with_suffix("") if output.suffix in (".yaml", ".yml") else output
    return stem.with_name(f"{stem.name}.calibration")


def choose_documents(
    rows: Rows, settings: CalibrateSettings, *, facts: ModelFacts, fewest: int = FEWEST_DOCUMENTS
) -> Chosen:
    """A draw of documents of one length, longer ones cut to it, of the domains that are wanted.

    The length is the one that most rows have; where rows are too different for that, the longest that
    enough of them reach; and never more than the model has positions for. Rows that are not ids of the
    model's vocabulary are passed over.

    Raises LadmError where there are too few, UsageError for a domain to exclude that no row is of.
    """
    lengths = np.where(_wanted(rows, settings), rows.lengths(), 0)
    length = min(_common_length(lengths, settings.documents), facts.max_tokens or sys.maxsize)
    fit = np.flatnonzero(lengths >= max(length, 1))
    chosen: dict[int, tuple[Ids, str]] = {}
    for position in np.random.default_rng(settings.seed).permutation(fit):
        if len(chosen) < settings.documents:
            (row,) = rows.read(position, position + 1)
            with contextlib.suppress(RowError):
                chosen[position] = token_ids(row, vocab_size=facts.vocab_size)[:length], str(row.index)
    if len(chosen) < fewest:
        raise LadmError(f"{rows.name}: {len(chosen)} documents of {length:,} tokens, and at least {fewest} are needed")
    documents = [chosen[position] for position in sorted(chosen)]
    return Chosen(ids=[ids for ids, _ in documents], groups=[group for _, group in documents], length_tokens=length)


def _common_length(lengths: npt.NDArray[np.int64], documents: int) -> int:
    """The commonest length where at least half of the rows have it, else the longest that `documents` rows reach."""
    lengths = np.sort(lengths[lengths > 0])[::-1]
    if not len(lengths):
        return 0
    most = commonest(lengths)
    if 2 * int((lengths == most).sum()) >= len(lengths):
        return most
    return int(lengths[min(documents, len(lengths)) - 1])


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


def open_work(work: Path, *, rows: str | None) -> None:
    """Make the folder of a calibration or check, or accept one that is. Raises LadmError for any other folder."""
    if (work / MARK).exists():
        return
    if rows is not None and work.resolve() in (Path(rows).resolve(), *Path(rows).resolve().parents):
        raise LadmError(f"{work} holds the rows {rows} themselves; give the work another folder")
    others = sorted(path.name for path in work.iterdir()) if work.is_dir() else []
    if others:
        raise LadmError(f"{work} belongs to something else (it holds {others[0]}); give the work an empty folder")
    with io_errors(work, "create"):
        work.mkdir(parents=True, exist_ok=True)
    write_whole(work / MARK, [b"The work of ladm calibrate or ladm check; it can be removed.\n"])


def save_contrast(contrast: list[Contrast], work: Path) -> None:
    """Write the rows to `work`/contrast as `ladm score` reads them, or leave those there that are the same.

    Raises LadmError where others are there.
    """
    from datasets import Dataset

    folder, partial = work / CONTRAST, work / f"{CONTRAST}.partial"
    columns = {
        "input_ids": [row.ids for row in contrast],
        "index": list(range(len(contrast))),
        "meta": [{"kind": row.kind, "half": row.half, "document": row.document} for row in contrast],
    }
    with io_errors(folder, "write"):
        if partial.exists():
            shutil.rmtree(partial)
        Dataset.from_dict(columns).save_to_disk(str(partial))
        if folder.exists():
            if open_rows(str(folder)).identity() != open_rows(str(partial)).identity():
                raise LadmError(f"{work} was begun with other documents or another seed; remove it, or give another")
            shutil.rmtree(partial)
        else:
            partial.rename(folder)


def _score_settings(settings: CalibrateSettings, chosen: Chosen, *, work: Path) -> ScoreSettings:
    """Those of the contrast set's run: the method from `--config`, everything else from here."""
    config = {} if settings.config is None else read_config(Path(settings.config))
    if "profile" in config or config.get("ablation", "none") != "none":
        raise UsageError(f"--config {settings.config}: a profile or an ablation; calibration finds the form itself")
    used = {name: value for name, value in config.items() if name in (*METHOD_FIELDS, *CONFIGURED)}
    flags = {
        "rows": str(work / CONTRAST),
        "model": settings.model,
        "output": str(work / "run"),
        "span_tokens": settings.span_tokens,
        "layers": settings.layers,
        "record": "forms",
        "device": settings.device,
        "dtype": settings.dtype,
        "batch_size": settings.batch_size,
    }
    used |= {name: value for name, value in flags.items() if value is not None}
    used.setdefault("span_tokens", max(1, chosen.length_tokens // SPANS_AIMED_AT))
    asked = ScoreSettings(**used)
    require_spans(asked, chosen.length_tokens)
    return asked


def require_spans(settings: ScoreSettings, length_tokens: int) -> None:
    """Raise UsageError when documents of this length leave nothing to score, or not the same in both forms."""
    forms = (WITH_SIGMA, WITHOUT_SIGMA) if settings.record == "forms" else (settings.ablation,)
    grids = [replace(settings.method, ablation=form).grid(length_tokens) for form in forms]
    if not grids[0].J:
        raise UsageError(
            f"spans of {settings.span_tokens} tokens leave none to score in {length_tokens:,} tokens; give a smaller "
            "--span-tokens or longer documents"
        )
    if grids[-1].J != grids[0].J:
        raise UsageError("with these spans the forms with and without sigma score different ones; give another n0")


def measure(run: Run, contrast: list[Contrast], *, num_layers: int, heads: bool) -> Measured:
    """The finished run of a contrast set as numbers. Rows without a score are left out.

    Raises LadmError when too few of a kind have one.
    """
    there = columns_of(run.folder)
    columns, head_columns = (
        {form: kept_column(heads=by_head, second_form=form == WITHOUT_SIGMA) for form in (WITH_SIGMA, WITHOUT_SIGMA)}
        for by_head in (False, True)
    )
    kept = {form: column for form, column in columns.items() if column in there}
    table = read_scores(run.folder, ["index", *kept.values(), *(head_columns[form] for form in kept if heads)])
    found = [contrast[index] for index in table["index"].to_pylist()]
    for kind in dict.fromkeys(row.kind for row in contrast if row.kind == INTACT or row.kind in PASTED):
        for half in (0, 1):
            count = sum((row.kind, row.half) == (kind, half) for row in found)
            if count < FEWEST_OF_A_KIND:
                raise LadmError(
                    f"{count} rows of {kind} in one half have a score, and at least {FEWEST_OF_A_KIND} are needed; "
                    f"{run.folder / 'errors.jsonl'} says why"
                )
    read = {form: np.array(table[column].to_pylist(), dtype=np.float64) for form, column in kept.items()}
    by_head = {form: np.array(table[head_columns[form]].to_pylist(), dtype=np.float64) for form in kept if heads}
    layers = run.identity.layers
    return Measured(
        kinds=np.array([row.kind for row in found]),
        halves=np.array([row.half for row in found]),
        documents=np.array([row.document for row in found]),
        cds=read,
        by_head=by_head,
        layers=layers,
        num_layers=num_layers,
        num_heads=by_head[WITH_SIGMA].shape[1] // len(layers) if heads else None,
    )


def _profile(settings: CalibrateSettings, run: Run, chosen: Chosen, findings: Findings) -> Profile:
    identity = run.identity
    return Profile(
        model=identity.model,
        method=replace(identity.method, ablation=findings.recommended.form),
        length_tokens=chosen.length_tokens,
        reduction=findings.reduction,
        found={
            "documents": len(chosen.ids),
            "degraded_every": DEGRADED_EVERY,
            "seed": settings.seed,
            "objective": settings.objective,
            "dtype": identity.dtype,
            "data": identity.data["xxh3_128"],
            **findings.summary(),
        },
    )
