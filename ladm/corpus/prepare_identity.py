"""What rows are made with, as `prepare.json` records it, and the refusal of a resume with something else.

Imports no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ladm.corpus.sources import Source
from ladm.corpus.tokenization import Tokenizer
from ladm.settings.data import PrepareSettings
from ladm.settings.fields import settings_of
from ladm.storage.identity import require_same

_LATER_FIELDS = ("hub_config", "split", "token_count_key")
"""Left out at their defaults, as in the records of versions that did not have them."""


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
    loaded: dict[str, Any] = json.loads(json.dumps(content))
    return loaded


def with_digest_of_today(had: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """A record, in which the SHA-256 of this tokenizer by an earlier version is that of today."""
    recorded = had["tokenizer"]
    if tokenizer.is_of_digest(recorded["sha256"]):
        return had | {"tokenizer": recorded | {"sha256": tokenizer.record()["sha256"]}}
    return had


def require_same_preparation(folder: Path, had: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise LadmError with the flags that differ, and every field of the record that does."""
    before, after = _by_name(_with_keys_of_today(had, now), now["sources"])
    require_same(folder, had | {"sources": before}, now | {"sources": after}, name_of_field=_flag_of_field)


def _by_name(had: list[Any], now: list[Any]) -> tuple[Any, Any]:
    """Two lists of sources as what each source is by its name, so that of thousands those are named that differ."""
    before, after = ({each["name"]: _in_words(each) for each in sources} for sources in (had, now))
    if before == after:
        # Their order alone may differ, or, of two parts of a data set, which have one name, a part.
        pairs = enumerate(zip_longest(had, now), 1)
        return next(
            (({f"number {k}": one}, {f"number {k}": other}) for k, (one, other) in pairs if one != other), ({}, {})
        )
    names = dict.fromkeys([*before, *after])
    return {name: before.get(name, "absent") for name in names}, {name: after.get(name, "absent") for name in names}


def _in_words(source: dict[str, Any]) -> str:
    """What is recorded of a source beside its name; of a file `35 bytes of 2026-11-28 06:14:03`, in UTC."""
    others = [str(value) for name, value in source.items() if name not in ("name", "key")]
    size, _, changed = source["key"].partition(" ")
    try:
        date = datetime.fromtimestamp(float(changed), tz=UTC)
        return " ".join([*others, f"{int(size):,} bytes of {date:%Y-%m-%d %H:%M:%S}.{date.microsecond:06}"])
    except (ValueError, OverflowError, OSError):
        # That of an address or of a data set is a digest.
        return " ".join([*others, source["key"]])


def _with_keys_of_today(had: dict[str, Any], now: dict[str, Any]) -> list[Any]:
    """The sources of a record; those saved data sets of which an earlier version stored no key have that of today."""
    keys = {source["name"]: source["key"] for source in now["sources"] if source["kind"] == "dataset"}
    return [
        source | {"key": keys.get(source["name"], "")} if source["kind"] == "dataset" and not source["key"] else source
        for source in had["sources"]
    ]


def _flag_of_field(field: str) -> str:
    """What a person changed to change a field of the record: `tokenizer.bos` -> `--bos`."""
    if field.partition(".")[0] == "sources":
        return "sources"
    name = "bos" if field == "tokenizer.bos" else field.partition(".")[0]
    flags = {each.name: each.flag for each in settings_of(PrepareSettings)}
    return flags.get(name, field)
