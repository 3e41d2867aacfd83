"""The rows of the pool -> Markdown tables by kind and by package."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

SPLITS = ("pool", "held_out", "fault")


PACKAGE_COLUMNS = "| package | version | licence | kind | domain | pool | held out | faults |"


def markdown(rows: list[dict[str, Any]], packages: dict[str, dict[str, Any]], largest_share: float) -> str:
    """Rows by kind, by kind of fault and by package, with each package's version and licence."""
    total = Counter(row["split"] for row in rows)
    count = {split: {row["package"] for row in rows if row["split"] == split} for split in SPLITS}
    lines = [
        "# The pool of the selection experiment",
        "",
        "Written by `python scripts/experiment/pool/build.py`. Rows have 16,384 tokens of SmolLM2.",
        "",
        f"{total['pool']:,} rows in the pool from {len(count['pool'])} packages, {total['held_out']} held out from "
        f"{len(count['held_out'])} other packages, {total['fault']} natural faults for pool B. "
        f"No two rows share more than {largest_share:.1%} of their 13-grams of words.",
        "",
        "| kind | domains | packages | pool | held-out packages | held out |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += by_kind(rows)
    faults = Counter(row["fault_kind"] for row in rows if row["split"] == "fault")
    sources = defaultdict(set)
    for row in rows:
        sources[row["fault_kind"]].add(row["package"])
    lines += ["", "| natural fault | packages | rows |", "|---|---:|---:|"]
    lines += [f"| {kind} | {len(sources[kind])} | {rows_of} |" for kind, rows_of in sorted(faults.items())]
    lines += ["", PACKAGE_COLUMNS]
    lines += ["|---|---|---|---|---|---:|---:|---:|"]
    return "\n".join([*lines, *by_package(rows, packages)]) + "\n"


def other_versions(packages: dict[str, dict[str, Any]], page: str) -> list[str]:
    """The packages of a page that have another version now, such as `rsync 3.2.7 (3.5.0)` with that of the page."""
    now = {package.partition("==")[0]: facts["version"] for package, facts in packages.items()}
    found = []
    for line in page.partition(PACKAGE_COLUMNS)[2].strip().splitlines()[1:]:
        name, version = line.strip("| ").split(" | ")[:2]
        if now.get(name) != version:
            found.append(f"{name} {now.get(name, 'missing')} ({version})")
    return found


def by_kind(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for kind in sorted({row["kind"] for row in rows if row["split"] != "fault"}):
        of_kind = [row for row in rows if row["kind"] == kind]
        domains = len({row["domain"] for row in of_kind if row["split"] != "fault"})
        cells = [str(domains)]
        for split in ("pool", "held_out"):
            of_split = [row for row in of_kind if row["split"] == split]
            cells += [str(len({row["package"] for row in of_split})), str(len(of_split))]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return lines


def by_package(rows: list[dict[str, Any]], packages: dict[str, dict[str, Any]]) -> list[str]:
    count = Counter((row["package"], row["split"]) for row in rows)
    domain = {row["package"]: row["domain"] for row in rows}
    lines = []
    for package, facts in sorted(packages.items(), key=lambda each: (each[1]["kind"], each[0])):
        cells = [str(count[package, split] or "") for split in SPLITS]
        if any(cells):
            licence = facts["licence"].replace("|", "/")
            name = package.partition("==")[0]
            facts_of = [name, facts["version"], licence, facts["kind"], domain[package]]
            lines.append(f"| {' | '.join([*facts_of, *cells])} |")
    return lines
