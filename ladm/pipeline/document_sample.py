"""A few documents of every source -> what is found in them: the length of rows, the key of the domain. No torch."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from ladm.corpus.documents.carried_columns import domain_of, parsed_meta
from ladm.corpus.documents.reading import Document, read_documents
from ladm.corpus.documents.sources import Source
from ladm.corpus.documents.whole_files import is_quickly_checked, require_whole
from ladm.corpus.files.meta import text_at, whole_text
from ladm.corpus.preparation.blocks import Counts, reason_of_line
from ladm.corpus.preparation.tokenization import Tokenizer
from ladm.errors import LadmError, StorageError
from ladm.pipeline.corpus_size import COUNTED_BYTES, LEAST_BYTES
from ladm.settings.common import DOMAIN_KEY

MOST_DOCUMENTS, MOST_SOURCES = 1000, 64
MOST_CHARACTERS = 1 << 20
"""Of one document; a longer text is taken to have as many tokens for each character as its beginning."""
ALL_CHARACTERS = 1 << 25
SHORTEST, LONGEST = 256, 32_768
"""Of the lengths that are chosen; the longest is the paper's."""
LEAST_TOKEN_SHARE = 0.5
"""Share of the tokens that must be in documents of at least the chosen length."""
MOST_DOMAINS = 200
MOST_SHARE_WITHOUT = 0.5
"""Share of the documents that may lack the key of the domain."""
DOMAIN_KEYS = (
    DOMAIN_KEY, "domain", "meta.domain", "source", "meta.source", "subset", "dataset", "corpus", "collection",
    "category", "topic", "genre", "type", "kind", "language", "lang", "dump",
)  # fmt: skip
"""Names under which corpora have the domain, the likeliest first."""


@dataclass(frozen=True)
class Sample:
    """Fields of documents from all over the sources."""

    documents: list[dict[str, Any]]
    counts: Sequence[int | None] = ()
    """The tokens that each document's own column states, by which `ladm prepare` may drop it; empty: not looked at."""
    origins: Sequence[int] = ()
    """Of each document the position of its source among the sources."""
    looked_at: Sequence[int] = ()
    """The positions of the sources that were read, bad ones among them."""
    bad_lines: Mapping[int, Counts] = field(default_factory=dict)
    """By the position of a source the lines that are no documents, by reason."""
    bad_files: Mapping[int, str] = field(default_factory=dict)
    """By the position of a source that cannot be read why; none of its documents is in the sample."""


@dataclass(frozen=True)
class FoundDomains:
    """A key and how many values it has among the documents of the sample; `key` None: there is none."""

    key: str | None
    values: int
    without: int = 0
    """Documents of the sample that lack the key."""


