"""The first documents -> an error with the keys there are, where --text-key, --domain-key or --id-key fits none.

Or a warning, where --domain names documents that have a domain under a key that is not looked at, and a hint at a key
that looks like an id.

Imports no torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from ladm.corpus.documents.carried_columns import domain_keys_of, domain_of, first_domain, id_of, parsed_meta
from ladm.corpus.documents.reading import read_documents
from ladm.corpus.documents.sources import Source
from ladm.corpus.files.meta import value_at
from ladm.corpus.files.other_stages import first_with_token_ids, ids_without_texts
from ladm.errors import LadmError, StorageError
from ladm.settings.data import PrepareSettings

DOCUMENTS_TRIED = 1000
_KEYS_SHOWN = 30
_LIKELY_KEYS = ("meta.domain", "pile_set_name")
"""Keys that hold a domain and hardly anything else."""
_LIKELY_IDS = ("doc_id", "docid", "document_id", "uuid", "guid", "record_id", "warc-record-id", "warc_record_id", "url")
_LOOKED_AT = 100
"""Documents in which such a key is looked for."""
_REMEDIES = {
    "text": "--text-key one of them",
    "domain": "--domain-key one of them, or --domain a name for all documents without one",
    "id": "--id-key one of them",
}
"""By what documents must have, the most important first."""


def require_keys(settings: PrepareSettings, sources: list[Source]) -> str | None:
    """Read until a document with a text, one with a domain and one with an id have been seen, most often one document.

    Returns a hint at the key of its id where the first document has none under the default key.
    Raises LadmError where the first 1,000 have no text under --text-key, no domain under --domain-key, or no id under
    an --id-key other than the default.
    """
    domain_keys = domain_keys_of(settings.domain_key)
    needed = {"text"}
    if settings.other_domain is None:
        needed.add("domain")
    # The default is looked for in every corpus, and many have no ids.
    if settings.id_key != PrepareSettings.id_key:
        needed.add("id")
    missing = {"text": settings.text_key, "domain": settings.domain_key, "id": settings.id_key}
    keys: dict[str, None] = {}
    hint, seen = None, 0
    # Lines that are no object count too: of standard input no more than the first 1,000 lines can be read again.
    for fields in islice(_fields(settings, sources), DOCUMENTS_TRIED):
        if fields is None:
            continue
        if not seen:
            hint = _hint_at_ids(fields, settings.id_key)
        seen += 1
        keys |= dict.fromkeys(keys_of(fields))
        if value_at(fields, settings.text_key) is not None:
            needed.discard("text")
        # A meta that is nested too deep is dropped where rows are made.
        with contextlib.suppress(RecursionError):
            meta = parsed_meta(fields)
            if first_domain(fields, meta, domain_keys)[0] is not None:
                needed.discard("domain")
            missing["domain"] = name_of_domain_keys(fields, meta, domain_keys)
        if id_of(fields, settings.id_key) is not None:
            needed.discard("id")
        elif value_at(fields, settings.id_key) is not None:
            missing["id"] = f"{settings.id_key} that is a text or a whole number"
        if not needed:
            return hint
    if not seen:
        return None
    if "text" in needed:
        with_ids = first_with_token_ids(each.name for each in sources if each.kind == "parquet")
        if with_ids is not None:
            raise LadmError(ids_without_texts(with_ids, settings.text_key))
    first = next(each for each in _REMEDIES if each in needed)
    found = f"the only document has no {missing[first]}"
    if seen > 1:
        found = f"none of the first {seen:,} documents has {missing[first]}"
    raise LadmError(f"{found}; the keys are {list_keys(keys)}: give {_REMEDIES[first]}")


def replaced_domains(settings: PrepareSettings, sources: list[Source]) -> str | None:
    """A warning where --domain names all documents, although they may have domains; None where it does not.

    --domain is for documents without a domain. With no --domain-key those of most corpora have none: the default is the
    key of the published data, and a column `domain`. A key that was given may be misspelt.
    """
    domain_keys = domain_keys_of(settings.domain_key)
    if settings.domain is None or not domain_keys:
        return None
    found, seen, keys = None, 0, dict[str, None]()
    for fields in islice(_fields(settings, sources), _LOOKED_AT):
        if fields is None:
            continue
        seen += 1
        with contextlib.suppress(RecursionError):
            meta = parsed_meta(fields)
            if first_domain(fields, meta, domain_keys)[0] is not None:
                return None
            keys |= dict.fromkeys(keys_of(fields))
            found = found or _likely_domain(fields, meta)
    names = " or ".join(domain_keys)
    if settings.domain_key != PrepareSettings.domain_key:
        which = f"documents get the domain {settings.domain} (--domain), because none of the first {seen:,}"
        return f"{which} has {names} (--domain-key); the keys are {list_keys(list(keys))}" if seen else None
    if found is None:
        return None
    key, value = found
    return (
        f"all documents get the domain {settings.domain} (--domain), because none of them has {names} (--domain-key); "
        f"to use their {key}, such as {value}, give --domain-key {key}; --domain is then for those without one"
    )


def _hint_at_ids(fields: dict[str, Any], id_key: str) -> str | None:
    """A line where the document has no id under the default key, but one under a usual other key."""
    if id_key != PrepareSettings.id_key or id_of(fields, id_key) is not None:
        return None
    for key in keys_of(fields):
        own = id_of(fields, key) if key.rpartition(".")[2].lower() in _LIKELY_IDS else None
        if own is not None:
            example = " ".join(own.split())[:40]
            return f"no {id_key} found, but {key}, such as {example}; to store it with the scores, give --id-key {key}"
    return None


def _likely_domain(fields: dict[str, Any], meta: dict[str, Any] | None) -> tuple[str, str] | None:
    """The likeliest key of a domain in this document, and what it holds, cut to 40 characters."""
    for key in _LIKELY_KEYS:
        domain = domain_of(fields, meta, key)
        if domain is not None:
            return key, " ".join(domain.split())[:40]
    return None


def name_of_domain_keys(fields: dict[str, Any], meta: dict[str, Any] | None, keys: tuple[str, ...]) -> str:
    """What a document without a domain lacks: the keys, or a text under them where it has null, a list or an object."""
    everything = fields if meta is None else fields | {"meta": meta}
    names = " or ".join(keys)
    if any(value_at(everything, key) is not None for key in keys):
        return f"{names} that is a text or a number"
    there = set(keys_of(everything))
    return f"{names} other than null" if any(key in there for key in keys) else names


def _fields(settings: PrepareSettings, sources: list[Source]) -> Iterator[dict[str, Any] | None]:
    for source in sources:
        documents = read_documents(source, text_key=settings.text_key)
        while True:
            try:
                document = next(documents, None)
            # A torn file is reported, and counted, where it is read for its rows.
            except StorageError:
                break
            if document is None:
                break
            yield document.fields


def list_keys(keys: Iterable[str]) -> str:
    """The first of the keys, for an error; `none` where there are none."""
    return ", ".join(islice(dict.fromkeys(keys), _KEYS_SHOWN)) or "none"


def keys_of(fields: dict[str, Any]) -> Iterator[str]:
    """`url` and, for what is in an object, `meta.title`."""
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield name
