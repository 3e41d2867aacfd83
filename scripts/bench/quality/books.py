"""Books from Debian packages and a pip package -> a pack of documents, as `rows.py pack` makes one, for `score.sh`.

    python scripts/bench/quality/books.py runs/quality/archives runs/quality/books.parquet
    MOST=20 CALIBRATED=none scripts/bench/quality/score.sh runs/quality/books.parquet MODEL runs/quality/out-books 4096
    python scripts/bench/quality/report.py runs/quality/books.parquet runs/quality/out-books --model MODEL \\
        --calibrated none -o scripts/bench/results/quality-books

What the other packs hold is nearly all documentation and source code of software. Here are a novel, a tale, a play, a
poem, a treatise on optics, the record of a workshop, a political handbook and a dictionary of slang; four parts of
each, all of half 1. Each book counts as a package.
"""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiment"))
from pool.fetch import fetch_debian_packages, unpack

from ladm.calibration.contrast import INTACT
from ladm.calibration.contrast_scores import JUDGED_ON

PARTS = 4
PART_CHARACTERS = 26_000
"""More than 4,096 tokens of prose, and four times less than the shortest of the books."""
BROTLI = "Brotli==1.1.0"
TEST_DATA = "Brotli-1.1.0/tests/testdata"


@click.command(help=__doc__.splitlines()[0])
@click.argument("archives", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
def main(archives: Path, output: Path) -> None:
    archives.mkdir(parents=True, exist_ok=True)
    rows = [
        {"kind": INTACT, "type": "books", "package": name, "document": f"{name} {k}", "half": JUDGED_ON, "text": text}
        for name, book in all_books(archives).items()
        for k, text in enumerate(parts_of(book))
    ]
    pq.write_table(pa.Table.from_pylist(rows), output, compression="zstd")
    print(f"{output}: {len(rows)} parts of {len(rows) // PARTS} books")


def parts_of(book: str) -> list[str]:
    """Parts of the book that do not overlap, the first not at its beginning, which may be a title page or a licence."""
    step = len(book) // PARTS
    starts = [(step - PART_CHARACTERS) // 2 + step * k for k in range(PARTS)]
    return [book[start : start + PART_CHARACTERS] for start in starts]


def all_books(archives: Path) -> dict[str, str]:
    """The texts by name."""
    books = {name: text.replace("\r\n", "\n") for name, text in of_brotli(archives).items()}
    readers: dict[str, tuple[str, Callable[[Path], str]]] = {
        "Opticks": ("golang-1.19-src", lambda root: plain(one(root, "Isaac.Newton-Opticks.txt"))),
        "Moby-Dick": ("r-cran-tokenizers", lambda root: of_r_data(one(root, "tokenizers/data/Rdata.rdb"))),
        "An Anarchist FAQ": ("anarchism", of_anarchism),
        "The Jargon File": (
            "jargon-text",
            lambda root: plain(gzip.decompress(one(root, "jargon.txt.gz"))),
        ),
    }
    fetch_debian_packages([package for package, _ in readers.values()], archives)
    for name, (package, read) in readers.items():
        with unpack(package, archives) as found:
            books[name] = read(found.root)
    return books


def of_brotli(archives: Path) -> dict[str, str]:
    """Four books of the Canterbury and Calgary corpora, which the package's source has to test compression."""
    path = archives / "Brotli-1.1.0.tar.gz"
    if not path.exists():
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "-d", str(archives), BROTLI], check=True)
    names = {
        "Alice's Adventures in Wonderland": "alice29.txt",
        "As You Like It": "asyoulik.txt",
        "Paradise Lost": "plrabn12.txt",
        "Workshop on Electronic Texts": "lcet10.txt",
    }
    with tarfile.open(path) as archive:
        return {name: plain(archive.extractfile(f"{TEST_DATA}/{file}").read()) for name, file in names.items()}  # type: ignore[union-attr]


def one(root: Path, name: str) -> bytes:
    """The content of the file whose path ends like this."""
    (found,) = (path for path in root.rglob(Path(name).name) if str(path).endswith(name))
    return found.read_bytes()


def plain(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def of_r_data(content: bytes) -> str:
    """The longest object of a file of R, whose lines of text stand between a few bytes of other things."""
    longest, place = b"", content.find(b"\x78\x9c")
    while place >= 0:
        try:
            found = zlib.decompressobj().decompress(content[place:])
        except zlib.error:
            found = b""
        longest = max(longest, found, key=len)
        place = content.find(b"\x78\x9c", place + 1)
    return "\n".join(line.decode() for line in re.findall(rb"[\x20-\x7e\n]{20,}", longest))


def of_anarchism(root: Path) -> str:
    """Sections A to C of the FAQ, without markup."""
    files = sorted(root.glob("usr/share/doc/anarchism/html/sec[A-C]*.html"))
    return "\n\n".join(text_of_page(plain(path.read_bytes())) for path in files)


class _Words(HTMLParser):
    """What a page shows, a paragraph a line."""

    BLOCKS = frozenset("p div h1 h2 h3 h4 h5 li br tr pre blockquote".split())
    HIDDEN = frozenset(("script", "style", "head"))

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in self.HIDDEN
        self.words += ["\n"] * (tag in self.BLOCKS)

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in self.HIDDEN
        self.words += ["\n"] * (tag in self.BLOCKS)

    def handle_data(self, data: str) -> None:
        if self._hidden <= 0:
            self.words.append(re.sub(r"\s+", " ", data))


def text_of_page(page: str) -> str:
    parser = _Words()
    parser.feed(page)
    return re.sub(r"\n\s*\n+", "\n\n", "".join(parser.words)).strip()


if __name__ == "__main__":
    main()
