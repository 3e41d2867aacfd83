"""An unpacked package -> its documents: chapters, files, or neighbouring sections joined in reading or import order."""

from __future__ import annotations

import fnmatch
import gzip
import posixpath
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pool.formats import (
    Section,
    decode,
    drop_common_lines,
    html_text,
    info_chapters,
    man_text,
    natural,
    numbered_chapters,
    pdf_chapters,
    read_bytes,
)
from pool.imports import import_order, imported_names, stem

PART_CHARACTERS = 135_000
"""Sections are joined until a document holds about two rows of 16,384 tokens."""

VIGNETTE_CHARACTERS = 75_000
"""Papers are joined only until they fill one row: a long paper stands alone."""

SUFFIXES = {
    "html": ("html", "htm", "xhtml"),
    "pdf": ("pdf",),
    "text": ("txt", "rst", "md", "texi", "tex", "adoc", "asciidoc", "sgml", "pod"),
    "source": ("py",),
}
MOST_CHARACTERS = 3_000_000
MOST_CHARACTERS_OF_PDF = 1_200_000
"""Of a package, in reading order: several times what its rows are cut from, and no more, for some hold 100 MB."""

LEFT_OUT = re.compile(
    r"(?i)(^|/|[-_.])(tests?|testing|testsuite|examples?|changes|changelog\w*|news|copyright|history|index|genindex|"
    r"py-modindex|search|toc|contents|license|licen[cs]es|copying|authors|thanks|todo|glossary|bibliography|"
    r"_vendor\w*|vendor|locale|bugfixes|updates|00index|migrations|_static|_modules|releases?|releasenotes|whatsnew|demos?|__init__)([-_./]|$)"
)
"""Paths of lists, of generated files, of tests and of what the faults are made of."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One line of sources.yaml."""

    package: str
    kind: str
    domain: str
    split: str = "pool"
    format: str = "html"
    suffixes: tuple[str, ...] = ()
    """In place of those of the format."""
    only: str = "*"
    """Pattern that the paths match, `*` over folders too."""
    most: int = 8
    """Rows at most."""


@dataclass(frozen=True, kw_only=True)
class Document:
    name: str
    text: str


def documents(source: Source, root: Path, tools: Any) -> list[Document]:
    """All documents of a package that are long enough to try, in a fixed order."""
    most = MOST_CHARACTERS_OF_PDF if source.format in ("pdf", "vignettes") else MOST_CHARACTERS
    sections = list(first(READERS[source.format](source, root, tools), characters=most))
    if source.format == "html":
        sections = drop_common_lines(sections)
    return join(sections, characters=VIGNETTE_CHARACTERS if source.format == "vignettes" else PART_CHARACTERS)


def first(sections: Iterable[Section], *, characters: int) -> Iterable[Section]:
    for section in sections:
        yield section
        characters -= len(section.text)
        if characters < 0:
            return


def paths(
    source: Source, root: Path, suffixes: Iterable[str], *, left_out: re.Pattern[str] | None = LEFT_OUT
) -> list[tuple[str, Path]]:
    """(path below the root, file) of a package's files with these suffixes, compressed or not, without links."""
    found = []
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        suffix = posixpath.splitext(re.sub(r"\.(gz|xz|bz2)$", "", name))[1].removeprefix(".")
        if suffix not in suffixes or path.is_symlink() or not path.is_file():
            continue
        if fnmatch.fnmatch(name, source.only) and not (left_out and left_out.search(name)):
            found.append((name, path))
    return sorted(found, key=lambda each: natural(each[0]))


def html_sections(source: Source, root: Path, _tools: Any) -> Iterable[Section]:
    found = paths(source, root, source.suffixes or SUFFIXES["html"])
    folders: dict[str, list[tuple[str, Path]]] = {}
    for name, path in found:
        folders.setdefault(posixpath.dirname(name), []).append((name, path))
    for folder, files in folders.items():
        order = linked_order(root / folder)
        # Files that no index links stand behind the others, by name.
        files.sort(key=lambda each: order.get(posixpath.basename(each[0]).removesuffix(".gz"), len(order)))
        for name, path in files:
            yield Section(name=name, text=html_text(read_bytes(path)), folder=folder)


def linked_order(folder: Path) -> dict[str, int]:
    """The order in which a folder's index, table of contents or title page first links its files."""
    order: dict[str, int] = {}
    for path in sorted(folder.glob("*")):
        if re.match(r"(?i)(index|.*toc|contents|book1?|title)\.x?html?(\.gz)?$", path.name) and path.is_file():
            for link in re.findall(r'href="([^"#/:?]+\.x?html?)', decode(read_bytes(path))):
                order.setdefault(link, len(order))
    return order


def pdf_sections(source: Source, root: Path, tools: Any) -> Iterable[Section]:
    for name, path in paths(source, root, source.suffixes or SUFFIXES["pdf"]):
        for title, text in pdf_of(path, name, tools):
            yield Section(name=f"{name}#{title}" if title else name, text=text, folder=name)


