"""How many rows each domain has, which `ladm prepare` prints: quotas are planned on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from ladm.corpus.preparation import domain_counts, report
from support.documents import write_jsonl
from support.files import read_object
from support.long_documents import text

Prepare = Callable[..., Result]
DOMAINS = ["web", "code", "web", None, "web", "code\n\x1b[2J", "web", None, None, "code"]


def corpus(path: Path, domains: list[str | None] = DOMAINS) -> Path:
    """The tenth document is too short."""
    texts = [text(k, 3 if k == 9 else 120) for k in range(len(domains))]
    records = [{"text": each, "domain": name} for each, name in zip(texts, domains, strict=True)]
    return write_jsonl(path, [{key: value for key, value in each.items() if value is not None} for each in records])


def domain_lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line for line in result.stdout.splitlines() if line.startswith("domain")]


def test_rows_and_tokens_of_each_domain_are_printed(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 3)
    command = (corpus(tmp_path / "d.jsonl"), "--domain-key", "domain", "--domain", "rest")
    lines = [
        "domain                4  rows, 160 tokens: web",
        "domain                3  rows, 120 tokens: rest (--domain)",
        "domain                1  row, 40 tokens: code",
        "domain                1  row, 40 tokens: code??[2J",
    ]
    assert domain_lines(prepare(*command)) == lines
    # Of finished rows as well, whose documents are not read again.
    assert domain_lines(prepare(*command)) == lines
    found = {"number": 4, "largest": {"web": 4, "rest": 3, "code": 1, "code\n\x1b[2J": 1}}
    assert read_object(tmp_path / "rows/prepare.json")["domains"] == found
    assert json.loads(prepare(*command, "--json").stdout)["domains"] == found


def test_only_rows_within_the_limit_are_counted(prepare: Prepare, tmp_path: Path) -> None:
    command = (corpus(tmp_path / "d.jsonl"), "--domain-key", "domain", "--domain", "rest", "--windows", 2)
    assert domain_lines(prepare(*command, "--limit", 5)) == [
        "domain                3  rows, 120 tokens: web", "domain                2  rows, 80 tokens: code",
    ]  # fmt: skip
    assert "domain                8  rows, 320 tokens: web" in domain_lines(prepare(*command))


def test_a_single_domain_is_no_news(prepare: Prepare, tmp_path: Path) -> None:
    source = corpus(tmp_path / "d.jsonl")
    assert domain_lines(prepare(source, "--domain-key", "none")) == []


def test_of_many_domains_the_largest_are_named(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(report, "DOMAINS_SHOWN", 2)
    monkeypatch.setattr(domain_counts, "MOST_NAMED", 3)
    source = corpus(tmp_path / "d.jsonl", ["a", "b", "c", "c", "d", "e", "c", "a", "a"])
    assert domain_lines(prepare(source, "--domain-key", "domain")) == [
        "domain                3  rows, 120 tokens: a",
        "domain                3  rows, 120 tokens: c",
        "domains               3  rows, 120 tokens: 3 more domains",
    ]
    found = read_object(tmp_path / "rows/prepare.json")["domains"]
    assert found == {"number": 5, "largest": {"a": 3, "c": 3, "b": 1}}


def test_rows_of_a_version_that_counted_no_domains(prepare: Prepare, tmp_path: Path) -> None:
    command = (corpus(tmp_path / "d.jsonl"), "--domain-key", "domain", "--domain", "rest")
    prepare(*command)
    path = tmp_path / "rows/prepare.json"
    content = read_object(path)
    # `content` has no checksum, as after a change by hand.
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "domains"}))
    assert domain_lines(prepare(*command)) == []
    for damaged in (7, {"number": 4}, {"number": "4", "largest": {}}, {"number": 4, "largest": {"web": "3"}}):
        path.write_text(json.dumps(content | {"domains": damaged}))
        assert "prepare.json is damaged: it does not describe prepared rows" in prepare(*command).stderr
