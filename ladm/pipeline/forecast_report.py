"""What a job would take -> lines to print, and the same as JSON. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ladm.corpus.preparation.prepare import PreparedRows
from ladm.corpus.preparation.report import domain_lines, preparation_lines, too_short_hint
from ladm.errors import count_of, hours_text, three_digits
from ladm.pipeline.forecast_result import Documents, Forecast, shortest_beyond_budget, wanted_and_there
from ladm.scoring.dry_run import describe
from ladm.settings.common import NO_DOMAINS


def forecast_lines(found: Forecast, job: Any) -> Iterator[str]:
    """The documents, rows and tokens, whether they fill the budget of `job`, and what scoring takes."""
    about = "" if found.is_exact else "about "
    documents = found.documents
    if documents is not None and found.length is not None:
        yield f"of {count_of(documents.looked_at, 'document')} looked at:"
        yield from preparation_lines(documents.prepared, length=found.length, windows=job.windows)
        if job.domain_key != NO_DOMAINS:
            yield from domain_lines(documents.prepared, length=found.length, other_domain=job.domain)
        if documents.without_domain:
            yield _without_domain(documents, job)
        if not found.is_exact:
            yield (
                "not counted: duplicates among the other documents, and files that cannot be read to their end, "
                "unless listed here; the run finds them and makes fewer rows"
            )
        yield f"documents: {_number_of_documents(documents, about)}"
    if found.rows is not None and found.tokens is not None:
        yield f"rows: {about}{count_of(found.rows, 'row')}, {count_of(found.tokens, 'token')}"
    yield f"budget: {_budget(found, job, about)}"
    if documents is not None and found.rows is None:
        yield f"for {count_of(documents.prepared.rows, 'row')} of the documents looked at, not for all:"
    yield from describe(found.scoring)
    if found.rows_hours:
        yield f"hours to make the rows: {about}{hours_text(found.rows_hours)} on this machine"
    if found.rows_bytes:
        size = f"{three_digits(found.rows_bytes / 2**20)} MiB"
        yield f"rows on disk: about {size}, and up to three times that while they are made"


def _without_domain(documents: Documents, job: Any) -> str:
    """How many documents the job would stop at, and what to do."""
    number, _, unit = count_of(documents.without_domain, "document").partition(" ")
    limit = "" if job.limit is None else ", unless --limit is reached first"
    return (
        f"{'no domain':<10} {number:>12}  {unit} without {job.domain_key}: the job would stop at the first one{limit}; "
        "give --domain NAME for all of them, or another --domain-key"
    )


def _number_of_documents(documents: Documents, about: str) -> str:
    where = count_of(documents.sources, "source")
    if documents.number is None:
        return f"not known in advance: {documents.uncounted} is a stream, or does not state how many it has"
    if not about:
        return f"{documents.number:,} in {where}, all of them looked at"
    part = "" if documents.sources_looked_at == documents.sources else f" of {documents.sources_looked_at:,} of them"
    return (
        f"{about}{documents.number:,} in {where}: an estimate from their sizes and "
        f"{count_of(documents.looked_at, 'document')}{part}"
    )


def _budget(found: Forecast, job: Any, about: str) -> str:
    """Whether the budget can be filled, as far as it says what fills it."""
    if job.min_score is not None:
        return f"every document with at least {job.min_score:g}; their number is known only after scoring"
    if job.top is not None:
        return f"the best {job.top:g}% of the documents"
    if isinstance(job.tokens, str):
        return f"{job.tokens} of the tokens"
    if (shortest := shortest_beyond_budget(found, job)) is not None:
        remedy = "give a larger budget" + (" or a smaller --length" if found.length is not None else "")
        return f"no row fits --tokens {job.tokens:,}: the shortest has {shortest:,} tokens; {remedy}"
    unit, wanted, there = wanted_and_there(found, job)
    if there is None:
        return f"{count_of(wanted, unit)}; whether there are that many is not known"
    pool = f"{about}{there:,} that can be selected{_limits(found, job)}"
    if there >= wanted:
        return f"{count_of(wanted, unit)}, {wanted / there:.3g} of the {pool}"
    if job.allow_small_pool:
        return f"{count_of(wanted, unit)}, more than the {pool}, so all of them are taken"
    hint = ""
    if found.documents is not None and found.length is not None:
        sample = None if found.is_exact else found.documents.looked_at
        hint = too_short_hint(found.documents.prepared, length=found.length, stored=False, looked_at=sample)
    return (
        f"{count_of(wanted, unit)} cannot be filled with the {pool}; give a smaller budget or more documents, or take "
        f"all of it with --allow-small-pool{hint}"
    )


def _limits(found: Forecast, job: Any) -> str:
    """Which limits the number that can be selected has, and which may make it smaller, in words."""
    most = found.most_per_document if found.rows != found.selectable_rows else None
    counted = "" if most is None else f" (at most {count_of(most, 'row')} of a document: --max-per-document)"
    counted += " within --max-per" if job.max_per and found.is_exact else ""
    left = ["--within"] * bool(job.within) + ["--max-per"] * bool(job.max_per and not found.is_exact)
    return counted + (f" before {' and '.join(left)} drop{'s' if len(left) == 1 else ''} any" if left else "")


def _repeated_ids(prepared: PreparedRows) -> dict[str, Any] | None:
    repeated = prepared.repeated_ids
    return None if repeated is None else {"documents": repeated.documents, "id": repeated.id}


def forecast_content(found: Forecast) -> dict[str, Any]:
    """The numbers behind the lines."""
    documents = found.documents
    return {
        "is_exact": found.is_exact,
        "documents": documents and documents.number,
        "documents_looked_at": documents and documents.looked_at,
        "counts": documents and dict(documents.prepared.counts),
        "without_domain": documents and documents.without_domain,
        "tokens_looked_at": documents and documents.prepared.tokens and documents.prepared.tokens.as_json(),
        "domains": documents and documents.prepared.domains and asdict(documents.prepared.domains),
        "copies": documents and documents.prepared.copies,
        "repeated_ids": documents and _repeated_ids(documents.prepared),
        "bad_files": documents and list(documents.prepared.bad_files.values()),
        "sources": documents and documents.sources,
        "sources_looked_at": documents and documents.sources_looked_at,
        "length": found.length,
        "rows": found.rows,
        "tokens": found.tokens,
        "selectable_rows": found.selectable_rows,
        "selectable_tokens": found.selectable_tokens,
        "fills_budget": found.fills_budget,
        "rows_bytes": found.rows_bytes,
        "rows_hours": found.rows_hours,
        "scoring": asdict(found.scoring) | {"hours": found.scoring.hours},
    }
