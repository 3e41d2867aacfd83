"""A finished run and what `ladm inspect` is to look at -> those documents, as the results have them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import pyarrow as pa

from ladm.errors import LadmError
from ladm.explain.explainer import ScoredDocument
from ladm.runs.columns.labels import label_id, shown_name
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, score_batches
from ladm.settings.runs import MOST_INSPECTED, InspectSettings

_COLUMNS = ["rank", "position", "score", "num_tokens", "index", "meta"]


def choose_documents(run: Run, settings: InspectSettings) -> list[ScoredDocument]:
    """The best and worst documents and those named by their id or index, best first, each once.

    An id is that of the document, or what `ladm top` shows: with its part where it is cut into windows (`17/3`). A name
    is taken for an index where no document has it as its id. Raises LadmError for a name that no document with a
    score has, and for one that too many have.
    """
    column = _cds_column(run)
    naming = [name for name in ("id", "chunked_index", "source") if name in columns_of(run.folder)]
    names = set(settings.id)
    chosen: dict[int, ScoredDocument] = {}
    # Whether a name is an id is known at the end of the file only.
    by_id: dict[str, list[ScoredDocument]] = {}
    by_index: dict[str, list[ScoredDocument]] = {}
    # The worst documents are the last of the file, whatever its length: a queue that forgets all but the last.
    last: deque[ScoredDocument] = deque(maxlen=settings.last)
    more = [*([column] if column else []), *naming]
    for batch in score_batches(run.folder, [*_COLUMNS, *more]):
        best_rank = batch["rank"][0].as_py()
        # Without names to look for, only the first batches are worth turning into Python objects.
        searched = batch if names or best_rank <= settings.first else batch.slice(0, 0)
        labels = [str(index) for index in searched["index"].to_pylist()]
        for k, (rank, label) in enumerate(zip(searched["rank"].to_pylist(), labels, strict=True)):
            if rank <= settings.first:
                (chosen[rank],) = _documents(batch.slice(k, 1), column, naming)
            if label in names and len(by_index.setdefault(label, [])) <= MOST_INSPECTED:
                by_index[label] += _documents(batch.slice(k, 1), column, naming)
        for k, name in _names(searched, naming) if names else ():
            if name in names and len(by_id.setdefault(name, [])) <= MOST_INSPECTED:
                by_id[name] += _documents(batch.slice(k, 1), column, naming)
        _require_few(run, chosen)
        last.extend(_documents(batch.slice(max(0, len(batch) - settings.last)), column, naming))
        if not (settings.last or names) and len(chosen) == settings.first:
            break
    for name in sorted(names):
        named = by_id.get(name) or by_index.get(name)
        if not named:
            raise LadmError(
                f"no document of {run.folder} with the id or index {name!r} has a score; ladm top {run.folder} shows "
                "ids, and its errors.jsonl lists the rows without a score"
            )
        chosen |= {document.rank: document for document in named}
        _require_few(run, chosen)
    # By rank, so that a document of a short run that is among the best and the worst occurs once.
    chosen |= {document.rank: document for document in last}
    if not chosen:
        raise LadmError(f"{run.folder}: no document has a score; its errors.jsonl has the reasons")
    return [chosen[rank] for rank in sorted(chosen)]


def _names(batch: pa.RecordBatch, naming: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The names of each document of a batch beside its index, with its place there."""
    for k, named in enumerate(batch.select(["index", *naming]).to_pylist()):
        own, index = named.get("id"), named["index"]
        names = {label_id(named, index), shown_name(named, index)} | (set() if own is None else {str(own)})
        yield from ((k, name) for name in names)


def _require_few(run: Run, chosen: dict[int, ScoredDocument]) -> None:
    if len(chosen) > MOST_INSPECTED:
        raise LadmError(
            f"more than {MOST_INSPECTED} documents of {run.folder} have these indices or ids; choose others, or use "
            "--top"
        )


def _cds_column(run: Run) -> str | None:
    """The column with the CDS behind the score; None where the run did not store them."""
    column = run.identity.score_column
    return column if column in columns_of(run.folder) else None


def _documents(batch: pa.RecordBatch, column: str | None, naming: Sequence[str]) -> list[ScoredDocument]:
    rows = batch.select([*_COLUMNS, *([column] if column else [])]).to_pylist()
    return [
        ScoredDocument(
            id=label_id(named, named["index"]),
            name=shown_name(named, named["index"]),
            cds=values.pop(column) if column else None,
            **values,
        )
        for named, values in zip(batch.select(["index", *naming]).to_pylist(), rows, strict=True)
    ]
