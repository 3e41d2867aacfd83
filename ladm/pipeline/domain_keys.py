"""The domain key of a job -> the flags of `ladm prepare`, the key in the rows, and rows without a domain. No torch."""

from __future__ import annotations

from ladm.corpus.rows.domains import domains, without_domain_text
from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmError, StorageError, UsageError
from ladm.settings.common import DOMAIN_KEY, NAME_COLUMNS, NO_DOMAINS

UNKNOWN = "unknown"
"""The domain of documents that have none, where the key was found rather than given."""


def domain_flags(key: str | None) -> tuple[str, str | None]:
    """The key that `ladm prepare` looks under, and the domain of documents without it; None: they are an error."""
    # A domain that no flag says is found in the documents, or is the same for all.
    return (DOMAIN_KEY, UNKNOWN) if key in (None, NO_DOMAINS) else (key, None)


def key_in_rows(key: str | None, *, are_made_here: bool) -> str:
    """The key under which the rows of a job hold their domains. `are_made_here`: by the job, not given to it."""
    if key == NO_DOMAINS:
        return NO_DOMAINS
    return DOMAIN_KEY if are_made_here else key or DOMAIN_KEY


def require_domains(rows: str, key: str, *, domain: str | None) -> None:
    """Raise where the selection or the page would fail, for want of domains, after hours of scoring.

    `domain`: that of rows without one. UsageError for a column that a run does not repeat, LadmError for a row with
    tokens and without a domain.
    """
    if key == NO_DOMAINS:
        return
    if key.split(".")[0] not in ("meta", *NAME_COLUMNS):
        raise UsageError(
            f"--domain-key {key}: a run stores only meta, id, domain and source of the rows; give one of them, or "
            f"{NO_DOMAINS}"
        )
    opened = open_rows(rows)
    for start, stop in opened.batches():
        try:
            found = domains(opened, key, start, stop, is_optional=domain is not None)
        except StorageError:
            raise
        except LadmError as error:
            raise LadmError(f"{error}; give --domain-key the key of a domain, or {NO_DOMAINS}") from None
        if domain is not None or None not in found:
            continue
        # A row without tokens gets no score, and what has none is not selected.
        for k, num_tokens in enumerate(opened.lengths(start, stop)):
            if found[k] is None and num_tokens:
                raise LadmError(without_domain_text(start + k, rows, key))


def domains_as_before(key: str) -> str:
    """The key of the domain in a job that was started before, for people."""
    if key == NO_DOMAINS:
        return "none, as before: all documents are one domain"
    return f"{key}, as before"
