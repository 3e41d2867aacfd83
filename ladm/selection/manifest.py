"""`SUBSET/manifest.json`: what was selected, from which run and by which rule. Imports no torch.

`ladm select` writes it and `ladm report` reads it; the keys of the file are the fields below.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ladm.errors import LadmError, count_of, one_line
from ladm.runs.rows_of_run import partial_coverage_line
from ladm.selection.guarding import GuardManifest
from ladm.storage.files import write_whole
from ladm.storage.json_object import chunks_with_checksum, read_json_object

MANIFEST_FILE = "manifest.json"
MOST_BYTES = 1 << 34
"""A manifest names every chosen row."""
_CHOSEN = b',\n "chosen": ['
"""Where the rows begin, behind everything else."""
_NOTHING = type(None)
_LATER: dict[str, tuple[type, ...]] = {
    "max_per_document": (int, _NOTHING),
    "beyond_max_per_document": (int,),
    "copies": (int, _NOTHING),
    "unscored_rows": (int,),
    "excluded_domains": (dict,),
    "budget_documents": (int, _NOTHING),
    "min_score": (float, int, _NOTHING),
    "by": (str,),
    "without_value": (int,),
    "guards": (list,),
    "sample": (dict, _NOTHING),
    "other_runs": (list,),
    "joined_runs": (dict,),
    "joined_columns": (dict,),
    "command": (str,),
    "format": (str,),
}
"""Fields that older manifests lack, where they have their defaults, and their types. Written only where they differ."""
_ALWAYS = ("by", "command", "format")
"""Those of them that are always written."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The rows chosen from one run, in the order of the subset, in batches."""

    data: dict[str, Any]
    """Number and digest of the rows that the run scored."""
    positions: Iterable[list[int]]
    ids: Iterable[list[Any]]
    """Their `id`, or `index` where they have none, or position."""


@dataclass(frozen=True, kw_only=True)
class DomainManifest:
    """One domain: its documents with a score (the pool), and what was taken of them."""

    pool_documents: int
    pool_tokens: int
    quota_tokens: int | None
    """None where the budget is not counted in tokens, and under the percent rule, which has no quotas."""
    taken_documents: int
    taken_tokens: int
    lowest_score_taken: float | None
    """The lowest value of `by` among what was taken; None where nothing was."""
    quota_documents: int | None = None
    """Where the budget is a number of documents, or a share of them."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of a manifest."""

    rule: str
    """`exact` or `percent`."""
    quota: str | None
    """`tokens`, `documents` or the file of weights; None where there are no quotas."""
    percent: int | None
    """Under the percent rule, how many percent of every domain were taken."""
    domain_key: str
    budget_tokens: int | None
    """None where the budget is another: a number of documents, a share of them, or a threshold."""
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
    beyond_max_per_document: int = 0
    """Rows that could not be selected, because others of their document rank higher."""
    copies: int | None = None
    """Rows that could not be selected because they repeat another; None, and then not in the file, where none do."""
    unscored_rows: int = 0
    """Rows of the data sets beyond those that the runs scored, as `ladm score --limit` leaves them."""
    excluded_domains: dict[str, int] = field(default_factory=dict)
    """Domains that were left out as if they were not there, with their documents that have a score."""
    format: str = "arrow"
    """How the rows are stored: `arrow`, `parquet`, `jsonl`, `megatron` or `npy`."""
    budget_documents: int | None = None
    min_score: float | None = None
    by: str = "score"
    """The column or expression that documents were ranked by."""
    without_value: int = 0
    """Documents with a score and without a value of `by`, which could not be selected."""
    guards: list[GuardManifest] = field(default_factory=list)
    sample: dict[str, Any] | None = None
    """`temperature` and `seed`, where documents were drawn by chance."""
    other_runs: list[dict[str, Any]] = field(default_factory=list)
    """As `run`, of the second run and those after it."""
    joined_runs: dict[str, Any] = field(default_factory=dict)
    """As `run`, of each run whose columns were used beside those of the run, by the name that it was given."""
    joined_columns: dict[str, list[str]] = field(default_factory=dict)
    """Of each column of the rows and of joined runs the XXH3-128 of its numbers for all rows, as float64, by run."""
    command: str = ""

    @property
    def partial(self) -> str | None:
        """A line for people where the runs had only the first of their rows."""
        if not self.unscored_rows:
            return None
        scored = sum(run["data"]["rows"] for run in (self.run, *self.other_runs))
        return partial_coverage_line(scored, scored + self.unscored_rows)

    @property
    def is_cut_of_scores(self) -> bool:
        """Is what was taken of a domain everything from some score on, but for a last gap?"""
        return self.by == "score" and self.is_cut

    @property
    def is_cut(self) -> bool:
        """The same of the values of `by`."""
        # Copies, and more rows of a document than were wanted, are left out above the lowest value that was taken.
        return not self.guards and self.sample is None and self.max_per_document is None and not self.copies

    @property
    def budget_text(self) -> str:
        """How much was to be selected, in words."""
        if self.min_score is not None:
            return f"everything of at least {self.min_score:g}"
        if self.budget_documents is not None:
            return f"a budget of {count_of(self.budget_documents, 'document')}"
        return f"a budget of {self.budget_tokens:,} tokens"

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Manifest:
        """The manifest with this content. Raises ValueError for a field that is missing or of another type."""
        number, optional_number = (int,), (int, type(None))
        return cls(
            rule=_field(content, "rule", str),
            quota=_field(content, "quota", str, type(None)),
            percent=_field(content, "percent", *optional_number),
            domain_key=_field(content, "domain_key", str),
            budget_tokens=_field(content, "budget_tokens", *optional_number),
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
                    quota_documents=_field({"quota_documents": None} | domain, "quota_documents", *optional_number),
                )
                for name, domain in _field(content, "domains", dict).items()
            },
            run=_field(content, "run", dict),
            **_later_fields(content),
        )


