"""The two converters that the pool needs, unpacked beside it: mandoc for manual pages, PDFium for PDF."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pool.fetch import fetch_debian, fetch_wheel

PDFIUM = "pypdfium2==5.15.2"


@dataclass(frozen=True, kw_only=True)
class Tools:
    mandoc: Path
    pdfium: Any
    """The module pypdfium2."""


def fetch_tools(folder: Path) -> Tools:
    root = (folder / "tools").resolve()
    if not root.exists():
        partial = root.with_suffix(".partial")
        partial.mkdir(exist_ok=True)
        partial.chmod(0o755)
        subprocess.run(["dpkg", "-x", fetch_debian("mandoc", folder / "archives"), partial], check=True)
        with zipfile.ZipFile(fetch_wheel(PDFIUM, folder / "archives", platform=())) as wheel:
            wheel.extractall(partial / "python")
        partial.rename(root)
    sys.path.append(str(root / "python"))
    # Outlines deeper than the chapters are cut off on purpose, and it would warn of each.
    logging.getLogger("pypdfium2").setLevel(logging.ERROR)
    return Tools(mandoc=root / "usr/bin/mandoc", pdfium=importlib.import_module("pypdfium2"))
