"""Debian and Python packages -> plain texts: shared by the scripts that collect documents."""

from __future__ import annotations

import gzip
import html
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path


def unpack_debian(packages: list[str], root: Path) -> dict[str, str]:
    """Fetch Debian packages and unpack them all under `root`; nothing is installed. Returns their versions."""
    subprocess.run(["apt-get", "download", "-qq", *packages], cwd=root, check=True, stderr=subprocess.DEVNULL)
    versions = {}
    for package in packages:
        (archive,) = root.glob(f"{package}_*.deb")
        versions[package] = archive.name.split("_")[1]
        subprocess.run(["dpkg", "-x", archive, root], check=True)
    return versions


def unpack_wheels(requirements: list[str], root: Path) -> None:
    """Fetch the wheels of pinned requirements and unpack each under `root`/name; nothing is installed."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(root)]
    subprocess.run([*command, *requirements], check=True, stderr=subprocess.DEVNULL)
    for wheel in root.glob("*.whl"):
        subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(root)], check=True)


def read(path: Path) -> str:
    """The text of a file, unzipped; HTML without its tags."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = content.decode("utf-8", errors="replace").replace("\r\n", "\n")
    return plain(text) if path.name.removesuffix(".gz").endswith((".html", ".html.en")) else text


class Paragraphs(HTMLParser):
    """The text of a page, a line to each block; scripts, styles and navigation left out."""

    BLOCKS = frozenset("p div br li tr h1 h2 h3 h4 h5 pre dt dd table".split())
    SKIPPED = frozenset({"script", "style", "title", "head"})

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.skipping = 0

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        self.skipping += tag in self.SKIPPED
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.skipping -= tag in self.SKIPPED
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.parts.append(data)


def plain(page: str) -> str:
    """An HTML page as text."""
    parser = Paragraphs()
    parser.feed(page)
    text = html.unescape("".join(parser.parts)).replace("\xa0", " ")
    return re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).lstrip()
