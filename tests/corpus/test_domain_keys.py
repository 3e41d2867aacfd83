"""Where `ladm prepare` finds the domain of a document: the default key, the field `domain`, and `none`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from support.documents import write_jsonl
from support.long_documents import text
from support.models import SMALL
from support.rows import rows_of

Prepare = Callable[..., Result]
OWN = [
    {"text": text(0), "domain": "web"},
    {"text": text(1), "domain": "code", "meta": {"n": 1}},
    {"text": text(2), "domain": "unused", "meta": {"pile_set_name": "books"}},
    {"text": text(3), "domain": "unused", "meta": '{"pile_set_name": "books"}'},
]


def domains_in(folder: Path) -> list[str]:
    rows = rows_of(folder)
    assert [row["meta"]["pile_set_name"] for row in rows] == [row["domain"] for row in rows]
    return [row["domain"] for row in rows]


def test_the_field_domain_is_used_where_the_default_key_is_missing(
    prepare: Prepare, tmp_path: Path
) -> None:  # fmt: skip
    result = prepare(write_jsonl(tmp_path / "d.jsonl", OWN))
    assert result.exit_code == 0, result.output
    assert domains_in(tmp_path / "rows") == ["web", "code", "books", "books"]
    # What became the domain is not carried a second time; a field that did not is.
    assert [row["original_domain"] for row in rows_of(tmp_path / "rows")] == [None, None, "unused", "unused"]


def test_a_name_is_for_documents_without_either(prepare: Prepare, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", [*OWN, {"text": text(4)}, {"text": text(5), "domain": None}])
    refused = prepare(source)
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (
        1, f"ladm: {source} line 5 has no meta.pile_set_name or domain; its keys are text: give --domain-key one of "
        "them, or --domain a name for all documents without one",
    )  # fmt: skip
    result = prepare(source, "--domain", "mine")
    assert (result.exit_code, "warning" in result.stderr) == (0, False), result.output
    assert domains_in(tmp_path / "rows") == ["web", "code", "books", "books", "mine", "mine"]


@pytest.mark.parametrize(
    ("fields", "missing"),
    [({}, "domain"), ({"domain": None}, "domain other than null"), ({"domain": ["a"]}, "domain that is a text or a "
     "number"), ({"meta": {"pile_set_name": None}}, "domain other than null")],
)  # fmt: skip
def test_a_document_without_either_is_described(
    prepare: Prepare, tmp_path: Path, fields: dict[str, Any], missing: str
) -> None:  # fmt: skip
    result = prepare(write_jsonl(tmp_path / "d.jsonl", [{"text": text(0)} | fields]))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"ladm: the only document has no meta.pile_set_name or {missing}; the keys are ")


def test_another_key_is_the_only_difference_that_is_shown(prepare: Prepare, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", OWN[:2])
    assert prepare(source).exit_code == 0
    refused = prepare(source, "--domain-key", "domain")
    assert (refused.exit_code, refused.stderr.splitlines()[1:]) == (
        1, ['  domain_key: "meta.pile_set_name" before, "domain" now'],
    )  # fmt: skip


def test_without_domain_keys_all_documents_are_one_domain(
    ladm: Prepare, prepare: Prepare, tmp_path: Path
) -> None:  # fmt: skip
    source = write_jsonl(
        tmp_path / "d.jsonl", [each | {"text": text(k, 400)} for k, each in enumerate([*OWN, {"none": "n"}])]
    )
    result = prepare(source, "--domain-key", "none", "--length", "512")
    assert result.exit_code == 0, result.output
    assert domains_in(tmp_path / "rows") == ["all"] * 5
    assert [row["none"] for row in rows_of(tmp_path / "rows")] == [None] * 4 + ["n"]
    named = prepare(source, "--domain-key", "none", "--domain", "mine", output="named")
    assert named.exit_code == 0, named.output
    assert domains_in(tmp_path / "named") == ["mine"] * 5
    # Rows that have a domain by now get no other name.
    assert prepare(source, "--domain-key", "none", "--domain", "mine", "--length", "512").exit_code == 1
    # What follows takes the rows with its own default and with the same word.
    assert ladm("score", tmp_path / "rows", *SMALL, "--output", tmp_path / "run").exit_code == 0
    for k, flags in enumerate(((), ("--domain-key", "none"))):
        subset = tmp_path / f"subset{k}"
        chosen = ladm("select", tmp_path / "run", "--rows", tmp_path / "rows", "--top", "50%", "-o", subset, *flags)
        assert chosen.exit_code == 0, chosen.output
        assert list(json.loads((subset / "manifest.json").read_text())["domains"]) == ["all"]
        page = tmp_path / f"{k}.html"
        report = ladm("report", tmp_path / "run", "--subset", subset, "--output", page, *flags)
        assert (report.exit_code, "warning" in report.stderr) == (0, False), report.output
