"""Sources, some of them looked at -> how many documents all have, and for how many each that was looked at stands."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ladm.corpus.documents.counts import DocumentCount, count_documents
from ladm.corpus.documents.sources import Source

COUNTED_BYTES = 1 << 26
"""Of all files of lines together, to see how long their lines are."""
LEAST_BYTES = 1 << 20
"""The same of one file."""


@dataclass(frozen=True, kw_only=True)
class CorpusSize:
    """How many documents there are."""

    by_source: dict[int, float]
    """By the position of a source that was looked at: its documents, and those of the sources that it stands for."""
    is_exact: bool

    @property
    def documents(self) -> int:
        return round(sum(self.by_source.values()))


def corpus_size(sources: list[Source], looked_at: Sequence[int], bad: Collection[int] = ()) -> CorpusSize | str:
    """Count the documents of the sources that were looked at, and take the others to have as many for their size.

    `bad`: the sources that cannot be read, whose documents do not count.
    The name of a source instead, where its documents cannot be counted.
    """
    most_bytes = max(LEAST_BYTES, COUNTED_BYTES // len(looked_at))
    counts: dict[int, DocumentCount] = {}
    for k in looked_at:
        none = DocumentCount(number=0, is_exact=True)
        count = none if k in bad else count_documents(sources[k], most_bytes=most_bytes)
        if count is None:
            return sources[k].name
        counts[k] = count
    shares = {kind: _share_of_kind(sources, looked_at, kind) for kind in {sources[k].kind for k in looked_at}}
    return CorpusSize(
        by_source={k: count.number / shares[sources[k].kind] for k, count in counts.items()},
        is_exact=len(looked_at) == len(sources) and all(count.is_exact for count in counts.values()),
    )


def _share_of_kind(sources: list[Source], looked_at: Sequence[int], kind: str) -> float:
    """The share that the sources that were looked at have of all sources of their kind."""
    all_of_kind = [k for k, source in enumerate(sources) if source.kind == kind]
    chosen = [k for k in looked_at if sources[k].kind == kind]
    # A text file is one document whatever its size; and the size of a file elsewhere would be a request for each.
    if kind == "text" or not all(os.path.isfile(sources[k].name) for k in all_of_kind):
        return len(chosen) / len(all_of_kind)
    sizes = {k: os.path.getsize(sources[k].name) for k in all_of_kind}
    return sum(sizes[k] for k in chosen) / max(sum(sizes.values()), 1) or 1.0
