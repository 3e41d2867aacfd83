"""Rows -> the documents that a contrast set is made of: one length, wanted domains, drawn by a seed."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.calibration.contrast import MIN_DOCUMENTS
from ladm.corpus.rows import Ids, Rows, commonest, look_up, token_ids
from ladm.errors import LadmError, RowError, UsageError
from ladm.modeling.facts import ModelFacts

ROWS_AT_A_TIME = 10_000


@dataclass(frozen=True, kw_only=True)
class DocumentSample:
    """Documents of one length, in the order of the rows.

    `groups` has for each the name that documents share which must stay in one half, such as the parts of a book.
    """

    ids: list[Ids]
    groups: list[str]
    length_tokens: int


def sample_documents(
    rows: Rows,
    *,
    facts: ModelFacts,
    documents: int,
    seed: int,
    domain_key: str,
    exclude_domains: tuple[str, ...] = (),
    min_documents: int = MIN_DOCUMENTS,
) -> DocumentSample:
    """Draw at most `documents` rows that are long enough, and cut them to one length.

    The length is the commonest one if at least half of the rows have it, otherwise the longest that `documents` rows
    reach; never more than the model has positions for. Rows with ids outside the model's vocabulary are skipped.

    Raises LadmError for fewer than `min_documents`, and UsageError for an excluded domain that no row has.
    """
    # An excluded row counts as one of no tokens, which is never long enough.
    lengths = np.where(_included(rows, domain_key, exclude_domains), rows.lengths(), 0)
    length = min(_common_length(lengths, documents), facts.max_tokens or sys.maxsize)
    long_enough = np.flatnonzero(lengths >= max(length, 1))
    drawn: dict[int, tuple[Ids, str]] = {}
    # In random order until there are enough, because only reading a row shows whether its ids are valid.
    for position in np.random.default_rng(seed).permutation(long_enough):
        if len(drawn) < documents:
            (row,) = rows.read(position, position + 1)
            with contextlib.suppress(RowError):
                drawn[position] = token_ids(row, vocab_size=facts.vocab_size)[:length], str(row.index)
    if len(drawn) < min_documents:
        raise LadmError(
            f"{rows.name}: {len(drawn)} documents of {length:,} tokens, and at least {min_documents} are needed"
        )
    # In the order of the rows, so that the contrast set does not depend on the order of the draw.
    in_order = [drawn[position] for position in sorted(drawn)]
    return DocumentSample(
        ids=[ids for ids, _ in in_order], groups=[group for _, group in in_order], length_tokens=length
    )


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
    column, *path = domain_key.split(".")
    domains: list[str | None] = []
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        stop = min(start + ROWS_AT_A_TIME, len(rows))
        domains += [look_up(value, path) for value in rows.column(column, start, stop)]
    for domain in exclude_domains:
        if domain not in domains:
            raise UsageError(f"--exclude-domain {domain}: {rows.name} has no row of that domain")
    return np.array([domain not in exclude_domains for domain in domains])
