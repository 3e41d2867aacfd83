"""Rows -> the documents that a contrast set is made of: one length, wanted domains, drawn by a seed."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.calibration.contrast import MIN_DOCUMENTS
from ladm.corpus.files.id_columns import commonest
from ladm.corpus.rows.domains import all_domains, has_column_of
from ladm.corpus.rows.excluded_domains import require_domains_exist
from ladm.corpus.rows.reading import Rows
from ladm.corpus.rows.row import Ids, token_ids
from ladm.corpus.rows.window_documents import documents_of_windows
from ladm.errors import LadmError, RowError, UsageError, count_of
from ladm.modeling.facts import ModelFacts
from ladm.settings.calibration import CalibrateSettings, CheckSettings


@dataclass(frozen=True, kw_only=True)
class DocumentSample:
    """Documents of one length, in the order of the rows.

    `groups` has for each the name of its document, and `packages` that of its source.
    """

    ids: list[Ids]
    groups: list[str]
    packages: list[str]
    length_tokens: int


def sample_rows(
    rows: Rows,
    lists: Rows | None,
    settings: CalibrateSettings | CheckSettings,
    *,
    facts: ModelFacts,
    exclude_domains: tuple[str, ...] = (),
    min_documents: int = MIN_DOCUMENTS,
) -> tuple[DocumentSample, ListSample]:
    """The documents and the lists of a contrast set; see `sample_documents` and `sample_lists`."""
    sample = sample_documents(
        rows,
        facts=facts,
        documents=settings.documents,
        seed=settings.seed,
        domain_key=settings.domain_key,
        package_key=settings.package_key,
        exclude_domains=exclude_domains,
        min_documents=min_documents,
    )
    of_lists = sample_lists(
        lists,
        facts=facts,
        length_tokens=sample.length_tokens,
        domain_key=settings.domain_key,
        package_key=settings.package_key,
    )
    return sample, of_lists


def sample_documents(
    rows: Rows,
    *,
    facts: ModelFacts,
    documents: int,
    seed: int,
    domain_key: str,
    package_key: str | None = None,
    exclude_domains: tuple[str, ...] = (),
    min_documents: int,
) -> DocumentSample:
    """Draw at most `documents` rows that are long enough, each of another document, and cut them to one length.

    Of a document that was cut into windows one row is drawn: the others resemble it, so that rows pasted from them
    would be hardly worse than it, and an interval that took them for documents would be too narrow.

    The length is the commonest one if at least half of the rows have it, otherwise the longest that `documents` rows
    reach; never more than the model has positions for. Rows with ids outside the model's vocabulary are skipped.

    `package_key` is the column, or the key inside a column, with a row's package; None: its domain.

    Raises LadmError for fewer than `min_documents`, and UsageError where no more are wanted, and for an excluded domain
    or a package key that no row has.
    """
    if documents < min_documents:
        raise UsageError(f"--documents {documents} is too few; at least {min_documents} are needed")
    # An excluded row counts as one of no tokens, which is never long enough.
    lengths = np.where(_included(rows, domain_key, exclude_domains), rows.lengths(), 0)
    length = min(_common_length(lengths, documents), facts.max_tokens or sys.maxsize)
    long_enough = np.flatnonzero(lengths >= max(length, 1))
    package_of = packages_of(rows, package_key, otherwise=domain_key)
    document_of = documents_of_windows(rows)
    drawn: dict[int, tuple[Ids, str]] = {}
    taken: set[tuple[str, str | None]] = set()
    # In random order until there are enough, because only reading a row shows whether its ids are valid.
    for position in np.random.default_rng(seed).permutation(long_enough).tolist():
        # With its package: in rows put together from several data sets a number may stand for two documents.
        window_of = None if document_of is None else (document_of[position], package_of[position])
        if len(drawn) < documents and window_of not in taken:
            (row,) = rows.read(position, position + 1)
            with contextlib.suppress(RowError):
                name = str(row.index) if window_of is None else window_of[0]
                drawn[position] = token_ids(row, vocab_size=facts.vocab_size)[:length], name
                if window_of is not None:
                    taken.add(window_of)
    if len(drawn) < min_documents:
        found = count_of(len(drawn), "document")
        once = "" if document_of is None else "; windows of one document count once"
        raise LadmError(f"{rows.name}: {found} of {length:,} tokens, and at least {min_documents} are needed{once}")
    # In the order of the rows, so that the contrast set does not depend on the order of the draw.
    positions = sorted(drawn)
    groups = [drawn[position][1] for position in positions]
    return DocumentSample(
        ids=[drawn[position][0] for position in positions],
        groups=groups,
        # A document without a package is a package of its own: it has nothing in common with the others that we know.
        packages=[package_of[p] or f"document {group}" for p, group in zip(positions, groups, strict=True)],
        length_tokens=length,
    )


@dataclass(frozen=True, kw_only=True)
class ListSample:
    """Rows that are lists, cut to the length of the documents, and the package of each."""

    ids: list[Ids]
    packages: list[str]


def sample_lists(
    rows: Rows | None, *, facts: ModelFacts, length_tokens: int, domain_key: str, package_key: str | None
) -> ListSample:
    """All rows of at least `length_tokens` tokens; none where `rows` is None.

    Raises LadmError where there are rows and none is long enough, and UsageError for a package key that no row has.
    """
    if rows is None:
        return ListSample(ids=[], packages=[])
    package_of = packages_of(rows, package_key, otherwise=domain_key)
    ids, packages = [], []
    for position in np.flatnonzero(rows.lengths() >= length_tokens).tolist():
        (row,) = rows.read(position, position + 1)
        with contextlib.suppress(RowError):
            ids.append(token_ids(row, vocab_size=facts.vocab_size)[:length_tokens])
            packages.append(package_of[position] or f"list {row.index}")
    if not ids:
        raise LadmError(f"--lists {rows.name}: no row of {length_tokens:,} tokens or more")
    return ListSample(ids=ids, packages=packages)


def packages_of(rows: Rows, package_key: str | None, *, otherwise: str) -> list[str | None]:
    """The package of every row: the value of `package_key`, or of `otherwise` where none is given; None without one.

    Raises UsageError for a given key that no row has.
    """
    packages = _values(rows, package_key or otherwise)
    if package_key is not None and not any(packages):
        raise UsageError(f"--package-key {package_key}: no row of {rows.name} has it")
    return packages


def _common_length(lengths: npt.NDArray[np.int64], documents: int) -> int:
    """The commonest length if at least half of the rows have it, else the longest that `documents` rows reach."""
    lengths = np.sort(lengths[lengths > 0])[::-1]
    if not len(lengths):
        return 0
    most = commonest(lengths)
    if 2 * int((lengths == most).sum()) >= len(lengths):
        return most
    return int(lengths[min(documents, len(lengths)) - 1])


def _included(rows: Rows, domain_key: str, exclude_domains: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """For each row, whether it is outside the excluded domains."""
    if not exclude_domains:
        return np.ones(len(rows), dtype=bool)
    domains = _values(rows, domain_key)
    require_domains_exist(exclude_domains, set(domains), where=rows.name)
    return np.array([domain not in exclude_domains for domain in domains])


def _values(rows: Rows, key: str) -> list[str | None]:
    """The domain of every row by a key, or its package; None for rows without it."""
    return all_domains(rows, key) if has_column_of(rows, key) else [None] * len(rows)
