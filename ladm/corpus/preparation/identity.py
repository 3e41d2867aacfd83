"""What rows are made with, as `prepare.json` records it, and the refusal of a resume with something else.

Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ladm.corpus.documents.carried_columns import domain_keys_of
from ladm.corpus.documents.missing_sources import are_there, without_documents
from ladm.corpus.documents.sources import Source
from ladm.corpus.preparation.tokenization import Tokenizer
from ladm.settings.data import PrepareSettings
from ladm.settings.fields import settings_of
from ladm.storage.identity import CHANGED_REMEDY, require_same

_LATER_FIELDS = ("hub_config", "split", "token_count_key")
"""Left out at their defaults, as in the records of versions that did not have them."""
_DOMAIN_KEYS = "domain_keys"
_SOURCES_SHOWN = 5
"""Of those that a refusal names; a folder may have many thousands."""


def identity_of(settings: PrepareSettings, sources: list[Source], tokenizer: Tokenizer) -> dict[str, Any]:
    """What the rows are made with, as JSON gives it back; a resume must be the same."""
    content = asdict(settings) | {
        "output": None,
        # How many torn files are too many does not change a row, nor does the number of threads.
        "max_bad_files": None,
        "sources": [source.record() for source in sources],
        "tokenizer": tokenizer.record(),
    }
    for name in _LATER_FIELDS:
        if getattr(settings, name) == getattr(PrepareSettings, name):
            del content[name]
    del content["num_proc"]
    domain_keys = domain_keys_of(settings.domain_key)
    if domain_keys != (settings.domain_key,):
        content[_DOMAIN_KEYS] = domain_keys
    loaded: dict[str, Any] = json.loads(json.dumps(content))
    return loaded


def with_present_tokenizer_name(had: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """The record `had`; where it is of this very tokenizer, with the present name: its folder may have been moved."""
    recorded, now = had["tokenizer"], tokenizer.record()
    return had | {"tokenizer": recorded | {"name": now["name"]}} if recorded["sha256"] == now["sha256"] else had


def require_same_preparation(
    folder: Path, had: dict[str, Any], now: dict[str, Any], *, use_rows: str | None = None
) -> None:
    """Raise LadmError with the flags that differ, and every field of the record that does.

    `use_rows`: the command that goes on with rows that are finished.
    """
    before, after = names_of_sources(had), names_of_sources(now)
    # Rows of one corpus answer no question about another; a corpus that was only moved is no longer where it was.
    if set(before).isdisjoint(after) and are_there(before):
        use_rows = None
    require_same(
        folder, had, now, name_of_field=_flag_of_field, remedy=partial(_remedy, use_rows=use_rows),
        in_words={"sources": _changes_of_sources},
    )  # fmt: skip


def _remedy(names: tuple[str, ...], *, use_rows: str | None) -> str:
    """What to do. A corpus that grew needs no new scores for the documents that it had before."""
    if "sources" not in names:
        return CHANGED_REMEDY
    # Rows of other flags are not the ones that are wanted.
    finished = "" if use_rows is None or names != ("sources",) else f"{without_documents(use_rows)}; or "
    return (
        f"{finished}{CHANGED_REMEDY}. To add documents later, score them in a run of their own, and select from both: "
        "ladm select RUN RUN2 --tokens N -o SUBSET"
    )


def _changes_of_sources(had: Any, now: Any) -> Iterator[str]:
    """A line for each of the first files and data sets that changed, went or came, and one for the others."""
    before, after = ({_name_of(source): source for source in sources} for sources in (had, now))
    lines = [
        f"{name} has changed: {_in_words(before[name])} before, {_in_words(source)} now"
        for name, source in after.items() if name in before and before[name] != source
    ]  # fmt: skip
    lines += [f"{name} was a source before, and is not now" for name in before if name not in after]
    lines += [f"{name} is new" for name in after if name not in before]
    yield from lines[:_SOURCES_SHOWN]
    if len(lines) > _SOURCES_SHOWN:
        yield f"and {len(lines) - _SOURCES_SHOWN:,} more"
    if not lines:
        names = zip(before, after, strict=True)
        number, (one, other) = next(found for found in enumerate(names, 1) if found[1][0] != found[1][1])
        yield f"the same files in another order: number {number} was {one}, now {other}"


def names_of_sources(record: dict[str, Any]) -> list[str]:
    """The paths and addresses of the sources in a record, which may be damaged."""
    sources = record.get("sources")
    return [str(each.get("name")) for each in sources if isinstance(each, dict)] if isinstance(sources, list) else []


def _name_of(source: dict[str, Any]) -> str:
    """The name of a source, with the part of a data set that was named."""
    return " ".join([source["name"], *(source[part] for part in ("config", "split") if part in source)])


def _in_words(source: dict[str, Any]) -> str:
    """What is recorded of a source beside its name; of a file `35 bytes of 2026-11-28 06:14:03`, in UTC."""
    size, _, changed = source["key"].partition(" ")
    try:
        date = datetime.fromtimestamp(float(changed), tz=UTC)
        content = f"{int(size):,} bytes of {date:%Y-%m-%d %H:%M:%S}.{date.microsecond:06}"
    except (ValueError, OverflowError, OSError):
        # That of an address or of a data set is a digest.
        content = source["key"]
    return f"{source['kind']} {content}"


def _flag_of_field(field: str) -> str:
    """What a person changed to change a field of the record: `tokenizer.bos` -> `--bos`."""
    if field == "sources":
        return "sources"
    name = {"tokenizer.bos": "bos", _DOMAIN_KEYS: "domain_key"}.get(field) or field.partition(".")[0]
    flags = {each.name: each.flag for each in settings_of(PrepareSettings)}
    return flags.get(name, field)
