"""What was selected, from which run and by which rule: the content of `SUBSET/manifest.json`. Imports no torch.

`ladm select` writes it and `ladm report` reads it (`manifest_file`); the keys of the file are the fields below.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ladm.errors import count_of
from ladm.runs.columns.joined_files import JoinedFileManifest
from ladm.runs.rows_of_run import partial_coverage_line
from ladm.selection.guarding import GuardManifest
from ladm.selection.id_lists import IdListManifest
from ladm.selection.limits import CapManifest

MANIFEST_FILE = "manifest.json"
OF_VALUES = ("kept", "left_out")
"""Fields of a guard of values, which has one of them."""
OF_DOMAINS = "limits_by_domain"
"""A field of a guard whose quantiles are those of each domain."""


@dataclass(frozen=True, kw_only=True)
class ChosenRows:
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
    domain: str | None = None
    """The domain of rows without one; None, and then not in the file, where every row had to have one."""
    max_per_document: int | None = None
    """Rows of one document at most; None, and then not in the file, where all could be chosen."""
    beyond_max_per_document: int = 0
    """Rows that could not be selected, because others of their document rank higher."""
    max_per: list[CapManifest] = field(default_factory=list)
    """The caps of --max-per, in their order."""
    repeating_windows: int = 0
    """Rows that could not be selected, because more than half of each is in a row of its document that ranks higher."""
    copies: int | None = None
    """Rows that could not be selected because they repeat another, of their data set or of an earlier run; None, and
    then not in the file, where none do."""
    unscored_rows: int = 0
    """Rows of the data sets beyond those that the runs scored, as `ladm score --limit` leaves them."""
    excluded_domains: dict[str, int] = field(default_factory=dict)
    """Domains that were left out as if they were not there, with their documents that have a score."""
    id_lists: list[IdListManifest] = field(default_factory=list)
    """The lists of --exclude-ids, then those of --only-ids."""
    outside_only_ids: int = 0
    """Documents with a score that no list of --only-ids has."""
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
    """Of each column that is not the run's own the XXH3-128 of its numbers for all rows, as float64, by run."""
    joined_files: dict[str, JoinedFileManifest] = field(default_factory=dict)
    """Each file whose columns were used, by the name that it was given."""
    quota_weights: dict[str, int | float] | None = None
    """The weights in the file of `quota`; None, and then not in the file, where `quota` is no file."""
    profile: dict[str, str] | None = None
    """`file` and `xxh3_128` of the profile whose band a guard has; None, and then not in the file, without one."""
    command: str = ""

    def as_json(self) -> dict[str, Any]:
        """All fields; of a guard those of values and of domains only where it has some."""
        content = asdict(self)
        for guard in content["guards"]:
            for name in (*OF_VALUES, OF_DOMAINS):
                if guard[name] is None:
                    del guard[name]
        return content

    @property
    def partial(self) -> str | None:
        """A line to print where the runs had only the first of their rows."""
        if not self.unscored_rows:
            return None
        runs = (self.run, *self.other_runs)
        scored = sum(run.get("part", run["data"])["rows"] for run in runs)
        are_first = not any("part" in run for run in runs)
        return partial_coverage_line(scored, scored + self.unscored_rows, are_first=are_first)

    @property
    def is_cut(self) -> bool:
        """Was everything in a domain taken from some value of `by` upwards, except for a last gap?"""
        # Copies, documents outside of the lists of ids, and more rows of a document or of a value than were wanted, are
        # left out above the lowest value that was taken.
        is_guarded = self.guards or self.id_lists or self.copies or self.max_per
        return not is_guarded and self.sample is None and self.max_per_document is None

    @property
    def budget_text(self) -> str:
        """How much was to be selected, in words."""
        if self.min_score is not None:
            return f"everything of at least {self.min_score:g}"
        if self.budget_documents is not None:
            return f"a budget of {count_of(self.budget_documents, 'document')}"
        return f"a budget of {self.budget_tokens:,} tokens"