def look_at(sources: list[Source], *, text_key: str, token_count_key: str, check_files: bool) -> Sample:
    """Read the first documents of up to 64 sources, spread evenly. The keys are those of `ladm prepare`.

    `check_files`: look for damage behind these documents too, in plain JSONL and in files that are quickly read.
    Raises LadmError where no document can be read.
    """
    count = min(len(sources), MOST_SOURCES)
    chosen = [len(sources) * k // count for k in range(count)]
    each = MOST_DOCUMENTS // max(count, 1)
    most_bytes = max(LEAST_BYTES, COUNTED_BYTES // max(count, 1)) if check_files else None
    found: list[tuple[int, dict[str, Any], Any]] = []
    bad_lines: dict[int, Counter[str]] = {}
    bad_files: dict[int, str] = {}
    for k in chosen:
        try:
            documents = _first_documents(sources[k], text_key, each, most_bytes)
        except StorageError as error:
            bad_files[k] = str(error)
            continue
        bad_lines[k] = Counter(reason_of_line(document) for document in documents if document.fields is None)
        is_table = sources[k].kind == "parquet"
        found += [
            (k, fields, fields.get(token_count_key) if is_table else None)
            for document in documents if (fields := document.fields) is not None
        ]  # fmt: skip
    if not found:
        if bad_files:
            raise StorageError(f"no document could be read: {next(iter(bad_files.values()))}")
        reasons = sum(bad_lines.values(), Counter[str]())
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items()) or "the sources have none"
        raise LadmError(f"no document could be read: {why}")
    return Sample(
        documents=[fields for _, fields, _ in found],
        counts=[count if isinstance(count, int) else None for _, _, count in found],
        origins=[k for k, _, _ in found],
        looked_at=chosen,
        bad_lines=bad_lines,
        bad_files=bad_files,
    )


def _first_documents(source: Source, text_key: str, most: int, most_bytes: int | None) -> list[Document]:
    """The first documents and bad lines. Raises StorageError for a file that `ladm prepare` leaves out whole."""
    if most_bytes is not None and is_quickly_checked(source, most_bytes=most_bytes):
        require_whole(source, text_key=text_key)
    found: list[Document] = []
    good = 0
    for document in read_documents(source, text_key=text_key):
        found.append(document)
        good += document.fields is not None
        # Bad lines do not count: a file may begin with any number of them.
        if good == most:
            break
    return found


def choose_length(sample: Sample, tokenizer: Tokenizer, *, text_key: str, most: int | None) -> tuple[int, float]:
    """The longest power of two whose rows would use at least half of the tokens; and the share that they use.

    By tokens rather than documents: of a corpus with few long documents among many short ones, the long ones count.
    `most`: positions of the model. Documents of 300, 5,000 and 9,000 tokens: 8,192, which 9,000 of 14,300 reach.
    Raises LadmError where the documents, or the positions of the model, are too few for any row.
    """
    limit = LONGEST if most is None else min(most, LONGEST)
    if limit < SHORTEST:
        raise LadmError(
            f"the model has only {limit:,} positions, and no length below {SHORTEST} is chosen automatically; give "
            "--length"
        )
    lengths = _lengths(sample, tokenizer, text_key)
    total = sum(lengths)
    length = 1 << (limit.bit_length() - 1)
    while length >= SHORTEST:
        share = sum(tokens for tokens in lengths if tokens >= length - tokenizer.bos) / max(total, 1)
        if share >= LEAST_TOKEN_SHARE:
            return length, share
        length //= 2
    longest = max(lengths, default=0)
    raise LadmError(
        f"the documents are short (the longest of {len(lengths):,} has {longest:,} tokens): half of the tokens are in "
        f"documents of fewer than {SHORTEST} tokens; give --length, or longer documents"
    )


def _lengths(sample: Sample, tokenizer: Tokenizer, text_key: str) -> list[int]:
    starts, parts, most, characters = [], [], [], 0
    for fields, count in zip_longest(sample.documents, sample.counts):
        text = text_at(fields, text_key)
        # What `prepare` drops counts for nothing here; the tokenizer refuses half of a surrogate pair.
        if isinstance(text, str) and text and text == whole_text(text):
            starts.append(text[:MOST_CHARACTERS])
            parts.append(len(text) / len(starts[-1]))
            most.append(math.inf if count is None else count)
            characters += len(starts[-1])
            if characters > ALL_CHARACTERS:
                break
    # The length of the windows does not matter, only the count of all tokens.
    counted = tokenizer.cut(starts, 2, most_windows=1)
    return [
        int(min(text.num_tokens * part, limit)) for text, part, limit in zip(counted, parts, most, strict=True)
    ]  # fmt: skip


def find_domains(sample: Sample) -> FoundDomains:
    """The likeliest key that every document of the sample has, with more than one value and not one for each.

    Where there is none, such a key that at least half of the documents have: the others are one more domain.
    """
    documents = list(_with_metas(sample))
    most = max(2, min(MOST_DOMAINS, len(documents) // 2))
    partial = single = FoundDomains(None, 0)
    for key in DOMAIN_KEYS:
        values = Counter(domain_of(fields, meta, key) for fields, meta in documents)
        without = values.pop(None, 0)
        found = FoundDomains(key, len(values), without)
        # As many values as documents: a name or an address, such as `source: https://..`.
        is_split = 1 < len(values) <= most
        if is_split and not without:
            return found
        if is_split and partial.key is None and without <= len(documents) * MOST_SHARE_WITHOUT:
            partial = found
        if len(values) == 1 and not without and single.key is None:
            single = found
    return single if partial.key is None else partial


def _with_metas(sample: Sample) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """The documents with their metas, without those whose meta is nested too deep, which `prepare` drops."""
    for fields in sample.documents:
        with contextlib.suppress(RecursionError):
            yield fields, parsed_meta(fields)
