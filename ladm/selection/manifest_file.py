"""`SUBSET/manifest.json`: the manifest of a subset, written, and read with every field checked. Imports no torch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ladm.errors import LadmError, UsageError, one_line
from ladm.runs.columns.joined_files import JoinedFileManifest
from ladm.selection.guarding import GuardManifest
from ladm.selection.id_lists import IdListManifest
from ladm.selection.limits import CapManifest
from ladm.selection.manifest import MANIFEST_FILE, OF_DOMAINS, OF_VALUES, ChosenRows, DomainManifest, Manifest
from ladm.settings.guards import Guard, parse_guard
from ladm.storage.files import write_whole
from ladm.storage.json_object import chunks_with_checksum, read_json_object

MOST_BYTES = 1 << 34
"""A manifest names every chosen row."""
_CHOSEN = b',\n "chosen": ['
"""Where the rows begin, behind everything else."""
_NOTHING = type(None)
_Kinds = dict[str, tuple[type, ...]]
"""The types that each field may have."""
_FIRST: _Kinds = {
    "rule": (str,),
    "quota": (str, _NOTHING),
    "percent": (int, _NOTHING),
    "domain_key": (str,),
    "budget_tokens": (int, _NOTHING),
    "taken_tokens": (int,),
    "taken_documents": (int,),
    "pool_tokens": (int,),
    "pool_documents": (int,),
    "without_score": (dict,),
    "domains_left_out": (list,),
    "domains": (dict,),
    "run": (dict,),
}
"""Fields that every manifest has."""
_LATER: _Kinds = {
    "domain": (str, _NOTHING),
    "max_per_document": (int, _NOTHING),
    "beyond_max_per_document": (int,),
    "max_per": (list,),
    "repeating_windows": (int,),
    "copies": (int, _NOTHING),
    "unscored_rows": (int,),
    "excluded_domains": (dict,),
    "id_lists": (list,),
    "outside_only_ids": (int,),
    "budget_documents": (int, _NOTHING),
    "min_score": (float, int, _NOTHING),
    "by": (str,),
    "without_value": (int,),
    "guards": (list,),
    "sample": (dict, _NOTHING),
    "other_runs": (list,),
    "joined_runs": (dict,),
    "joined_columns": (dict,),
    "joined_files": (dict,),
    "quota_weights": (dict, _NOTHING),
    "profile": (dict, _NOTHING),
    "command": (str,),
    "format": (str,),
}
"""Fields that older manifests lack, where they have their defaults, and their types. Written only where they differ."""
_ALWAYS = ("by", "command", "format")
"""Those of them that are always written."""
_DOMAIN: _Kinds = {
    "pool_documents": (int,),
    "pool_tokens": (int,),
    "quota_tokens": (int, _NOTHING),
    "taken_documents": (int,),
    "taken_tokens": (int,),
    "lowest_score_taken": (float, int, _NOTHING),
    "quota_documents": (int, _NOTHING),
}
_GUARD: _Kinds = {
    "given": (str,),
    "column": (str,),
    "low": (float, int, _NOTHING),
    "high": (float, int, _NOTHING),
    "dropped": (dict,),
    "without_value": (int,),
    OF_DOMAINS: (dict, _NOTHING),
}
_ID_LIST: _Kinds = dict.fromkeys(("option", "file", "xxh3_128"), (str,)) | dict.fromkeys(
    ("ids", "of_no_row", "documents"), (int,)
)
_JOINED_FILE: _Kinds = dict.fromkeys(("file", "xxh3_128"), (str,)) | dict.fromkeys(("ids", "of_no_row", "rows"), (int,))
_PROFILE: _Kinds = dict.fromkeys(("file", "xxh3_128"), (str,))
_CAP: _Kinds = {"column": (str,)} | dict.fromkeys(("most", "left_out", "without_value"), (int,))


def write_manifest(folder: Path, manifest: Manifest, chosen: Iterable[ChosenRows]) -> None:
    """Write the manifest of the subset in `folder`, with what was chosen from each run."""
    write_whole(folder / MANIFEST_FILE, chunks_with_checksum(_json(manifest, chosen)))


def _json(manifest: Manifest, chosen: Iterable[ChosenRows]) -> Iterator[bytes]:
    """The file without its end, which has the checksum."""
    content = manifest.as_json()
    for name, default in _defaults().items():
        if content[name] == default and name not in _ALWAYS:
            del content[name]
    for domain in content["domains"].values():
        if domain["quota_documents"] is None:
            del domain["quota_documents"]
    # Names of domains stay readable in any script.
    yield json.dumps(content, indent=1, ensure_ascii=False).removesuffix("\n}").encode()
    yield _CHOSEN
    for k, each in enumerate(chosen):
        yield b',\n  {"data": ' if k else b'\n  {"data": '
        yield json.dumps(each.data).encode()
        for name, parts in (("positions", each.positions), ("ids", each.ids)):
            yield f', "{name}": ['.encode()
            # A batch at a time, because a subset may have tens of millions of rows.
            for number, part in enumerate(parts):
                text = json.dumps(part, ensure_ascii=False)[1:-1]
                yield (", " if number else "").encode() + text.encode(errors="replace")
            yield b"]"
        yield b"}"
    yield b"\n ]"


def command_of(lines: Iterable[bytes]) -> str | None:
    """The command in a manifest, of which only the lines before the chosen rows are read; None if it is no manifest."""
    command = head_of(lines).get("command")
    return command if isinstance(command, str) else None


def head_of(lines: Iterable[bytes]) -> dict[str, Any]:
    """All that a manifest has before the chosen rows, unchecked; nothing where it is no manifest."""
    head = list(itertools.takewhile(lambda line: not line.startswith(_CHOSEN.lstrip(b",\n")), lines))
    try:
        content = json.loads(b"".join(head).rstrip().removesuffix(b",") + b"}")
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the subset in `folder`. Raises as `read_manifest_and_chosen`."""
    return read_manifest_and_chosen(folder)[0]


