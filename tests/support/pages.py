"""Parsing a page of `ladm report`: its tags, its words, its data, and that nothing in it does harm."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from support.paths import ROOT

VOID = {"wbr", "meta", "link", "br", "img", "input"}

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<style>body{display:none}</style>",
    "\x00\x1b[31mred\x9b",
    "\u202egpj.exe",
    "\ud800 half",
    '"><a href="http://example.org/">',
    "{{ 7 * 7 }}",
    "x" * 5000,
    "../../etc",
    "[" * 5000,
]


class Page(HTMLParser):
    """Collects what is on a page, and insists that its tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.first_half = ""
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        # A place where a word may be broken is no space.
        self.first_half = self.words.pop() if tag == "wbr" else ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.words.append(self.first_half + data)
            self.first_half = ""

    @property
    def text(self) -> str:
        """The words, with a space wherever a tag stands between them."""
        return re.sub(r"\s+", " ", " ".join(self.words))


def require_harmless(page: Page) -> None:
    """No script but the page's own, no handlers, nothing fetched from anywhere, and a policy that says the same."""
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [
        {"type": "application/json", "id": "x-data"}, {},
    ]  # fmt: skip
    data, script = page.scripts
    assert set(json.loads(data)) == {"run", "scored", "domains", "columns", "documents", "subset"}
    assert not set("<>&") & set(data)
    assert script == (ROOT / "ladm" / "report" / "templates" / "explorer.js").read_text().strip()
    assert "innerHTML" not in script
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert not {tag for tag, _ in page.tags} & {"iframe", "object", "embed", "link", "form", "base", "img"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "xlink:href", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or (tag == "image" and value.startswith("data:image/png;"))
    (policy,) = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )


def data_of(page: Path) -> dict[str, Any]:
    """What the explorer of a page reads."""
    found = re.search(r'<script type="application/json" id="x-data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data
