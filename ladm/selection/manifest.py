"""`SUBSET/manifest.json`: what was selected, from which run and by which rule. Imports no torch.

`ladm select` writes it and `ladm report` reads it; the keys of the file are the fields below.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ladm.errors import LadmError, one_line
from ladm.storage.files import write_whole
from ladm.storage.json_object import read_json_object

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class DomainManifest:
    """One domain: its documents with a score (the pool), and what was taken of them."""

    pool_documents: int
    pool_tokens: int
    quota_tokens: int | None
    """None under the percent rule, which has no quotas."""
    taken_documents: int
    taken_tokens: int
    lowest_score_taken: float | None
    """None where nothing was taken."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of a manifest."""

    rule: str
    """`exact` or `percent`."""
    quota: str | None
    """`tokens`, `documents` or the file of weights; None under the percent rule."""
    percent: int | None
    """Under the percent rule, how many percent of every domain were taken."""
    domain_key: str
    budget_tokens: int
    taken_tokens: int
    taken_documents: int
    pool_tokens: int
    pool_documents: int
    without_score: dict[str, int]
    """Rows that could not be selected because they have no score, counted by reason."""
    domains_left_out: list[str]
    """Domains with the weight 0."""
    domains: dict[str, DomainManifest]
    run: dict[str, Any]
    """`RunIdentity.for_manifest` of the run that was selected from."""
    max_per_document: int | None = None
    """Rows of one document at most; None, and then not in the file, where all could be chosen."""
    copies: int | None = None
    """Rows that could not be selected because they repeat another; None, and then not in the file, where none do."""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Manifest:
        """The manifest with this content. Raises ValueError for a field that is missing or of another type."""
        number, optional_number = (int,), (int, type(None))
        return cls(
            rule=_field(content, "rule", str),
            quota=_field(content, "quota", str, type(None)),
            percent=_field(content, "percent", *optional_number),
            domain_key=_field(content, "domain_key", str),
            budget_tokens=_field(content, "budget_tokens", *number),
            taken_tokens=_field(content, "taken_tokens", *number),
            taken_documents=_field(content, "taken_documents", *number),
            pool_tokens=_field(content, "pool_tokens", *number),
            pool_documents=_field(content, "pool_documents", *number),
            without_score=_field(content, "without_score", dict),
            domains_left_out=_field(content, "domains_left_out", list),
            domains={
                name: DomainManifest(
                    pool_documents=_field(domain, "pool_documents", *number),
                    pool_tokens=_field(domain, "pool_tokens", *number),
                    quota_tokens=_field(domain, "quota_tokens", *optional_number),
                    taken_documents=_field(domain, "taken_documents", *number),
                    taken_tokens=_field(domain, "taken_tokens", *number),
                    lowest_score_taken=_field(domain, "lowest_score_taken", float, *optional_number),
                )
                for name, domain in _field(content, "domains", dict).items()
            },
            run=_field(content, "run", dict),
            max_per_document=_field({"max_per_document": None} | content, "max_per_document", *optional_number),
            copies=_field({"copies": None} | content, "copies", *optional_number),
        )


def _field(content: Any, name: str, *kinds: type) -> Any:
    if not isinstance(content, dict) or name not in content:
        raise ValueError(f"{name} is missing")
    # To Python, True is an int.
    if not isinstance(content[name], kinds) or isinstance(content[name], bool):
        raise ValueError(f"{name} is {content[name]!r}")
    return content[name]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of the subset in `folder`."""
    # Names of domains stay readable in any script.
    fields = {
        name: value
        for name, value in asdict(manifest).items()
        if value is not None or name not in ("max_per_document", "copies")
    }
    content = json.dumps(fields, indent=1, ensure_ascii=False)
    write_whole(folder / MANIFEST_FILE, [content.encode() + b"\n"])


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the subset in `folder`.

    Raises LadmError where there is none, or another file by its name; StorageError for one that cannot be read.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        raise LadmError(f"{folder} is not a subset of ladm select: it has no {MANIFEST_FILE}")
    try:
        return Manifest.from_json(read_json_object(path))
    except ValueError as error:
        raise LadmError(f"{path} is not a manifest of ladm select: {one_line(error)}") from None
