"""Documents with the id of another: scores are joined by id, so `ladm prepare` reports them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from support.documents import write_jsonl
from support.files import read_object
from support.long_documents import text

Prepare = Callable[..., Result]
IDS = ["a", "b", None, "b", 7, None, "short", "short", "7", "b"]


def corpus(path: Path) -> Path:
    """Of the two with the id `short` one is dropped; two have no id; 7 and "7" are the same id."""
    return write_jsonl(
        path, [{"text": text(k, 3 if k == 6 else 120), "id": own_id, "domain": "d"} for k, own_id in enumerate(IDS)]
    )


def same_id(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return next((line for line in result.stdout.splitlines() if line.startswith("same_id")), "")


def test_repeated_ids_are_reported(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 3)
    source = corpus(tmp_path / "d.jsonl")
    command = (source, "--domain-key", "domain")
    line = (
        f"same_id               3  documents with the id of an earlier one, such as b ({source} line 2 and {source} "
        "line 4): scores cannot be joined to them by id; use source, or give --id-key a key with unique values"
    )
    assert same_id(prepare(*command)) == line
    found = {"documents": 3, "id": "b", "sources": [f"{source} line 2", f"{source} line 4"]}
    assert read_object(tmp_path / "rows/prepare.json")["repeated_ids"] == found
    again = prepare(*command, "--json")
    assert json.loads(again.stdout)["repeated_ids"] == found
    assert same_id(prepare(*command)) == line


def test_ids_beyond_the_limit_and_of_windows_are_not_repeated(
    prepare: Prepare, tmp_path: Path
) -> None:  # fmt: skip
    source = corpus(tmp_path / "d.jsonl")
    command: tuple[Any, ...] = (source, "--domain-key", "domain", "--windows", 2)
    assert same_id(prepare(*command, "--limit", 6)) == ""
    assert "1  document with the id of an earlier one, such as b (" in same_id(prepare(*command, "--limit", 8))
    assert read_object(tmp_path / "rows/prepare.json")["repeated_ids"]["documents"] == 1
    unique = write_jsonl(tmp_path / "u.jsonl", [{"text": text(k), "id": k, "domain": "d"} for k in range(3)])
    assert same_id(prepare(unique, "--domain-key", "domain", output="unique")) == ""
    assert read_object(tmp_path / "unique/prepare.json")["repeated_ids"] is None


def test_an_id_cannot_rewrite_the_terminal(prepare: Prepare, tmp_path: Path) -> None:
    records = [{"text": text(k), "id": "x\n\x1b[2J" + "y" * 100, "domain": "d"} for k in range(2)]
    line = same_id(prepare(write_jsonl(tmp_path / "d.jsonl", records), "--domain-key", "domain"))
    assert f"such as x??[2J{'y' * 33}… (" in line
