"""A run -> the documents that a page lists, by group, with the first lines of their texts. Imports no torch.

Shape suffix: N documents in the order of the page's ranking, in which a document's place is its rank minus 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ladm.errors import LadmError
from ladm.report.environment import clean
from ladm.report.overview import RunOverview, readable_meta
from ladm.runs.columns.labels import label_id, shown_name
from ladm.runs.columns.text_beginnings import TextBeginnings
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, score_batches
from ladm.runs.rows_of_run import place_of_rows

Floats = npt.NDArray[np.float64]

ALL_UP_TO = 1500
"""Runs of no more documents have all of them on their page."""
ENDS, ENDS_OF_COLUMN, ENDS_OF_DOMAIN = 100, 10, 4
"""Documents at either end of the score, of another column, and of a domain."""
AROUND_CUT, AROUND_CUT_WITHOUT_SCRIPT = 100, 12
"""Documents next to a cut: listed by the script, and where it does not run."""
RANDOM, TAKEN = 800, 100
"""Documents drawn at random, and documents that the subset took."""
MOST_CHARACTERS, MOST_LINES = 280, 4
MOST_ID_CHARACTERS = 10_000
"""Longer ids are cut in the list that the page offers; where a document is shown, its id is cut further."""
TEXT_BYTES, META_BYTES, SOURCE_BYTES = 500, 250, 200
"""Most bytes of a text, of metadata and of a source in the page's JSON, where an emoji or a `<` takes several."""


@dataclass(frozen=True, kw_only=True)
class SelectionCut:
    """Where a selection ends: the place of the first document that is not taken, in one domain or in all (None)."""

    place: int
    domain: int | None


@dataclass(kw_only=True)
class SampledDocument:
    """A document of the explorer. `values`: its columns by name; None where it has no value."""

    rank: int
    position: int
    num_tokens: int
    domain: int
    """Index of its domain among those of the explorer."""
    id: str
    row_id: str
    """The same as the run has it; `id` is cleaned for a page."""
    name: str
    """What is shown of it: its id, or without one its index and the file that it is from."""
    source: str
    """The file and line or row that it was read from; empty where the run does not have it."""
    meta: str
    is_random: bool
    is_around_cut: bool
    text: str = ""
    taken: bool | None = None
    """Did the subset take it? None without a subset."""
    values: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ChosenDocuments:
    """Places of the documents to list, in order, and which of them were drawn at random or are next to a cut."""

    places: list[int]
    random: set[int]
    around: set[int]