def _later_fields(content: dict[str, Any]) -> dict[str, Any]:
    """The fields that are in a file only where they say something."""
    whole = _defaults() | content
    found = {name: _field(whole, name, *kinds) for name, kinds in _LATER.items()}
    return found | {"guards": [_guard(guard) for guard in found["guards"]]}


def _defaults() -> dict[str, Any]:
    """The defaults of those fields."""
    return {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in fields(Manifest)
        if each.name in _LATER
    }


def _guard(content: Any) -> GuardManifest:
    limit = (float, int, type(None))
    return GuardManifest(
        given=_field(content, "given", str),
        column=_field(content, "column", str),
        low=_field(content, "low", *limit),
        high=_field(content, "high", *limit),
        dropped=_field(content, "dropped", dict),
        without_value=_field(content, "without_value", int),
    )


def _field(content: Any, name: str, *kinds: type) -> Any:
    if not isinstance(content, dict) or name not in content:
        raise ValueError(f"{name} is missing")
    # To Python, True is an int.
    if not isinstance(content[name], kinds) or isinstance(content[name], bool):
        raise ValueError(f"{name} is {content[name]!r}")
    return content[name]


def write_manifest(folder: Path, manifest: Manifest, chosen: Iterable[Chosen] = ()) -> None:
    """Write the manifest of the subset in `folder`, with what was chosen from each run."""
    write_whole(folder / MANIFEST_FILE, chunks_with_checksum(_json(manifest, chosen)))


def _json(manifest: Manifest, chosen: Iterable[Chosen]) -> Iterator[bytes]:
    """The file without its end, which has the checksum."""
    content = asdict(manifest)
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
    head = list(itertools.takewhile(lambda line: not line.startswith(_CHOSEN.lstrip(b",\n")), lines))
    try:
        content = json.loads(b"".join(head).rstrip().removesuffix(b",") + b"}")
        return _field(content, "command", str)  # type: ignore[no-any-return]
    except (ValueError, RecursionError):
        return None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the subset in `folder`. Raises as `read_manifest_and_chosen`."""
    return read_manifest_and_chosen(folder)[0]


def read_manifest_and_chosen(folder: Path) -> tuple[Manifest, Any]:
    """The same, and the rows that it lists, run by run as `Chosen` has them; unchecked, and None where it has none.

    Raises LadmError where there is none, or another file by its name; StorageError for one that cannot be read.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        raise LadmError(f"{folder} is not a subset of ladm select: it has no {MANIFEST_FILE}")
    try:
        content = read_json_object(path, most_bytes=MOST_BYTES)
        return Manifest.from_json(content), content.get("chosen")
    except ValueError as error:
        raise LadmError(f"{path} is not a manifest of ladm select: {one_line(error)}") from None
