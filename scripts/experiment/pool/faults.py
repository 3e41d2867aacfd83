"""What a long-context selector should not want, as it occurs in packages: the natural faults of pool B."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from pool.extract import Document, Source, man_sections, paths
from pool.formats import Section, decode, read_bytes

KINDS = ("changelogs", "registers", "logs", "pieces of one manual", "man pages end to end")
PIECE_CHARACTERS = 1_500
MOST_BYTES = 1_000_000
"""Of a log or a register; some have 200 MB."""
LEAST_PIECES = 400
"""A manual of fewer pieces would give the pool's own text back."""
CHANGELOG = re.compile(r"(?i)(^|/)(changelog|changes|news|history|releasenotes)[^/]*$")


def changelogs(root: Path) -> list[Document]:
    """A Debian package's longest upstream and packaging changelogs."""
    found = []
    for path in sorted(root.glob("usr/share/doc/*/*")):
        if CHANGELOG.search(path.name) and not path.is_symlink() and path.is_file() and "html" not in path.name:
            content = read_bytes(path)
            if len(content) > 45_000:
                found.append(Document(name=str(path.relative_to(root)), text=decode(content)))
    return sorted(found, key=lambda each: len(each.text), reverse=True)[:2]


def pieces_of_one_manual(documents: list[Document], *, name: str, characters: int, rows: int = 2) -> list[Document]:
    """Pieces of a few paragraphs from all over a manual in random order: one style, one subject, no thread.

    No piece is used twice, also not between the rows.
    """
    pieces = [piece for document in documents for piece in cut_pieces(document.text)]
    if len(pieces) < LEAST_PIECES:
        return []
    random.Random(f"pieces {name}").shuffle(pieces)
    found = []
    for row in range(rows):
        gathered, size = [], 0
        while pieces and size < characters:
            gathered.append(pieces.pop())
            size += len(gathered[-1])
        if size >= characters:
            found.append(Document(name=f"pieces {row}", text="\n\n".join(gathered)))
    return found


def cut_pieces(text: str) -> list[str]:
    """Consecutive paragraphs together until they are about `PIECE_CHARACTERS` long."""
    pieces, gathered = [], ""
    for paragraph in re.split(r"\n\s*\n", text):
        gathered += paragraph + "\n\n"
        if len(gathered) >= PIECE_CHARACTERS:
            if len(gathered) < 3 * PIECE_CHARACTERS:
                pieces.append(gathered.strip())
            gathered = ""
    return pieces


def listed_files(source: Source, root: Path, _tools: Any) -> list[Document]:
    """The files of a package of registers or logs; each is a document."""
    return [
        Document(name=name, text=decode(read_bytes(path)[:MOST_BYTES]))
        for name, path in paths(source, root, source.suffixes, left_out=None)
        if path.stat().st_size > 8_000
    ]


def pages_end_to_end(source: Source, root: Path, tools: Any, *, characters: int) -> list[Document]:
    """Manual pages of one section in alphabetical order, joined until they are long enough."""
    found: list[Document] = []
    gathered: list[Section] = []
    # Longer pages would fill a row alone.
    for page in man_sections(source, root, tools, least_bytes=1_500, most_bytes=15_000):
        gathered.append(page)
        if sum(len(each.text) for each in gathered) >= characters:
            name = f"{gathered[0].name} .. {Path(gathered[-1].name).name}"
            found.append(Document(name=name, text="\n".join(each.text for each in gathered)))
            gathered = []
        if len(found) == source.most:
            break
    return found
