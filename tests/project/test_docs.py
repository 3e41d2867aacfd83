"""The map of modules beside the modules, the length of the README, and every link inside the pages."""

from __future__ import annotations

import re
from pathlib import Path

from support.paths import ROOT


def test_map_lists_every_module_once() -> None:
    page = (ROOT / "docs" / "develop.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/]+)/` \| .* \| (.*) \|$", page, re.MULTILINE)
    listed = sorted(f"{folder}/{module}" for folder, cell in rows for module in re.findall(r"`([\w/]+)`", cell))
    package = ROOT / "ladm"
    modules = [path.relative_to(package).with_suffix("") for path in package.rglob("*.py") if path.stem != "__init__"]
    assert listed == sorted(str(module) for module in modules if len(module.parts) > 1)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1700


def test_every_link_leads_to_a_file_and_a_heading_that_exist() -> None:
    folders = ("docs", "examples", "ladm", "scripts", "configs", "tests")
    pages = [*ROOT.glob("*.md"), *(page for name in folders for page in (ROOT / name).rglob("*.md"))]
    assert len(pages) > 15
    missing = []
    for page in pages:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)]+)\)", text):
            path, _, heading = link.partition("#")
            if "://" in path or path.startswith("mailto:"):
                continue
            target = page if not path else (page.parent / path).resolve()
            if not target.exists() or (heading and heading not in anchors(target)):
                missing.append(f"{page.relative_to(ROOT)}: {link}")
    assert not missing


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    names = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {f"{name}-{names[:k].count(name)}" if name in names[:k] else name for k, name in enumerate(names)}
