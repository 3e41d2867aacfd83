"""The budget of a job against its rows, before scoring them costs hours. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.corpus.rows.excluded_domains import domains_of, included_rows
from ladm.corpus.rows.reading import Rows
from ladm.corpus.rows.value_keys import NO_VALUE, read_value_keys
from ladm.errors import LadmError, count_of
from ladm.pipeline.ranked_columns import selection_of
from ladm.progress import Echo, silent
from ladm.selection.id_lists import IdList, match_checked
from ladm.selection.limits import within_caps
from ladm.selection.quota_weights import Quota, has_weights, read_quota
from ladm.selection.quotas import unknown_domains_warning, weights_of
from ladm.selection.windows import first_of_each, max_per_document, read_windows
from ladm.settings.selection import SelectSettings
from ladm.settings.value_caps import ValueCap

ALL_EXCLUDED = "--exclude-domain leaves no row; exclude fewer domains"

Pool = tuple[str, npt.NDArray[np.int64]]
"""The rows that a limit leaves, in words, and their lengths in tokens."""


def require_budget(
    rows: Rows, job: Any, *, domain_key: str, lists: list[IdList], hint: str = "", echo: Echo = silent
) -> None:
    """Raise LadmError for a budget that all rows together cannot fill, or that the shortest of them does not fit.

    Rows of excluded domains, and those that lists of ids drop, do not count; UsageError for such a domain that no row
    has, and for a list of --only-ids with the id of no row. `echo` is called with warnings about the lists.
    And UsageError for weights that lack a domain of the rows; `echo` gets a warning about those of other domains.
    `hint` is put behind the remedies for too small a pool.
    Rows that guards drop, and rows without a score, are known after scoring only: `ladm select` looks again.
    """
    chosen = selection_of(job)
    included_N = rows_to_select_from(rows, chosen, domain_key=domain_key, lists=lists, echo=echo)
    if chosen.documents is None and chosen.tokens is None:
        # Nothing to compare with a share of the rows or a least score: the lengths of all rows need not be read.
        return
    lengths_N = _selectable_lengths(rows, included_N, chosen, domain_key=domain_key, echo=echo)
    if not lengths_N.any():
        return
    # Each limit alone: no choice within all of them holds more than the least of these.
    pools = [_pool_of_documents(rows, lengths_N, chosen), *_capped_pools(rows, lengths_N, chosen.caps)]
    is_limited = job.limit is not None and len(rows) >= job.limit
    # The same command with a greater limit adds rows to the same folder.
    more = "a greater --limit" if is_limited else "more documents and another --output"
    remedies = f"a smaller budget, take all of it with --allow-small-pool, or give {more}{hint}"
    remedies += _left_out(rows, lengths_N, chosen)
    if chosen.documents is not None:
        _require_documents(chosen.documents, pools, chosen, remedies)
    if chosen.tokens is not None:
        shortest = int(lengths_N[lengths_N > 0].min())
        _require_tokens(chosen.tokens, pools, chosen, remedies, shortest=shortest)


def _left_out(rows: Rows, lengths_N: npt.NDArray[np.int64], chosen: SelectSettings) -> str:
    """How many rows are never selected, and what may have left them out, behind another text; nothing for none."""
    count = int(np.count_nonzero(lengths_N == 0))
    given = {
        "--exclude-domain": chosen.exclude_domains, "--exclude-ids": chosen.exclude_ids, "--only-ids": chosen.only_ids,
        "a weight of 0": has_weights(chosen.quota), "as copies of another row": rows.copies() is not None,
    }  # fmt: skip
    reasons = " or ".join(name for name, is_given in given.items() if is_given)
    by = "" if reasons.startswith("as ") else "by "
    are = f"{count:,} {'is' if count == 1 else 'are'} left out, {by}{reasons}"
    return f"; of {count_of(len(rows), 'row')} {are}" if count and reasons else ""


def rows_to_select_from(
    rows: Rows, settings: Any, *, domain_key: str, lists: list[IdList], echo: Echo = silent
) -> npt.NDArray[np.bool_]:
    """Which rows are outside of the excluded domains, and left by the lists of ids, of a job or a selection.

    Raises LadmError where none is, and as `require_budget`.
    """
    included_N = np.ones(len(rows), dtype=np.bool_)
    if settings.exclude_domains:
        included_N = included_rows(rows, domain_key, settings.exclude_domains, domain=settings.domain)
        if not included_N.any():
            raise LadmError(ALL_EXCLUDED)
    ids = match_checked(lists, [rows], echo=echo)
    if ids is not None:
        included_N &= ids.included_T
        if not included_N.any():
            raise LadmError(f"{ids.names}: no row is left")
    return included_N


def _selectable_lengths(
    rows: Rows, included_N: npt.NDArray[np.bool_], chosen: SelectSettings, *, domain_key: str, echo: Echo
) -> npt.NDArray[np.int64]:
    """The tokens of each row, 0 for one that is never selected: not included, a copy, or of a domain of weight 0.

    Raises UsageError for weights that lack a domain; `echo` gets a warning about those of other domains.
    """
    lengths_N, is_copy_N = rows.lengths(), rows.copies()
    lengths_N[~included_N] = 0
    if is_copy_N is not None:
        lengths_N[is_copy_N] = 0
    if has_weights(chosen.quota) and lengths_N.any():
        quota = read_quota(str(chosen.quota))
        domains = domains_of(rows, domain_key, domain=chosen.domain)
        lengths_N[_without_weight(domains, lengths_N, quota, excluded=chosen.exclude_domains)] = 0
        of_rows = {name for name in domains if name is not None}
        if (line := unknown_domains_warning(quota, of_rows, excluded=chosen.exclude_domains)) is not None:
            echo(f"warning   {line}")
    return lengths_N


def _pool_of_documents(rows: Rows, lengths_N: npt.NDArray[np.int64], chosen: SelectSettings) -> Pool:
    """What --max-per-document leaves, in words, and the longest rows that it can leave; all rows without a limit."""
    limit = max_per_document(chosen.max_per_document, [rows], ranking=chosen.ranking)
    if limit is None:
        return "rows", lengths_N[lengths_N > 0]
    # The longest of each document: no choice of that many holds more.
    windows = read_windows([rows])
    longest_first = np.lexsort((-lengths_N, windows.documents_T))
    lengths_N = lengths_N[longest_first]
    kept = ~windows.repeating(longest_first, lengths_N)
    lengths_N = lengths_N[kept][first_of_each(windows.documents_T[longest_first[kept]], limit)]
    return f"rows (at most {limit} of a document)", lengths_N[lengths_N > 0]


def most_within_caps(rows: Rows, lengths_N: npt.NDArray[np.int64], caps: Sequence[ValueCap]) -> tuple[int, int]:
    """The rows, and the tokens, that a selection has at most of the rows with a length; each limit alone, as there."""
    pools = [lengths_N[lengths_N > 0], *(lengths for _, lengths in _capped_pools(rows, lengths_N, caps))]
    return min(len(lengths) for lengths in pools), min(int(lengths.sum()) for lengths in pools)


def _capped_pools(rows: Rows, lengths_N: npt.NDArray[np.int64], caps: Sequence[ValueCap]) -> Iterator[Pool]:
    """For each cap of --max-per what it leaves, in words, and the longest rows that it can leave."""
    for cap in caps:
        longest_first = np.argsort(-lengths_N, kind="stable")
        keys_N, _ = read_value_keys(rows, cap.key, of_host=cap.of_host)
        lengths, keys = lengths_N[longest_first], keys_N[longest_first]
        kept = within_caps(keys, cap.most, is_free=keys == NO_VALUE)
        yield f"rows (--max-per {cap.text})", lengths[kept & (lengths > 0)]


def _without_weight(
    domains: Sequence[str | None], lengths_N: npt.NDArray[np.int64], quota: Quota, *, excluded: Collection[str]
) -> npt.NDArray[np.bool_]:
    """Which rows are of domains of weight 0. Raises UsageError as `weights_of`; rows without tokens do not count."""
    found = {name for name, length in zip(domains, lengths_N.tolist(), strict=True) if length and name is not None}
    weights = weights_of(sorted(found), quota, excluded=excluded)
    return np.array([name is not None and weights.get(name) == 0 for name in domains], dtype=np.bool_)


def _require_documents(most: int, pools: Sequence[Pool], chosen: SelectSettings, remedies: str) -> None:
    """Raise LadmError where the smallest pool has fewer rows than the budget."""
    what, documents = min(((what, len(lengths)) for what, lengths in pools), key=itemgetter(1))
    if most > documents and not chosen.allow_small_pool:
        raise LadmError(f"there are {documents:,} {what}, fewer than --documents {most:,}; give {remedies}")


def _require_tokens(
    given: int | str, pools: Sequence[Pool], chosen: SelectSettings, remedies: str, *, shortest: int
) -> None:
    """Raise LadmError where the smallest pool has fewer tokens than the budget, or the budget fewer than any row."""
    what, pool = min(((what, int(lengths.sum())) for what, lengths in pools), key=itemgetter(1))
    share = chosen.token_share
    budget = int(given) if share is None else int(share * pool)
    if budget > pool and not chosen.allow_small_pool:
        raise LadmError(f"the {what} have {pool:,} tokens, fewer than --tokens {budget:,}; give {remedies}")
    # The percent rule exceeds its budget, so that a row always fits.
    if budget < shortest and chosen.rule != "percent":
        shown = f"{budget:,}" if share is None else given
        raise LadmError(f"no row fits --tokens {shown}: the shortest has {shortest:,} tokens; give a larger budget")
