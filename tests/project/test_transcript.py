"""docs/transcript.md: its commands are those of the script that makes it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from support.paths import ROOT

_SPEC = importlib.util.spec_from_file_location("transcript", ROOT / "scripts" / "docs" / "transcript.py")
assert _SPEC is not None
assert _SPEC.loader is not None
transcript = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(transcript)


def test_the_page_is_that_of_the_script() -> None:
    page = (ROOT / "docs" / "transcript.md").read_text(encoding="utf-8")
    parts = page.split("```console\n$ ")
    commands = [transcript.shell(command) for command in transcript.commands(transcript.LENGTH_TOKENS)]
    assert [part[: len(command)] for part, command in zip(parts[1:], commands, strict=True)] == commands
    assert page.startswith(transcript.HEAD)
    assert page.endswith(transcript.TAIL)


def test_the_corpus_has_keys_of_its_own(tmp_path: Path) -> None:
    transcript.make_corpus(tmp_path / "corpus")
    files = sorted((tmp_path / "corpus").iterdir())
    records = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert len(records) == transcript.MOST_DOCUMENTS
    assert {tuple(record) for record in records} == {("name", "collection", "url", "body")}
