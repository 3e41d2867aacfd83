"""The map of modules beside the modules, and the length of the README. Links are checked in `test_cli.py`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_map_lists_every_module_once() -> None:
    page = (ROOT / "docs" / "develop.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \| .* \| (.*) \|$", page, re.MULTILINE)
    listed = sorted(f"{folder}/{module}" for folder, cell in rows for module in re.findall(r"`([\w/]+)`", cell))
    package = ROOT / "ladm"
    modules = [path.relative_to(package).with_suffix("") for path in package.rglob("*.py") if path.stem != "__init__"]
    assert listed == sorted(str(module) for module in modules if len(module.parts) > 1)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