def read_manifest_and_chosen(folder: Path) -> tuple[Manifest, Any]:
    """The same, and the rows that it lists, run by run as `ChosenRows` has them; unchecked, and None where it has none.

    Raises LadmError where there is none, or another file by its name; StorageError for one that cannot be read.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        raise LadmError(f"{folder} is not a subset of ladm select: it has no {MANIFEST_FILE}")
    try:
        content = read_json_object(path, most_bytes=MOST_BYTES)
        return _manifest(content), content.get("chosen")
    except ValueError as error:
        raise LadmError(f"{path} is not a manifest of ladm select: {one_line(error)}") from None


def _manifest(content: dict[str, Any]) -> Manifest:
    """The manifest with this content. Raises ValueError for a field that is missing or of another type."""
    first, later = _fields(content, _FIRST), _fields(_defaults() | content, _LATER)
    first["domains"] = {name: _domain(domain) for name, domain in first["domains"].items()}
    later |= {
        "guards": [_guard(guard) for guard in later["guards"]],
        "id_lists": [IdListManifest(**_fields(each, _ID_LIST)) for each in later["id_lists"]],
        "max_per": [CapManifest(**_fields(each, _CAP)) for each in later["max_per"]],
        "joined_files": {name: _joined_file(each) for name, each in later["joined_files"].items()},
    }
    if later["quota_weights"] is not None:
        _fields(later["quota_weights"], dict.fromkeys(later["quota_weights"], (int, float)))
    if later["profile"] is not None:
        later["profile"] = _fields(later["profile"], _PROFILE)
    return Manifest(**first, **later)


def _defaults() -> dict[str, Any]:
    """The defaults of the fields that older manifests lack."""
    return {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in fields(Manifest)
        if each.name in _LATER
    }


def _domain(content: Any) -> DomainManifest:
    return DomainManifest(**_fields(_with_default(content, "quota_documents"), _DOMAIN))


def _guard(content: Any) -> GuardManifest:
    found = _fields(_with_default(content, OF_DOMAINS), _GUARD)
    if found[OF_DOMAINS] is not None and not _is_by_domain(found["given"]):
        raise ValueError(f"{OF_DOMAINS} is there for {found['given']!r}")
    found |= {name: _named(content[name]) for name in OF_VALUES if name in content}
    return GuardManifest(**found)


def _is_by_domain(given: str) -> bool:
    try:
        guard = parse_guard(given)
    except UsageError:
        return False
    return isinstance(guard, Guard) and guard.by_domain


def _joined_file(content: Any) -> JoinedFileManifest:
    with_value = _field(content, "with_value", dict)
    counts = _fields(with_value, dict.fromkeys(with_value, (int,)))
    return JoinedFileManifest(**_fields(content, _JOINED_FILE), with_value=counts)


def _named(content: Any) -> list[Any]:
    """The values of a guard: texts, and the two ends of a range, of which one may be null."""
    ends = (str, _NOTHING)
    for value in content if isinstance(content, list) else [None]:
        is_range = isinstance(value, list) and len(value) == 2 and all(isinstance(end, ends) for end in value)
        if not (isinstance(value, str) or is_range):
            raise ValueError(f"the values of a guard are {content!r}")
    return list(content)


def _with_default(content: Any, name: str) -> Any:
    """The content with None for a field that is only written where it has a value."""
    return {name: None} | content if isinstance(content, dict) else content


def _fields(content: Any, kinds: _Kinds) -> dict[str, Any]:
    """These fields of the content. Raises ValueError for one that is missing or of another type."""
    return {name: _field(content, name, *allowed) for name, allowed in kinds.items()}


def _field(content: Any, name: str, *kinds: type) -> Any:
    if not isinstance(content, dict) or name not in content:
        raise ValueError(f"{name} is missing")
    # To Python, True is an int.
    if not isinstance(content[name], kinds) or isinstance(content[name], bool):
        raise ValueError(f"{name} is {content[name]!r}")
    return content[name]
