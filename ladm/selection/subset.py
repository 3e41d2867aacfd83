"""A finished run and the rows it scored -> a subset of those rows and its manifest. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from ladm.corpus.rows import Rows, look_up, open_rows
from ladm.errors import LadmError, StorageError, UsageError, one_line
from ladm.runs.folder import MANIFEST_FILE, Run
from ladm.runs.results import require_finished, score_batches, summarise
from ladm.selection.budget import Choice, DomainChoice, select_exact, select_percent, take_everything
from ladm.settings.commands import NO_DOMAINS, ONE_DOMAIN, SelectSettings
from ladm.storage.files import io_errors, sync_folder, sync_tree, write_whole

ROWS_AT_A_TIME = 10_000
_COLUMNS = ["position", "num_tokens", "score"]


def select(settings: SelectSettings) -> dict[str, Any]:
    """Choose documents and, unless it is a dry run, write them with their manifest; returns the manifest.

    Raises LadmError for an unfinished run, for rows that are not the run's, and for a pool smaller
    than the budget; StorageError for a damaged run.
    """
    run = Run.read(Path(settings.run))
    require_finished(run)
    output = Path(settings.output)
    if not settings.dry_run and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise LadmError(f"{output} exists already; give --output another folder")
    rows = open_rows(settings.rows, limit=run.num_rows)
    if rows.identity() != run.identity.data:
        raise LadmError(f"{settings.rows} are not the rows that {settings.run} scored: their content differs")
    with _work_folder(output, dry_run=settings.dry_run) as work:
        ranked = _ranked(run, rows, settings.domain_key, Path(work))
        shares = _shares(ranked, settings.quota)
        domains = {name: domain for name, domain in ranked.items() if shares[name]}
        percent = _choose(domains, {name: shares[name] for name in domains}, settings)
        left_out = [name for name in ranked if not shares[name]]
        manifest = _manifest(settings, run, domains, left_out=left_out, percent=percent)
        if not settings.dry_run:
            _write(output, rows, domains, manifest)
    return manifest


@contextlib.contextmanager
def _work_folder(output: Path, *, dry_run: bool) -> Iterator[str]:
    """Beside the subset, where there is room for far more than this; elsewhere when nothing is to be written there."""
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="ladm-select-") as work:
            yield work
        return
    with io_errors(output.parent, "write in"):
        output.parent.mkdir(parents=True, exist_ok=True)
        work = tempfile.mkdtemp(prefix=f".{output.name}.ranking-", dir=output.parent)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _ranked(run: Run, rows: Rows, domain_key: str, work: Path) -> Choice:
    """The rows with a score by domain, in the order of the domains' names, each best first.

    `scores.parquet` has the order already. The columns are files in `work`, 28 bytes a row, so that
    memory does not grow with the run.

    Raises LadmError for a row without a domain, StorageError for a score that is none or out of order.
    """
    names, codes_T = _domain_codes(rows, domain_key, work)
    counts = np.zeros(len(names), dtype=np.int64)
    nowhere, before = sys.maxsize, math.inf
    for positions, _, scores in _score_batches(run):
        wrong = ~np.isfinite(scores)
        if wrong.any():
            k = int(wrong.argmax())
            raise StorageError(f"{run.folder} is damaged: row {positions[k]} has the score {scores[k]}")
        if scores[0] > before or (np.diff(scores) > 0).any():
            raise StorageError(f"{run.folder} is damaged: its scores are not in order")
        before = scores[-1]
        codes = codes_T[positions]
        nowhere = min([nowhere, *positions[codes < 0]])
        counts += np.bincount(codes[codes >= 0], minlength=len(names))
    if nowhere < sys.maxsize:
        raise LadmError(
            f"row {nowhere} of {rows.name} has no {domain_key}; give --domain-key the key that it has, or {NO_DOMAINS} "
            "to rank all documents together"
        )
    if not counts.sum():
        raise LadmError(f"{run.folder}: no document has a score")
    positions, tokens, scores = _by_domain(run, codes_T, counts, work)
    stops = np.cumsum(counts).tolist()
    parts = {name: slice(start, stop) for name, start, stop in zip(names, [0, *stops], stops, strict=False)}
    return {
        name: DomainChoice(positions=positions[part], num_tokens=tokens[part], scores=scores[part])
        for name, part in sorted(parts.items())
        if part.stop > part.start
    }


def _domain_codes(rows: Rows, domain_key: str, work: Path) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The domains that there are, and for every row the number of its own; -1: none."""
    numbers: dict[str, int] = {}
    codes_T = _on_disk(work / "domains", "i4", len(rows))
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        stop = min(start + ROWS_AT_A_TIME, len(rows))
        found = _domains(rows, domain_key, start, stop)
        codes_T[start:stop] = [-1 if d is None else numbers.setdefault(d, len(numbers)) for d in found]
    return list(numbers), codes_T


def _on_disk(path: Path, kind: str, length: int) -> npt.NDArray[Any]:
    """An array in a new file, whose place on the disk is taken now rather than found missing later."""
    with io_errors(path, "write"), path.open("wb") as file:
        size = length * np.dtype(kind).itemsize
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, dtype=kind, mode="r+", shape=length)


