"""Debian packages -> documents.jsonl.gz: the toy's 32 documents, 22 coherent and 10 known to be incoherent.

Fetches the packages into a temporary folder, unpacks them there and installs nothing. Run it to see
where every document comes from, or after changing the list; the result is committed.

    python scripts/toy/build_documents.py
"""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from texts import read, unpack_debian

OUTPUT = Path(__file__).resolve().parents[2] / "ladm" / "data" / "documents.jsonl.gz"
CHARACTERS = 26_000
"""Length to which every document is cut; enough for 4,096 tokens of English with room to spare."""

HANDBOOK = "usr/share/doc/debian-handbook/html/en-US"
REFERENCE = "usr/share/developers-reference/_sources"
POLICY = "usr/share/doc/debian-policy"
POSTGRES = "usr/share/doc/postgresql-doc-15/html"
KERNEL = "usr/share/doc/linux-doc-6.1/Documentation"
PYTHON = "usr/lib/python3.11"
MISC = "usr/share"
PACKAGES = """
    base-files bible-kjv bible-kjv-text debian-handbook debian-policy developers-reference dpkg libpython3.11-minimal
    libpython3.11-stdlib linux-doc-6.1 miscfiles postgresql-doc-15 sqlite3-doc unicode-data wamerican
""".split()

# domain, title, path in the unpacked packages (or a book of the Bible), where to begin
COHERENT = [
    ("King James Bible", "Genesis", "gen1:1-25:34", ""),
    ("King James Bible", "Luke", "luke1:1-24:53", ""),
    ("King James Bible", "Acts", "acts1:1-28:31", ""),
    ("Debian manuals", "Handbook: installation steps", f"{HANDBOOK}/sect.installation-steps.html", ""),
    ("Debian manuals", "Handbook: package meta-information", f"{HANDBOOK}/sect.package-meta-information.html", ""),
    ("Debian manuals", "Reference: managing packages", f"{REFERENCE}/pkgs.rst.txt", ""),
    ("Debian manuals", "Reference: best packaging practices", f"{REFERENCE}/best-pkging-practices.rst.txt", ""),
    ("Standards", "Filesystem Hierarchy Standard", f"{POLICY}/fhs/fhs-3.0.txt.gz", "The Filesystem\n"),
    ("Standards", "Configuration management: debconf", f"{POLICY}/debconf_specification.txt.gz", ""),
    ("Standards", "Machine-readable copyright format", f"{POLICY}/copyright-format-1.0.txt.gz", ""),
    ("PostgreSQL", "Partitioning", f"{POSTGRES}/ddl-partitioning.html", ""),
    ("PostgreSQL", "Continuous archiving", f"{POSTGRES}/continuous-archiving.html", ""),
    ("PostgreSQL", "Routine vacuuming", f"{POSTGRES}/routine-vacuuming.html", ""),
    ("Linux kernel", "What is RCU?", f"{KERNEL}/RCU/whatisRCU.rst.gz", ""),
    ("Linux kernel", "Timestamping", f"{KERNEL}/networking/timestamping.rst.gz", ""),
    ("Linux kernel", "Kprobes", f"{KERNEL}/trace/kprobes.rst.gz", ""),
    ("Python source", "argparse.py", f"{PYTHON}/argparse.py", ""),
    ("Python source", "tarfile.py", f"{PYTHON}/tarfile.py", ""),
    ("Python source", "inspect.py", f"{PYTHON}/inspect.py", ""),
    ("Python source", "asyncio/base_events.py", f"{PYTHON}/asyncio/base_events.py", ""),
    ("Law", "Constitution of the United States", f"{MISC}/state/us-constitution.gz", ""),
    ("Law", "GNU General Public License", "usr/share/common-licenses/GPL-3", ""),
]
LISTS = [
    ("Word lists", "American English words", "usr/share/dict/american-english", "\nbe\n"),
    ("Word lists", "Airport codes", f"{MISC}/misc/airport.gz", ""),
    ("Character tables", "UnicodeData.txt", "usr/share/unicode/UnicodeData.txt", ""),
    ("Changelogs", "SQLite changelog", "usr/share/doc/sqlite3/changes.html", "2022"),
    ("Changelogs", "dpkg changelog", "usr/share/doc/dpkg/changelog.gz", ""),
]
PASTED = [("Pasted pieces", f"{pieces} pieces", pieces) for pieces in (8, 16, 24, 32)]
PIECES = [
    *[f"{POSTGRES}/{name}.html" for name in (
        "sql-select", "functions-matching", "xfunc-c", "protocol-flow", "libpq-connect", "runtime-config-logging",
        "using-explain", "functions-datetime", "warm-standby", "postgres-fdw", "hot-standby", "app-pgdump",
    )],
    *[f"{PYTHON}/{name}.py" for name in (
        "ast", "zipfile", "difflib", "smtplib", "locale", "csv", "dis", "cgi", "shutil", "uuid", "calendar", "imaplib",
    )],
    *[f"usr/share/doc/sqlite3/{name}.html" for name in (
        "fileformat2", "lang_select", "wal", "queryplanner", "json1", "howtocorrupt", "testing", "fts5",
    )],
]  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        unpack_debian(PACKAGES, root)
        documents = [*coherent(root), *incoherent(root)]
    random.Random(2503).shuffle(documents)
    lines = [json.dumps(document, ensure_ascii=False) + "\n" for document in documents]
    with OUTPUT.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0, compresslevel=9) as file:
        file.write("".join(lines).encode())
    print(f"{OUTPUT}: {len(documents)} documents, {OUTPUT.stat().st_size:,} bytes")


