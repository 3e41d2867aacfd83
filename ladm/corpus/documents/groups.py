"""Sources -> documents in groups of bounded size, from any place in the corpus on. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ladm.corpus.documents.bad_files import BadFiles
from ladm.corpus.documents.changed_sources import SourceGuard
from ladm.corpus.documents.reading import DamagedFileError, Document, ShortRule, read_documents
from ladm.corpus.documents.sources import Source
from ladm.corpus.files.meta import text_at
from ladm.errors import StorageError

BLOCK_DOCUMENTS = 512
BLOCK_CHARACTERS = 32_000_000


@dataclass(frozen=True, kw_only=True)
class ReadPosition:
    """A position between two documents: where reading stopped, and where it goes on."""

    source: int = 0
    """The number of the source among all sources."""
    in_source: int = 0
    """Documents of that source that are before the position."""
    documents: int = 0
    """Documents of all sources that are before it."""


@dataclass(frozen=True, kw_only=True)
class DocumentGroup:
    """Documents that become one block, and the position after the last of them."""

    documents: list[Document]
    end: ReadPosition


class DamagedSourceError(Exception):
    """Damage in a source that shows only after some of its documents were read; `source` is its number."""

    def __init__(self, source: int, name: str, error: StorageError) -> None:
        super().__init__(str(error))
        self.source, self.name, self.error = source, name, error


def read_groups(
    sources: list[Source],
    *,
    text_key: str,
    short: ShortRule | None,
    bad_files: BadFiles,
    guard: SourceGuard,
    start: ReadPosition,
) -> Iterator[DocumentGroup]:
    """Documents from `start` on. The groups are always the same for the same sources, if `start` is the end of one.

    Raises DamagedSourceError for a file whose damage could not be seen before it was read, and LadmError for one that
    was changed meanwhile.
    """
    group: list[Document] = []
    # The sources that the documents of the group are from.
    opened: list[int] = []
    characters, number = 0, start.documents
    place = start
    for k, source in enumerate(sources[start.source :], start.source):
        if source in bad_files:
            continue
        opened.append(k)
        skipped = start.in_source if k == start.source else 0
        documents = read_documents(
            source, text_key=text_key, skip=skipped, short=short, left_out=bad_files.messages.keys()
        )
        for in_source, document in enumerate(_until_damage(documents, k, source.name), skipped + 1):
            text = text_at(document.fields, text_key)
            group.append(replace(document, number=number))
            number += 1
            place = ReadPosition(source=k, in_source=in_source, documents=number)
            characters += len(text) if isinstance(text, str) else 0
            # Books fill memory long before there are 512 of them, hence the second bound.
            if len(group) == BLOCK_DOCUMENTS or characters >= BLOCK_CHARACTERS:
                # After the documents were read, and before any of them is stored.
                guard.require_unchanged(opened)
                yield DocumentGroup(documents=group, end=place)
                group, characters, opened = [], 0, [k]
    if group:
        guard.require_unchanged(opened)
        yield DocumentGroup(documents=group, end=place)


def _until_damage(documents: Iterator[Document], source: int, name: str) -> Iterator[Document]:
    try:
        yield from documents
    except DamagedFileError as error:
        raise DamagedSourceError(source, name, error) from None
