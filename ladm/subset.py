"""A finished run and the rows it scored -> a subset of those rows and its manifest. Imports no torch."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from ladm.errors import LadmError, StorageError, UsageError, one_line
from ladm.options import NO_DOMAINS, SelectSettings
from ladm.results import read_scores, require_finished, summarise
from ladm.rows import Rows, look_up, open_rows
from ladm.runs import Run
from ladm.selection import (
    Candidate,
    Choice,
    rank_domains,
    select_exact,
    select_percent,
    take_everything,
)
from ladm.storage import naming, sync_folder, write_whole

MANIFEST_FILE = "manifest.json"
ONE_DOMAIN = "all"
ROWS_AT_A_TIME = 10_000
_COLUMNS = ["position", "index", "chunked_index", "score", "num_tokens"]


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
    if rows.identity() != run.identity["data"]:
        raise LadmError(f"{settings.rows} are not the rows that {settings.run} scored: their content differs")
    candidates, without = _candidates(run, rows, settings.domain_key)
    ranked = rank_domains(candidates)
    shares = _shares(ranked, settings.quota)
    domains = {name: domain for name, domain in ranked.items() if shares[name]}
    percent = _choose(domains, {name: shares[name] for name in domains}, settings)
    left_out = [name for name in ranked if not shares[name]]
    manifest = _manifest(settings, run, domains, without=without, left_out=left_out, percent=percent)
    if not settings.dry_run:
        _write(output, rows, domains, manifest)
    return manifest


def _candidates(run: Run, rows: Rows, domain_key: str) -> tuple[list[Candidate], Counter[str]]:
    """The rows with a score, in the order of the data, and the count of the others by reason."""
    scores = read_scores(run.folder, _COLUMNS).sort_by("position").to_pylist()
    candidates: list[Candidate] = []
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        stop = min(start + ROWS_AT_A_TIME, len(rows))
        domains = _domains(rows, domain_key, start, stop)
        while len(candidates) < len(scores) and scores[len(candidates)]["position"] < stop:
            found = scores[len(candidates)]
            candidates.append(_candidate(found, domains[found["position"] - start], rows, run, domain_key))
    if not candidates:
        raise LadmError(f"{run.folder}: no document has a score")
    return candidates, summarise(run).errors


def _candidate(found: dict[str, Any], domain: str | None, rows: Rows, run: Run, domain_key: str) -> Candidate:
    if domain is None:
        raise LadmError(
            f"row {found['position']} of {rows.name} has no {domain_key}; give --domain-key the key that it "
            f"has, or {NO_DOMAINS} to rank all documents together"
        )
    if found["score"] is None or not math.isfinite(found["score"]):
        raise StorageError(f"{run.folder} is damaged: row {found['position']} has the score {found['score']}")
    return Candidate(domain=domain, **found)


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
        return {name: len(domain.ranked) for name, domain in domains.items()}
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
    without: Counter[str],
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
        "taken_documents": sum(len(domain.taken) for domain in domains.values()),
        "pool_tokens": sum(domain.pool_tokens for domain in domains.values()),
        "pool_documents": sum(len(domain.ranked) for domain in domains.values()),
        "without_score": dict(sorted(without.items())),
        "domains_left_out": left_out,
        "domains": {
            name: {
                "pool_documents": len(domain.ranked),
                "pool_tokens": domain.pool_tokens,
                "quota_tokens": domain.quota,
                "taken_documents": len(domain.taken),
                "taken_tokens": domain.taken_tokens,
                "lowest_score_taken": min((c.score for c in domain.taken), default=None),
            }
            for name, domain in domains.items()
        },
        "run": {key: run.identity[key] for key in ("settings", "layers", "model", "data", "dtype")},
    }


def _write(output: Path, rows: Rows, domains: Choice, manifest: dict[str, Any]) -> None:
    """The chosen rows in the order of the data, all columns kept; whole or not at all."""
    positions = sorted(candidate.position for domain in domains.values() for candidate in domain.taken)
    partial = output.with_name(output.name + ".partial")
    with naming(output, "write"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        rows.save_subset(positions, partial)
        write_whole(partial / MANIFEST_FILE, [json.dumps(manifest, indent=1, ensure_ascii=False).encode() + b"\n"])
        if output.exists():
            output.rmdir()
        partial.rename(output)
        sync_folder(output.parent)
