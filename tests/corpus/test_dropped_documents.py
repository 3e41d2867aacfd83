"""`dropped.jsonl`: every document that `ladm prepare` dropped, the same bytes after a kill, and after growth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from support.documents import write_jsonl
from support.files import read_lines, read_object
from support.long_documents import text
from support.stopped_preparation import Killed, die_after

Prepare = Callable[..., Result]
LONG = 128


def document(k: int, words: int = 120) -> dict[str, Any]:
    return {"text": text(k, words), "id": f"d{k}", "domain": "d"}


def corpus(path: Path) -> Path:
    """Kept, too short, a copy of the first, no JSON, kept, no text, too short, a copy of the fifth, kept."""
    records = [
        document(0), document(1, 8), document(0) | {"id": "again"}, document(2), {"id": 7, "domain": "d"},
        document(3, 9), document(2) | {"id": 9}, document(4),
    ]  # fmt: skip
    lines = [json.dumps(record).encode() for record in records]
    path.write_bytes(b"\n".join([*lines[:3], b"not json", *lines[3:]]) + b"\n")
    return path


def flags(source: Path) -> tuple[Any, ...]:
    return source, "--length", LONG, "--domain-key", "domain"


def test_every_dropped_document_is_listed(prepare: Prepare, tmp_path: Path) -> None:
    source = corpus(tmp_path / "d.jsonl")
    (tmp_path / "b.jsonl").write_text('[\n{"text": "a"}\n]\n')
    result = prepare(tmp_path / "b.jsonl", *flags(source))
    assert result.exit_code == 0, result.output
    path = tmp_path / "rows/dropped.jsonl"
    bad, *entries = read_lines(path)
    assert (bad["source"], bad["reason"]) == (str(tmp_path / "b.jsonl"), "bad_file")
    assert bad["message"].startswith(f"cannot read {tmp_path / 'b.jsonl'}: it is one JSON value")
    short, second = (entry.pop("document_tokens") for entry in (entries[0], entries[4]))
    assert 0 < short < second < LONG
    copied = (entries[1].pop("document_tokens"), entries[5].pop("document_tokens"))
    assert min(copied) >= LONG
    assert entries == [
        {"source": f"{source} line 2", "document": 1, "id": "d1", "reason": "too_short"},
        {"source": f"{source} line 3", "document": 2, "id": "again", "reason": "duplicate", "copy_of": 0},
        {"source": f"{source} line 4", "document": 3, "reason": "not_json"},
        {"source": f"{source} line 6", "document": 5, "id": "7", "reason": "no_text"},
        {"source": f"{source} line 7", "document": 6, "id": "d3", "reason": "too_short"},
        {"source": f"{source} line 8", "document": 7, "id": "9", "reason": "duplicate", "copy_of": 1},
    ]
    assert f"{'dropped':<10} {6:>12,}  documents and 1 file, listed in {path}\n" in result.stdout
    as_json = json.loads(prepare(tmp_path / "b.jsonl", *flags(source), "--json").stdout)
    assert as_json["dropped_file"] == str(path)
    assert sum(as_json["documents"].values()) == 9


def test_nothing_dropped_is_an_empty_list(prepare: Prepare, tmp_path: Path) -> None:
    result = prepare(*flags(write_jsonl(tmp_path / "d.jsonl", [document(0)])))
    assert (tmp_path / "rows/dropped.jsonl").read_bytes() == b""
    assert "dropped.jsonl" not in result.output


@pytest.mark.parametrize("stop_at", range(8))
def test_a_killed_and_resumed_preparation_lists_the_same(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:  # fmt: skip
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 2)
    source = corpus(tmp_path / "d.jsonl")
    assert prepare(*flags(source), output="whole").exit_code == 0
    with monkeypatch.context() as patch:
        die_after(patch, stop_at)
        # Five blocks, the list and the record are written.
        if stop_at < 7:
            with pytest.raises(Killed):
                prepare(*flags(source))
            assert not (tmp_path / "rows/prepare.json").exists()
    assert prepare(*flags(source)).exit_code == 0
    whole, resumed = (tmp_path / name / "dropped.jsonl" for name in ("whole", "rows"))
    assert resumed.read_bytes() == whole.read_bytes() != b""


def test_a_preparation_that_grew_lists_the_same(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 2)
    source = corpus(tmp_path / "d.jsonl")
    assert prepare(*flags(source), output="whole").exit_code == 0
    listed = []
    for limit in (("--limit", 1), ("--limit", 2), ()):
        assert prepare(*flags(source), *limit).exit_code == 0
        listed.append(read_lines(tmp_path / "rows/dropped.jsonl"))
    # What is behind the last row counts for nothing, although documents are read in blocks.
    assert [len(entries) for entries in listed] == [0, 3, 6]
    assert (tmp_path / "rows/dropped.jsonl").read_bytes() == (tmp_path / "whole/dropped.jsonl").read_bytes()


def test_documents_behind_the_last_row_are_not_counted(prepare: Prepare, tmp_path: Path) -> None:
    source = corpus(tmp_path / "d.jsonl")
    result = prepare(*flags(source), "--limit", 2)
    # The documents before that with the last row: too short, a copy of the first, no JSON.
    assert result.stdout.splitlines()[:5] == [
        "kept                  2  documents of at least 128 tokens",
        "limit                 2  rows: --limit stopped there; documents after the last row are not counted",
        "too_short             1  document dropped: fewer tokens than --length",
        "not_json              1  document dropped: the line is not a JSON object in UTF-8",
        "duplicate             1  document dropped: every row has the ids of an earlier row",
    ]
    assert f"\ndropped               3  documents, listed in {tmp_path}/rows/dropped.jsonl\n" in result.stdout
    assert [entry["document"] for entry in read_lines(tmp_path / "rows/dropped.jsonl")] == [1, 2, 3]
    counted = {"kept": 2, "too_short": 1, "not_json": 1, "duplicate": 1}
    assert read_object(tmp_path / "rows/prepare.json")["counts"] == counted
    windows = prepare(*flags(source), "--limit", 1, "--windows", "all", output="windows")
    assert windows.stdout.startswith(
        "kept                  1  document of at least 128 tokens\nlimit                 1  row: "
    )
    again = prepare(*flags(source), "--limit", 2)
    assert again.stdout == result.stdout
    # As many rows as there are: the documents behind the last one have none.
    assert prepare(*flags(source)).exit_code == 0
    counted = {"kept": 3, "too_short": 2, "not_json": 1, "duplicate": 2, "no_text": 1}
    assert read_object(tmp_path / "rows/prepare.json")["counts"] == counted


def test_an_id_beyond_all_bounds_is_left_out_of_the_list(prepare: Prepare, tmp_path: Path) -> None:
    records = [document(0), document(1, 2) | {"id": "x" * 1001}]
    assert prepare(*flags(write_jsonl(tmp_path / "d.jsonl", records))).exit_code == 0
    assert "id" not in read_lines(tmp_path / "rows/dropped.jsonl")[0]


def test_the_list_is_no_document_of_a_later_corpus(prepare: Prepare, tmp_path: Path) -> None:
    source = corpus(tmp_path / "c.jsonl")
    assert prepare(*flags(source), "--output", tmp_path / "first").exit_code == 0
    found = prepare(*flags(Path(f"{tmp_path}/**/*.jsonl")), "--output", tmp_path / "second")
    assert found.exit_code == 0, found.output
    first, second = (read_lines(tmp_path / folder / "dropped.jsonl") for folder in ("first", "second"))
    assert first == second
    assert len(first) == 6
