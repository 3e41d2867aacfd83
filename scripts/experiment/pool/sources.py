"""sources.yaml -> the packages, as `Source`s, with the rule that held-out packages stand in no other list."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import yaml
from pool.extract import Source

SCRIPTS = Path(__file__).resolve().parents[2]

FORMATS = {"papers": "vignettes", "man pages": "man", "sources": "source"}
"""What a kind's packages hold unless an entry says otherwise; other kinds hold HTML."""


MOST = 8
MOST_OF_KIND = {"man pages": 4, "faults": 15}
"""Rows of a package at most: many packages with a few rows each are worth more than the reverse."""


def read_sources(path: Path) -> list[Source]:
    """Entries of the form `kind: {domain: [package, {package: name, format: ...}]}`, under `pool` and `held_out`."""
    content = yaml.safe_load(path.read_text())
    found = [
        source_of(entry, split, kind, domain)
        for split, kinds in content.items()
        for kind, domains in kinds.items()
        for domain, entries in domains.items()
        for entry in entries
    ]
    check_disjoint(found, reserved_packages())
    return found


def source_of(entry: str | dict[str, Any], split: str, kind: str, domain: str) -> Source:
    options = {"package": entry} if isinstance(entry, str) else dict(entry)
    if "suffixes" in options:
        # A dash stands for files without a suffix.
        options["suffixes"] = tuple(each.replace("-", "") for each in options["suffixes"].split())
    options.setdefault("format", FORMATS.get(kind, "html"))
    options.setdefault("most", MOST_OF_KIND.get(kind, MOST))
    return Source(split=split, kind=kind, domain=domain, **options)


def reserved_packages() -> set[str]:
    """Packages of the toy, of the calibration and of the earlier evaluation."""
    # Run as files: both are scripts, and their folders are not packages.
    sys.path.append(str(SCRIPTS))
    toy = runpy.run_path(str(SCRIPTS / "toy" / "build_documents.py"))
    bench = runpy.run_path(str(SCRIPTS / "bench" / "documents.py"))
    lists = [*bench["CALIBRATION"], *bench["EVALUATION"], *bench["LISTS"]]
    return {package for _, package, _, _ in lists} | set(toy["PACKAGES"])


def check_disjoint(sources: list[Source], reserved: set[str]) -> None:
    """Every package once; none that another part of the project was made with. Versions do not make a difference."""
    names = [source.package.partition("==")[0] for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"sources.yaml lists {', '.join(twice)} more than once")
    taken = sorted(set(names) & {package.partition("==")[0] for package in reserved})
    if taken:
        raise ValueError(f"{', '.join(taken)}: already used by the toy, the calibration or the earlier evaluation")
