"""What took rows out of the pool of a selection -> the error for one that is too small, with every cause. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ladm.errors import count_of, printable
from ladm.runs.columns.joined_files import joined_lines
from ladm.runs.results import summarise
from ladm.selection.budget import Domains, SmallPoolError
from ladm.selection.candidates import Candidates
from ladm.selection.limits import LimitedCandidates
from ladm.selection.quotas import listed
from ladm.selection.sources import SelectionSource
from ladm.settings.fields import flag
from ladm.settings.id_lists import EXCLUDE_IDS, ONLY_IDS


def with_causes(
    error: SmallPoolError,
    ranked_by: str,
    sources: Sequence[SelectionSource],
    limited: LimitedCandidates,
    *,
    without_share: Domains,
) -> SmallPoolError:
    """The same error, and behind it what left rows out, in the order in which it did.

    `ranked_by`: the column or expression that documents are ranked by.
    `without_share`: the domains of weight 0, with the documents that they would have had in the pool.
    """
    found = [
        *_by_score(sources),
        *_by_choice(limited.candidates),
        *_by_value(limited.candidates, ranked_by),
    ]
    text = "".join(f"; {each}" for each in found) + limited.text
    if without_share:
        rows = count_of(sum(map(len, without_share.values())), "row")
        text += f"; the weight 0 of {listed(list(without_share))} leaves {rows} out"
    # A file with few ids, or with ids of other rows, is why rows have no value.
    text += "".join(f"; {line}" for line in joined_lines(sources[0].columns.files))
    return SmallPoolError(printable(f"{error}{text}"))


def _by_score(sources: Sequence[SelectionSource]) -> Iterator[str]:
    errors: Counter[str] = Counter()
    for source in sources:
        errors += summarise(source.run).errors
    if errors:
        yield f"{count_of(errors.total(), 'row')} left out without a score"
    if unscored := sum(source.rows.total - source.run.num_results for source in sources):
        yield f"{count_of(unscored, 'row')} not scored yet"


def _by_choice(candidates: Candidates) -> Iterator[str]:
    """Excluded domains and lists of ids."""
    inclusion = candidates.inclusion
    if excluded := sum(inclusion.domains.values()):
        yield f"--exclude-domain leaves {count_of(excluded, 'row')} out"
    for each in inclusion.id_lists:
        if each.option == EXCLUDE_IDS and each.documents:
            yield f"{flag(EXCLUDE_IDS)} {each.file} leaves {count_of(each.documents, 'row')} out"
    if inclusion.outside_only_ids:
        yield f"{count_of(inclusion.outside_only_ids, 'row')} left out because no {flag(ONLY_IDS)} has their id"


def _by_value(candidates: Candidates, ranked_by: str) -> Iterator[str]:
    """Rows without a value, copies, and guards."""
    if candidates.without_value:
        yield f"{count_of(candidates.without_value, 'row')} left out without a value of {ranked_by}"
    if candidates.copies:
        yield f"{count_of(candidates.copies, 'row')} left out as copies of another row"
    for guard in candidates.guards:
        if dropped := sum(guard.dropped.values()):
            yield f"--within {guard.given} leaves {count_of(dropped, 'row')} out"
        if guard.without_value:
            yield f"{count_of(guard.without_value, 'row')} left out without a value of {guard.column}"