def choose_documents(
    count: int,
    columns: Iterable[Floats],
    *,
    domains_N: npt.NDArray[Any],
    cuts: Sequence[SelectionCut],
    taken_N: npt.NDArray[np.bool_] | None = None,
    with_value: int | None = None,
) -> ChosenDocuments:
    """Choose among `count` documents; some are drawn from those that a subset took.

    The first of `with_value` documents (None: all) have a value of what they are ranked by. The draw is the same for
    the same run.
    """
    near, around = set[int](), set[int]()
    for cut in cuts:
        places = np.arange(count) if cut.domain is None else np.flatnonzero(domains_N == cut.domain)
        k = int(np.searchsorted(places, cut.place))
        for found, most in ((near, AROUND_CUT), (around, AROUND_CUT_WITHOUT_SCRIPT)):
            each = max(1, most // (2 * len(cuts)))
            found.update(places[max(0, k - each) : k + each].tolist())
    if count <= ALL_UP_TO:
        return ChosenDocuments(places=list(range(count)), random=set(range(count)), around=around)
    # The ends of the ranking are complete, so that "the highest" means it; further down the page has samples.
    last = count if with_value is None else with_value
    chosen = {*range(min(ENDS, last)), *range(max(0, last - ENDS), last), *near}
    for values_N in columns:
        chosen.update(_ends(values_N))
    if taken_N is not None:
        places = np.flatnonzero(taken_N)
        # Spread over the ranking. A small subset would hardly be in the other samples.
        chosen.update(places[:: max(1, -(-len(places) // TAKEN))].tolist())
    names = np.unique(domains_N)
    generator = np.random.default_rng(0)
    random: set[int] = set()
    for name in names.tolist():
        # The same number of each domain: in proportion, a small one would have nothing to look at.
        places = np.flatnonzero(domains_N == name)
        chosen.update(places[:ENDS_OF_DOMAIN].tolist(), places[-ENDS_OF_DOMAIN:].tolist())
        random.update(generator.choice(places, min(len(places), RANDOM // len(names)), replace=False).tolist())
    return ChosenDocuments(places=sorted(chosen | random), random=random, around=around)


def _ends(values_N: Floats) -> list[int]:
    """Places of the lowest and the highest values."""
    # NaN sorts above every number, and a document without a value is at neither end.
    places = np.flatnonzero(~np.isnan(values_N))
    if len(places) <= 2 * ENDS_OF_COLUMN:
        return [int(k) for k in places]
    values = values_N[places]
    lowest = np.argpartition(values, ENDS_OF_COLUMN)[:ENDS_OF_COLUMN]
    highest = np.argpartition(values, len(values) - ENDS_OF_COLUMN)[-ENDS_OF_COLUMN:]
    return [int(k) for k in (*places[lowest], *places[highest])]


def read_documents(
    run: Run, chosen: ChosenDocuments, *, overview: RunOverview, domains_N: npt.NDArray[Any]
) -> list[SampledDocument]:
    """The chosen documents, best first, without their texts."""
    names = [name for name in ("id", "source", "index", "chunked_index") if name in columns_of(run.folder)]
    documents: list[SampledDocument] = []
    places = np.array(chosen.places, dtype=np.int64)
    # The file is in the order of the run's ranks, so a place is found in it without reading any column for it.
    ranked = overview.ranking.ranked
    start, wanted = 0, places if ranked is None else ranked.order_N[places]
    for batch in score_batches(run.folder, [*names, "meta"]):
        inside = (wanted >= start) & (wanted < start + len(batch))
        found = batch.take(pa.array(wanted[inside] - start)).to_pylist()
        for k, row in zip(places[inside].tolist(), found, strict=True):
            position = overview.positions[k]
            documents.append(
                SampledDocument(
                    rank=k + 1,
                    position=position,
                    num_tokens=overview.num_tokens[k],
                    domain=int(domains_N[k]),
                    id=in_one_line(label_id(row, position)),
                    row_id=label_id(row, position),
                    name=in_one_line(shown_name(row, position)),
                    source=_end(in_one_line(row.get("source") or "")),
                    meta=fitted(clean(readable_meta(json.loads(row["meta"])), 200), META_BYTES),
                    is_random=k in chosen.random,
                    is_around_cut=k in chosen.around,
                )
            )
        start += len(batch)
    return sorted(documents, key=lambda document: document.rank)


def _end(source: str) -> str:
    """The end of a place, where the file's name and the line are, in no more bytes than `fitted` allows."""
    return fitted(source[::-1], SOURCE_BYTES)[::-1]


def add_texts(run: Run, documents: list[SampledDocument], name: str | None) -> str | None:
    """Set the texts of documents from the rows called `name`, or those that the run found; why there are none.

    Raises LadmError for rows that were given and are others, or cannot be read.
    """
    try:
        # A page of a run on rows of the Hub does not fetch them.
        if name is None and not Path(place_of_rows(run)).exists():
            return f"{run.identity.rows_name} no longer exists; give the new path of the rows with --rows"
        beginnings = TextBeginnings(run, name)
        if beginnings.missing is not None:
            return beginnings.missing
        # In the order of the data set, whose blocks are then read once each.
        ordered = sorted(documents, key=lambda document: document.position)
        for document, text in zip(ordered, beginnings.of(ordered), strict=True):
            document.text = first_lines(text)
        return beginnings.missing
    except LadmError as error:
        if name is not None:
            raise
        return str(error)


def first_lines(text: str) -> str:
    """The first lines with a letter or a digit, cleaned and cut; where no line has any, those that are not blank."""
    lines = [line.strip() for line in clean(text, len(text)).splitlines() if line.strip()]
    # A rule above a title would be all that a list of documents shows of one.
    worded = [line for line in lines if any(map(str.isalnum, line))]
    return fitted(clean("\n".join((worded or lines)[:MOST_LINES]), MOST_CHARACTERS), TEXT_BYTES)


def in_one_line(name: str) -> str:
    """An id as a line of a list of ids."""
    return " ".join(clean(name, MOST_ID_CHARACTERS).splitlines())


def fitted(text: str, most_bytes: int) -> str:
    """The text, cut to that many bytes as the page writes them."""
    # A character is one to six bytes there, so cutting by characters alone would let one language fill the page.
    while len(as_script_data(text)) > most_bytes:
        text = f"{text[: len(text) * 3 // 4]}…"
    return text


def as_script_data(value: Any) -> bytes:
    """JSON for the inside of a `<script>` that is not run: without `<`, nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode(errors="replace")
