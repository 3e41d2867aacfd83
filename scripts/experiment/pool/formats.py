"""Files of the kinds that packages hold (HTML, PDF, Info, manual pages, plain text) -> sections of plain text."""

from __future__ import annotations

import bz2
import gzip
import html
import lzma
import re
import subprocess
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

COMPRESSED = {".gz": gzip.decompress, ".xz": lzma.decompress, ".bz2": bz2.decompress}
BOILERPLATE_SHARE = 0.3
"""A line in more than this share of a package's pages is navigation, not text."""


LIGATURES = ("ff", "fi", "fl", "ffi", "ffl")
TEX_CHARACTERS = {
    # Fonts without a table of their characters give TeX's codes: ligatures in the encodings OT1 and T1, quotes, dashes.
    **{0x0B + k: letters for k, letters in enumerate(LIGATURES)},
    **{0x1B + k: letters for k, letters in enumerate(LIGATURES)},
    **{0xFB00 + k: letters for k, letters in enumerate(LIGATURES)},
    0x10: '"',
    0x11: '"',
    0x15: "-",
    0x16: " - ",
}


@dataclass(frozen=True, kw_only=True)
class Section:
    name: str
    """Path below the package's root, with the chapter's title or number where a file has several."""
    text: str
    folder: str
    """Sections of one folder may be joined to one document."""


def read_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return COMPRESSED[path.suffix](content) if path.suffix in COMPRESSED else content


def decode(content: bytes) -> str:
    """UTF-8, or else Latin-1, with Unix line ends and no blanks at line ends."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " ")
    return re.sub(r"[ \t]+\n", "\n", text)


SKIPPED = r"(?is)<(script|style|title|head|nav|footer|button|noscript|svg|select)\b.*?</\1\s*>|<!--.*?-->"
BLOCKS = r"(?i)</?(p|div|br|li|ul|ol|dl|tr|h[1-6]|pre|dt|dd|table|section|article|blockquote|hr)\b[^>]*>"
CELLS = r"(?i)</t[dh]\b[^>]*>"


def html_text(content: bytes) -> str:
    """A page as text, a line to each block, without scripts, styles and navigation.

    Expressions instead of a parser: ten times as fast, and exact enough for pages that programs wrote.
    """
    page = re.sub(BLOCKS, "\n", re.sub(CELLS, " ", re.sub(SKIPPED, "", decode(content))))
    text = html.unescape(re.sub(r"(?s)<[^>]*>", "", page)).replace("\xa0", " ")
    text = re.sub(r"(?m)^[ \t]*(Next|Prev|Previous|Up|Top|Contents|Home|Index)\b[:.,]?.{0,80}$", "", text)
    return re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip() + "\n"


def man_text(path: Path, mandoc: Path) -> str:
    """A manual page as a terminal of 100 columns shows it, without bold and underlining."""
    done = subprocess.run(
        [mandoc, "-T", "utf8", "-O", "width=100"], input=read_bytes(path), capture_output=True, check=False
    )
    text = re.sub(r".\x08", "", decode(done.stdout))
    return re.sub(r"\n{3,}", "\n\n", text)


def info_chapters(text: str) -> list[tuple[str, str]]:
    """An Info file's chapters: a title underlined with asterisks begins one."""
    # What stands before a node's title is its header line; \x1f separates nodes, and tags follow the last one.
    text = text.split("\x1f\nTag Table:")[0]
    text = re.sub(r"\x1f\nFile: .*\n", "", text)
    text = re.sub(r"(?ms)^\* Menu:.*?(?=^\S(?!\*))", "", text)
    return split_at(text, r"(?m)^(.+)\n\*{4,}$")


def numbered_chapters(text: str) -> list[tuple[str, str]]:
    """A long plain text's chapters, where it numbers them; else the whole text."""
    return split_at(
        text, r"(?m)^(?:\f ?|\s{0,12})((?:CHAPTER|Chapter|Part|PART|Appendix|APPENDIX) [\dIVXA-Z]+\b.{0,70})$"
    )


def split_at(text: str, heading: str) -> list[tuple[str, str]]:
    """(title, text) from each heading to the next; what stands before the first is left out if there is one."""
    found = list(re.finditer(heading, text))
    if not found:
        return [("", text)]
    ends = [each.start() for each in found[1:]] + [len(text)]
    return [(each[1].strip(), text[each.start() : end]) for each, end in zip(found, ends, strict=True)]


def pdf_chapters(content: bytes, pdfium: Any) -> list[tuple[str, str]]:
    """A PDF's chapters by its outline, if it has pages enough for several; else the whole document."""
    document = pdfium.PdfDocument(content)
    pages = [pdf_page_text(page) for page in document]
    pages = without_common_lines(pages)
    starts = {0: ""}
    for entry in document.get_toc(max_depth=1):
        destination = entry.get_dest()
        index = destination.get_index() if destination else None
        if index is not None and len(pages) > 60:
            starts[index] = str(entry.get_title() or "")
    document.close()
    order = sorted(starts)
    ends = [*order[1:], len(pages)]
    return [(starts[a], "\n".join(pages[a:b])) for a, b in zip(order, ends, strict=True)]


def pdf_page_text(page: Any) -> str:
    text_page = page.get_textpage()
    text = text_page.get_text_range().replace("\r\n", "\n")
    text_page.close()
    page.close()
    # U+FFFE stands for the hyphen of a word that is divided at the end of its line.
    text = re.sub("[\ufffe\x02]\n?", "", text).translate(TEX_CHARACTERS)
    return re.sub(r"[\x00-\x08\x0b-\x1f]", "", text) + "\n"


def without_common_lines(texts: list[str]) -> list[str]:
    """Pages without the lines that many of them have, whatever number stands in them: headers, footers, menus."""
    if len(texts) < 6:
        return texts
    keys = [[without_number(line) for line in text.split("\n")] for text in texts]
    count = Counter(each for of_page in keys for each in set(of_page))
    common = {each for each, pages in count.items() if pages > BOILERPLATE_SHARE * len(texts) and len(each) > 2}
    if not common:
        return texts
    return [
        "\n".join(line for line, key in zip(text.split("\n"), of_page, strict=True) if key not in common)
        for text, of_page in zip(texts, keys, strict=True)
    ]


def without_number(line: str) -> str:
    """A line without the number at its end or its beginning: a page's, or a section's."""
    return line.strip(" \t0123456789.-|")


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which part 10 follows part 9."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def drop_common_lines(sections: list[Section]) -> list[Section]:
    texts = without_common_lines([section.text for section in sections])
    return [
        replace(section, text=re.sub(r"\n{3,}", "\n\n", text)) for section, text in zip(sections, texts, strict=True)
    ]