def coherent(root: Path) -> list[dict[str, object]]:
    return [
        document(domain, title, "coherent", bible(root, path) if ":" in path else read_from(root / path, begin))
        for domain, title, path, begin in COHERENT
    ]


def incoherent(root: Path) -> list[dict[str, object]]:
    texts = [(domain, title, read_from(root / path, begin)) for domain, title, path, begin in LISTS]
    texts.append(("Logs", "A web server's log", server_log()))
    texts += [(domain, title, paste(root, pieces)) for domain, title, pieces in PASTED]
    return [document(domain, title, "incoherent", text) for domain, title, text in texts]


def document(domain: str, title: str, expected: str, text: str) -> dict[str, object]:
    text = text[:CHARACTERS].rsplit("\n", 1)[0] + "\n"
    assert len(text) > CHARACTERS * 0.6, (title, len(text))
    return {"text": text, "meta": {"pile_set_name": domain, "expected": expected, "title": title}}


def read_from(path: Path, begin: str) -> str:
    """The text of a file from `begin` on; HTML without its tags."""
    text = read(path)
    return text[text.index(begin) :].lstrip("\n")


def bible(root: Path, verses: str) -> str:
    """Running text of some chapters, without verse numbers."""
    done = subprocess.run(
        [root / "usr/bin/bible", "-l9999", "-p", "usr/lib", verses],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return re.sub(r"(?m)^  \d+ ", "", done.stdout).lstrip("\n")


def server_log() -> str:
    """Lines such as a web server writes, made here, the same each time."""
    draw = random.Random(32)
    paths = ["/", "/index.html", "/style.css", "/api/items", "/login", "/favicon.ico", "/images/logo.png", "/search"]
    agents = ["Mozilla/5.0 (X11; Linux x86_64)", "curl/8.5.0", "Mozilla/5.0 (Macintosh)", "ExampleBot/2.1"]
    lines, second = [], 0
    while sum(map(len, lines)) < CHARACTERS:
        second += draw.randrange(1, 40)
        clock = f"{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"
        lines.append(
            f"192.0.2.{draw.randrange(1, 255)} - - [12/Mar/2025:{clock} +0000] "
            f'"GET {draw.choice(paths)}?id={draw.randrange(10**6)} HTTP/1.1" {draw.choice([200, 200, 304, 404, 500])} '
            f'{draw.randrange(100, 90000)} "-" "{draw.choice(agents)}"\n'
        )
    return "".join(lines)


def paste(root: Path, pieces: int) -> str:
    """Equal pieces from the middle of `pieces` different documents, in random order."""
    draw = random.Random(pieces)
    size = CHARACTERS // pieces
    cut: Callable[[str], str] = lambda text: text[len(text) // 3 :][:size]  # noqa: E731
    return "\n".join(cut(read_from(root / path, "")) for path in draw.sample(PIECES, pieces)) + "\n"


if __name__ == "__main__":
    main()