def _score_batches(run: Run) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    for batch in score_batches(run.folder, _COLUMNS):
        yield tuple(batch[name].to_numpy(zero_copy_only=False) for name in _COLUMNS)


def _by_domain(
    run: Run, codes_T: npt.NDArray[np.int32], counts: npt.NDArray[np.int64], work: Path
) -> tuple[npt.NDArray[Any], ...]:
    """`_COLUMNS` in which the rows of a domain stand together, domain by domain, their order kept."""
    n = int(counts.sum())
    columns = tuple(_on_disk(work / name, kind, n) for name, kind in zip(_COLUMNS, ("i8", "i8", "f8"), strict=True))
    free = np.cumsum(counts) - counts
    for batch in _score_batches(run):
        codes = codes_T[batch[0]]
        order = np.argsort(codes, kind="stable")
        here = np.bincount(codes, minlength=len(counts))
        first = np.cumsum(here) - here
        places = free[codes[order]] + np.arange(len(order)) - first[codes[order]]
        for column, values in zip(columns, batch, strict=True):
            column[places] = values[order]
        free += here
    return columns


def _domains(rows: Rows, domain_key: str, start: int, stop: int) -> list[str | None]:
    if domain_key == NO_DOMAINS:
        return [ONE_DOMAIN] * (stop - start)
    column, *path = domain_key.split(".")
    return [look_up(value, path) for value in rows.column(column, start, stop)]


Shares = Mapping[str, int | float | Fraction]


def _shares(domains: Choice, quota: str) -> Shares:
    """In what proportion the domains share the budget."""
    if quota == "tokens":
        return {name: domain.pool_tokens for name, domain in domains.items()}
    if quota == "documents":
        return {name: len(domain) for name, domain in domains.items()}
    return _read_weights(Path(quota), domains)


def _read_weights(path: Path, domains: Choice) -> dict[str, Fraction]:
    """A YAML mapping of domain to weight; it must name exactly the domains of the pool."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--quota {path} is neither tokens, documents nor a file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--quota {path} is not YAML: {one_line(error)}") from None
    if not isinstance(loaded, dict) or not loaded:
        raise UsageError(f"--quota {path} must hold a weight for every domain, such as ArXiv: 2")
    for name, weight in loaded.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise UsageError(f"--quota {path}: the weight of {name} is {weight}, not a number of at least 0")
    weights = {str(name): Fraction(weight) for name, weight in loaded.items()}
    for name in domains:
        if name not in weights:
            raise UsageError(f"--quota {path} has no weight for {name}; give it 0 to leave it out")
    for name in weights:
        if name not in domains:
            raise UsageError(f"--quota {path}: no document of the pool is of {name}")
    if not any(weights.values()):
        raise UsageError(f"--quota {path}: every weight is 0")
    return weights


def _choose(domains: Choice, shares: Shares, settings: SelectSettings) -> int | None:
    if settings.rule == "percent":
        return select_percent(domains, budget_tokens=settings.tokens, allow_small_pool=settings.allow_small_pool)
    pool = sum(domain.pool_tokens for domain in domains.values())
    rule = take_everything if settings.allow_small_pool and pool < settings.tokens else select_exact
    rule(domains, budget_tokens=settings.tokens, shares=shares)
    return None


def _manifest(
    settings: SelectSettings,
    run: Run,
    domains: Choice,
    *,
    left_out: list[str],
    percent: int | None,
) -> dict[str, Any]:
    return {
        "rule": settings.rule,
        "quota": settings.quota if settings.rule == "exact" else None,
        "percent": percent,
        "domain_key": settings.domain_key,
        "budget_tokens": settings.tokens,
        "taken_tokens": sum(domain.taken_tokens for domain in domains.values()),
        "taken_documents": sum(domain.taken_documents for domain in domains.values()),
        "pool_tokens": sum(domain.pool_tokens for domain in domains.values()),
        "pool_documents": sum(len(domain) for domain in domains.values()),
        "without_score": dict(sorted(summarise(run).errors.items())),
        "domains_left_out": left_out,
        "domains": {
            name: {
                "pool_documents": len(domain),
                "pool_tokens": domain.pool_tokens,
                "quota_tokens": domain.quota,
                "taken_documents": domain.taken_documents,
                "taken_tokens": domain.taken_tokens,
                "lowest_score_taken": domain.lowest_score_taken,
            }
            for name, domain in domains.items()
        },
        "run": run.identity.for_manifest(),
    }


def _write(output: Path, rows: Rows, domains: Choice, manifest: dict[str, Any]) -> None:
    """The chosen rows in the order of the data, all columns kept; whole or not at all."""
    positions = np.sort(np.concatenate([domain.taken_positions for domain in domains.values()]))
    partial = output.with_name(output.name + ".partial")
    with io_errors(output, "write"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        rows.save_subset(positions, partial)
        sync_tree(partial)
        write_whole(partial / MANIFEST_FILE, [json.dumps(manifest, indent=1, ensure_ascii=False).encode() + b"\n"])
        if output.exists():
            output.rmdir()
        partial.rename(output)
        sync_folder(output.parent)
