"""Later documents with new keys of meta: rows grow, and a run, a subset and a signal know the first rows again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import Result

from ladm.corpus.rows.reading import open_rows
from ladm.storage.json_object import json_with_checksum
from support.documents import write_jsonl
from support.files import read_lines, read_object
from support.rows import rows_of

Command = Callable[..., Result]

LATER = {
    "a new key": {"year": 1999},
    "a new key in an object": {"more": {"deep": 1, "deeper": {"x": 2}}},
    "a key of another type": {"page": "seven", "more": [1]},
    "a list of objects": {"authors": [{"name": "a"}, {"name": "b", "orcid": "0"}]},
}


def documents(later: dict[str, Any]) -> list[dict[str, Any]]:
    first = {"pile_set_name": "A", "page": 7, "more": {"deep": 2}, "authors": [{"name": "x"}]}
    texts = [" ".join(f"w{(k * 7 + word * (k + 3)) % 300}" for word in range(300)) for k in range(12)]
    return [{"text": text, "meta": first | {"n": k} | (later if k > 6 else {})} for k, text in enumerate(texts)]


@pytest.mark.parametrize(
    "later", [later if "another type" in later else pytest.param(later, marks=pytest.mark.slow) for later in LATER]
)
def test_rows_and_their_run_grow_by_documents_with_other_keys(
    ladm: Command, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 3)
    source = write_jsonl(tmp_path / "d.jsonl", documents(LATER[later]))
    rows, run = tmp_path / "rows", tmp_path / "run"

    def prepare(output: Path, *more: Any) -> Result:
        return ladm("prepare", source, "--tokenizer", talking, "--length", "256", "-o", output, *more)

    def score(output: Path, *more: Any, signals: str = "cds") -> Result:
        flags = ("--dtype", "float32", "--device", "cpu", "--span-tokens", "8", "--signals", signals)
        return ladm("score", rows, "--model", talking, "-o", output, *flags, *more)

    assert prepare(rows, "--limit", "6").exit_code == 0
    first = open_rows(str(rows))
    data, content = first.identity(), first.content()
    result = score(run)
    assert result.exit_code == 0, result.output
    result = prepare(rows)
    assert result.exit_code == 0, result.output
    assert "adding to them" in result.stderr
    assert prepare(tmp_path / "fresh").exit_code == 0
    assert rows_of(rows) == rows_of(tmp_path / "fresh")
    assert open_rows(str(rows)).identity() == open_rows(str(tmp_path / "fresh")).identity()
    # The digest of the first rows as stored has changed, and that of their own content has not.
    assert open_rows(str(rows), limit=6).identity() != data
    assert open_rows(str(rows), limit=6).content() == content
    # What reads the run of the first rows still finds them.
    assert score(run, "--limit", "6").exit_code == 0
    assert ladm("verify", run, "--deep").exit_code == 0
    assert ladm("select", run, "--documents", "2", "-o", tmp_path / "subset").exit_code == 0
    added = score(run, "--limit", "6", signals="cds,context-gain")
    assert added.exit_code == 0, added.output
    # A run of the same rows that was scored after them: the two are compared, and their scores are combined.
    assert score(tmp_path / "later", "--limit", "6").exit_code == 0
    compared = ladm("compare", run, tmp_path / "later", "--columns", "score", "-o", tmp_path / "compare.html")
    assert compared.exit_code == 0, compared.output
    result = score(run)
    assert result.exit_code == 0, result.output
    assert "adding 6 rows to the 6 of the run" in result.stderr.splitlines()
    assert score(tmp_path / "once").exit_code == 0
    grown, once = ({line["index"]: line["score"] for line in read_lines(each / "sorted_by_score.jsonl")} for each in
                   (run, tmp_path / "once"))  # fmt: skip
    assert grown == once
    assert read_object(run / "run.json")["data"] == read_object(tmp_path / "once/run.json")["data"]
    assert ladm("verify", run, "--deep").exit_code == 0


def test_a_run_grows_by_the_first_documents_with_ids_of_their_own(
    ladm: Command, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 3)
    lines = [document | ({"id": f"book {k}"} if k > 6 else {}) for k, document in enumerate(documents({}))]
    source = write_jsonl(tmp_path / "d.jsonl", lines)
    rows, run, again = tmp_path / "rows", tmp_path / "run", tmp_path / "again"
    prepare = ("prepare", source, "--tokenizer", talking, "--length", "256", "-o", rows)
    flags = ("--model", talking, "--dtype", "float32", "--device", "cpu", "--span-tokens", "8", "--signals", "cds")
    for more in (("--limit", "6"), ()):
        for command in ((*prepare, *more), ("score", rows, *flags, "-o", run)):
            result = ladm(*command)
            assert result.exit_code == 0, result.output
    assert ladm("score", rows, *flags, "-o", tmp_path / "once").exit_code == 0
    grown, once = (pq.read_table(folder / "scores.parquet") for folder in (run, tmp_path / "once"))
    assert grown.equals(once)
    assert grown["id"].null_count == 7
    assert ladm("rescore", run, "--reduce", "median", "-o", again).exit_code == 0
    for folder in (run, again):
        result = ladm("verify", folder)
        assert result.exit_code == 0, result.output


def test_a_run_of_an_older_version_is_still_that_of_its_rows(ladm: Command, talking: Path, tmp_path: Path) -> None:
    """Its record has no digest of the rows' own content; that of the rows as stored is the same as ever."""
    source = write_jsonl(tmp_path / "d.jsonl", documents(LATER["a new key"]))
    rows, run = tmp_path / "rows", tmp_path / "run"
    assert ladm("prepare", source, "--tokenizer", talking, "--length", "256", "-o", rows).exit_code == 0
    flags = ("--dtype", "float32", "--device", "cpu", "--span-tokens", "8", "--signals", "cds")
    command = ("score", rows, "--model", talking, "-o", run, *flags)
    assert ladm(*command, "--limit", "8").exit_code == 0
    record = read_object(run / "run.json")
    del record["about"]["rows_content"]
    (run / "run.json").write_bytes(json_with_checksum(record))
    assert ladm("select", run, "--documents", "2", "-o", tmp_path / "subset").exit_code == 0
    result = ladm(*command)
    assert result.exit_code == 0, result.output
    assert "adding 4 rows to the 8 of the run" in result.stderr.splitlines()
    assert read_object(run / "run.json")["about"]["rows_content"] == open_rows(str(rows)).content()
    # Other rows are others by either digest.
    (tmp_path / "e.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in documents({})[::-1]))
    others = tmp_path / "others"
    assert ladm("prepare", tmp_path / "e.jsonl", "--tokenizer", talking, "--length", "256", "-o", others).exit_code == 0
    result = ladm("score", others, "--model", talking, "-o", run, *flags)
    assert (result.exit_code, "something else (the rows or --limit)" in result.stderr) == (1, True)
