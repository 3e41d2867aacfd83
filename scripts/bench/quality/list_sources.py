"""Real lists of nine types out of packages that the experiment's pool uses: (type, package) and where they are.

Each row of a type is from a source of its own: another package.
"""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pool.fetch import find_wheels, wheel_pattern
from pool.formats import decode, html_text

CHANGELOGS, LOGS, FILE_LISTS, INDICES = "changelogs", "test logs", "file lists", "indices"
TYPE_OF_PACKAGE = {
    "pci.ids": "registers",
    "usb.ids": "registers",
    "publicsuffix": "registers",
    "nmap-common": "registers",
    "libwireshark-data": "registers",
    "shared-mime-info": "registers",
    "iso-codes": "registers",
    "tzdata": "registers",
    "unicode-cldr-core": "translated names",
    "xkb-data": "keyboard tables",
    "libx11-data": "keyboard tables",
    "fonts-urw-base35": "tables of characters",
    "poppler-data": "tables of characters",
    "hunspell-en-us": "word lists",
    "scowl": "word lists",
}
"""The registers of the pool are of several types."""
INDEX_PAGES = {
    "bind9-doc": "usr/share/doc/bind9-doc/arm/genindex.html",
    "cmake-doc": "usr/share/doc/cmake-data/html/genindex.html",
    "db5.3-doc": "usr/share/doc/db5.3-doc/java/index-all.html",
    "frr-doc": "usr/share/doc/frr/html/genindex.html",
    "gammu-doc": "usr/share/doc/gammu/html/genindex.html",
    "groovy-doc": "usr/share/doc/groovy/api/index-all.html",
    "keystone-doc": "usr/share/doc/keystone-doc/html/genindex.html",
    "knot-resolver-doc": "usr/share/doc/knot-resolver/genindex.html",
    "krb5-doc": "usr/share/doc/krb5-doc/genindex-all.html",
    "llvm-16-doc": "usr/share/doc/llvm-16-doc/html/genindex.html",
    "python-celery-doc": "usr/share/doc/python-celery-doc/html/genindex.html",
    "python-django-doc": "usr/share/doc/python-django-doc/html/genindex.html",
    "python-ezdxf-doc": "usr/share/doc/python-ezdxf-doc/html/genindex.html",
    "python-pygame-doc": "usr/share/doc/python-pygame-doc/html/genindex.html",
    "python3.11-doc": "usr/share/doc/python3.11/html/genindex-all.html",
}


@dataclass(frozen=True, kw_only=True)
class Text:
    """A document or a list: its type, its package, its name inside the package, and its text."""

    type: str
    package: str
    document: str
    text: str


def real_lists(pool: list[dict[str, Any]], archives: Path, wheels: list[str]) -> Iterator[Text]:
    """One list of each type from every package that has one: those of the pool, file lists and indices."""
    seen: set[tuple[str, str]] = set()
    for row in pool:
        type_ = {"changelogs": CHANGELOGS, "logs": LOGS}.get(row["fault_kind"], TYPE_OF_PACKAGE.get(row["package"]))
        if row["fault_kind"] in ("changelogs", "logs", "registers") and type_ and (type_, row["package"]) not in seen:
            seen.add((type_, row["package"]))
            yield Text(type=type_, package=row["package"], document=row["document"], text=row["text"])
    for wheel in wheels:
        for archive in find_wheels(archives, wheel_pattern(wheel)):
            with zipfile.ZipFile(archive) as files:
                (name,) = (name for name in files.namelist() if name.endswith(".dist-info/RECORD"))
                yield Text(type=FILE_LISTS, package=wheel, document=name, text=decode(files.read(name)))
    for package, page in INDEX_PAGES.items():
        (archive,) = archives.glob(f"{package}_*.deb")
        yield Text(type=INDICES, package=package, document=page, text=html_text(file_of(archive, page)))


def file_of(archive: Path, path: str) -> bytes:
    """One file of a Debian archive, without unpacking the others."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as tar:
        found = subprocess.run(["tar", "-xO", f"./{path}"], stdin=tar.stdout, capture_output=True, check=True)
        # Otherwise dpkg-deb would wait for ever to write the files after the wanted one.
        if tar.stdout is not None:
            tar.stdout.close()
    return found.stdout