def pdf_of(path: Path, name: str, tools: Any) -> list[tuple[str, str]]:
    try:
        return pdf_chapters(read_bytes(path), tools.pdfium)
    except (tools.pdfium.PdfiumError, gzip.BadGzipFile) as error:
        print(f"    {name}: {error}")
        return []


def vignette_sections(source: Source, root: Path, tools: Any) -> Iterable[Section]:
    """The papers that come with a package of R: PDF or HTML, by name. Where there are both, the PDF counts."""
    found = paths(source, root, ("pdf", "html"))
    printed = {posixpath.splitext(name)[0] for name, _ in found if name.endswith(".pdf")}
    for name, path in found:
        folder = posixpath.dirname(name)
        if (name.endswith(".html") and posixpath.splitext(name)[0] in printed) or not folder.endswith("/doc"):
            continue
        chapters = [("", html_text(read_bytes(path)))] if name.endswith(".html") else pdf_of(path, name, tools)
        yield Section(name=name, text="\n".join(text for _, text in chapters), folder=folder)


def info_sections(source: Source, root: Path, _tools: Any) -> Iterable[Section]:
    manuals: dict[str, str] = {}
    folder = root / "usr/share/info"
    for path in sorted(folder.glob("*.info*"), key=lambda each: natural(each.name)):
        # Long manuals are stored in numbered parts.
        manual = path.name.split(".info")[0]
        if fnmatch.fnmatch(path.name, source.only):
            manuals[manual] = manuals.get(manual, "") + decode(read_bytes(path))
    for manual, text in manuals.items():
        for title, chapter in info_chapters(text):
            if not re.search(r"(?i)index|copying|licen[cs]e|history", title):
                yield Section(name=f"{manual}.info#{title}", text=chapter, folder=manual)


def text_sections(source: Source, root: Path, _tools: Any) -> Iterable[Section]:
    for name, path in paths(source, root, source.suffixes or SUFFIXES["text"]):
        for title, text in numbered_chapters(decode(read_bytes(path))):
            label = f"{name}#{title}" if title else name
            yield Section(name=label, text=text, folder=posixpath.dirname(name))


def man_sections(
    source: Source, root: Path, tools: Any, *, least_bytes: int = 30_000, most_bytes: int = 10_000_000
) -> Iterable[Section]:
    """Single long pages, each a document: none is joined with another, which is a kind of fault.

    30 kB of roff are fewer than 16,384 tokens.
    """
    for path in sorted((root / "usr/share/man").glob("man*/*"), key=lambda each: natural(each.name)):
        if path.is_symlink() or not fnmatch.fnmatch(path.name, source.only):
            continue
        if least_bytes < len(read_bytes(path)) <= most_bytes:
            yield Section(name=str(path.relative_to(root)), text=man_text(path, tools.mandoc), folder=path.name)


def source_sections(source: Source, root: Path, _tools: Any) -> Iterable[Section]:
    """Source files by subpackage, in each those that are imported first; a comment names each file."""
    groups: dict[str, list[tuple[str, Path]]] = {}
    for name, path in paths(source, root, source.suffixes or SUFFIXES["source"]):
        groups.setdefault(posixpath.dirname(name), []).append((name, path))
    folders = sorted(groups)
    # Not all of a large tree is read, and what is should come from all over it.
    random.Random(source.package).shuffle(folders)
    for folder in folders:
        files = {name: decode(read_bytes(path)) for name, path in groups[folder]}
        files = {name: text for name, text in files.items() if text.count("\n") > 20}
        imports = {name: imported_names(name, text) - {stem(name)} for name, text in files.items()}
        for name in import_order(imports):
            mark = "#" if name.endswith((".py", ".rb", ".pl", ".pm")) else "//"
            yield Section(name=name, text=f"{mark} {name}\n{files[name]}\n", folder=folder)


READERS: dict[str, Callable[[Source, Path, Any], Iterable[Section]]] = {
    "html": html_sections,
    "pdf": pdf_sections,
    "vignettes": vignette_sections,
    "info": info_sections,
    "text": text_sections,
    "man": man_sections,
    "source": source_sections,
}


def join(sections: Iterable[Section], *, characters: int) -> list[Document]:
    """Neighbouring sections of one folder as one document until it is long enough for two rows.

    A section that is long enough stands alone, however long it is.
    """
    found: list[Document] = []
    gathered: list[Section] = []

    def close() -> None:
        if gathered:
            first, last = gathered[0].name, gathered[-1].name
            name = first if first == last else f"{first} .. {posixpath.basename(last)}"
            found.append(Document(name=name, text="\n".join(section.text for section in gathered)))
            gathered.clear()

    for section in sections:
        if gathered and (gathered[0].folder != section.folder or len(section.text) >= characters):
            close()
        gathered.append(section)
        if sum(len(each.text) for each in gathered) >= characters:
            close()
    close()
    return found
