"""`--quota` with weights: from a file, in the command or as a dictionary; and a domain with less than its weight."""

from __future__ import annotations

import json
import os
import re
import shlex
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from click.testing import Result

import ladm as front
from ladm.errors import UsageError
from ladm.selection.quota_weights import read_quota
from support.documents import write_corpus
from support.files import read_object
from support.models import SMALL
from support.rows import topical_rows

Command = Callable[..., Result]
LENGTHS = [512, 400, 450, 480, 700, 490, 512]
"""Even rows are of domain 0, with 2,174 tokens, odd ones of domain 1, with 1,370."""


@pytest.fixture
def run(score_rows: Any, golden: Any) -> Path:
    return score_rows(topical_rows(golden, LENGTHS))[1]


def test_weights_are_the_same_from_a_file_in_the_command_and_from_python(
    ladm: Command, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights.yaml").write_text("domain 0: 2\ndomain 1: 1.0e-5\n")
    given = {"file": str(tmp_path / "weights.yaml"), "text": "{domain 0: 2, domain 1: 1.0e-5}"}
    for name, quota in given.items():
        result = ladm("select", run, "--tokens", "1200", "--quota", quota, "--output", tmp_path / name)
        assert result.exit_code == 0, result.output
    call: dict[str, Any] = {"tokens": 1200, "quota": {"domain 0": 2, "domain 1": 1e-5}, "output": tmp_path / "python"}
    subset = front.select(run, **call)
    # In a file of flags they are a mapping of YAML, which is read with the same care as a file of weights.
    (tmp_path / "config.yaml").write_text("tokens: 1200\nquota:\n  domain 0: 2\n  domain 1: 1.0e-5\n")
    result = ladm("select", run, "--config", tmp_path / "config.yaml", "--output", tmp_path / "config")
    assert result.exit_code == 0, result.output
    manifests = [read_object(tmp_path / name / "manifest.json") for name in ("file", "text", "python", "config")]
    for manifest in manifests:
        assert manifest["domains"]["domain 0"]["quota_tokens"] == 1200
        assert (manifest["domains"], manifest["chosen"]) == (manifests[0]["domains"], manifests[0]["chosen"])
    # The subset says with which weights it was made, and the same call takes it for its own.
    assert manifests[2]["quota"] == "{domain 0: 2, domain 1: 1.0e-05}"
    for name in ("file", "text", "python", "config"):
        card = (tmp_path / name / "README.md").read_text()
        assert "\nquota:\n  domain 0: 2\n  domain 1: 1.0e-05\n" in card
    assert ladm("select", run, "--tokens", "1200", "--quota", "documents", "-o", tmp_path / "unit").exit_code == 0
    assert "\nquota: documents\n" in (tmp_path / "unit" / "README.md").read_text()
    assert front.select(run, **call) == subset
    assert ladm(*shlex.split(subset.manifest.command)[1:]).exit_code == 0


def test_weights_from_a_pipe_are_read_once_and_stored(ladm: Command, run: Path, tmp_path: Path) -> None:
    """As `--quota <(...)` of a shell gives them."""

    def select(text: str) -> Result:
        source, end = os.pipe()
        os.write(end, text.encode())
        os.close(end)
        result = ladm("select", run, "--tokens", "1200", "--quota", f"/dev/fd/{source}", "-o", tmp_path / "subset")
        os.close(source)
        return result

    assert select("domain 0: 2\ndomain 1: 1\n").exit_code == 0
    manifest = read_object(tmp_path / "subset" / "manifest.json")
    assert manifest["quota"] == "{domain 0: 2, domain 1: 1}"
    assert manifest["domains"]["domain 0"]["quota_tokens"] == 800
    # The command in the manifest is one that can be given again.
    assert ladm(*shlex.split(manifest["command"])[1:]).exit_code == 0
    result = select("")
    assert (result.exit_code, "must hold a weight for every domain" in result.stderr) == (2, True)


def test_weights_that_cannot_work(run: Path, tmp_path: Path) -> None:
    for quota, message in (
        (
            {"domain 0": 1},
            '--quota {domain 0: 1} has no weight for domain 1; 0 leaves a domain out, and the name "*" sets the '
            "weight of all others",
        ),
        ({"*": 0}, "--quota {'*': 0}: every weight is 0"),
        ({"*": 0, "fruit": 1}, "the pool has documents of domains of weight 0 only: domain 0, domain 1"),
        ("{*: 1}", '--quota {*: 1} is not YAML: the name * needs quotes, "*"'),
        ({}, "--quota {} must hold a weight for every domain, such as ArXiv: 2"),
        ({"domain 0": None, "domain 1": 1}, "the weight of domain 0 is None, not a number of at least 0"),
        ({"domain 0": float("nan"), "domain 1": 1}, "the weight of domain 0 is nan, not a number of at least 0"),
        ("{domain 0: 1", "--quota {domain 0: 1 is not YAML"),
        ("weights\0", "is not YAML: embedded null byte"),
        (f"{{domain 0: 1, domain 1: 1{'0' * 400}}}", "the weight of domain 1 is 1000"),
        (
            "{domain 0:1}",
            "the weight of domain 0:1 is None, not a number of at least 0 such as 2 or 2.0e-5; write a space after "
            "the colon",
        ),
    ):
        with pytest.raises(front.LadmError) as caught:
            front.select(run, tokens=1200, quota=quota, output=tmp_path / "s")
        assert message in str(caught.value)


def test_a_selection_reads_its_file_of_weights_once(
    ladm: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, reads = tmp_path / "weights.yaml", []
    file.write_text("domain 0: 3\n'*': 1\n")
    read = Path.read_text

    def write_others_then(path: Path, **named: Any) -> str:
        text = read(path, **named)
        if path == file:
            reads.append(path)
            # Weights that another program writes meanwhile.
            file.write_text("domain 0: 1\n'*': 3\n")
        return text

    monkeypatch.setattr(Path, "read_text", write_others_then)
    words = ("--tokens", "1200", "--quota", file, "-o", tmp_path / "subset")
    result = ladm("select", run, *words)
    assert (result.exit_code, len(reads)) == (0, 1), result.output
    manifest = read_object(tmp_path / "subset" / "manifest.json")
    assert {name: domain["quota_tokens"] for name, domain in manifest["domains"].items()} == {
        "domain 0": 900, "domain 1": 300,
    }  # fmt: skip
    assert manifest["quota_weights"] == {"*": 1, "domain 0": 3}


def test_a_weight_for_all_other_domains_and_weights_of_other_corpora(ladm: Command, run: Path, tmp_path: Path) -> None:
    """One file of weights serves several corpora."""
    (tmp_path / "weights.yaml").write_text('domain 0: 3\n"*": 1\n')
    (tmp_path / "config.yaml").write_text('tokens: 1200\nquota:\n  domain 0: 3\n  "*": 1\n')
    for words in (
        ("--tokens", "1200", "--quota", tmp_path / "weights.yaml"),
        ("--tokens", "1200", "--quota", "{domain 0: 3, '*': 1}"),
        ("--config", tmp_path / "config.yaml"),
    ):
        result = ladm("select", run, *words, "--dry-run", "--json")
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        quotas = {name: domain["quota_tokens"] for name, domain in json.loads(result.stdout)["domains"].items()}
        assert quotas == {"domain 0": 900, "domain 1": 300}
    others = [f"other {k}" for k in range(12)]
    weights = {"domain 0": 3, "domain 1": 1} | dict.fromkeys(others, 1)
    names = f"{', '.join(others[:10])} and 2 more"
    with pytest.warns(front.LadmWarning) as caught:
        subset = front.select(run, tokens=1200, quota=weights, output=tmp_path / "s")
    assert [str(each.message) for each in caught] == [f"--quota has weights of domains that no row has: {names}"]
    assert {name: domain.quota_tokens for name, domain in subset.manifest.domains.items()} == quotas
    # A misspelt name may take its weight from the default: that of 0 is reported too.
    with pytest.warns(front.LadmWarning, match="that no row has: domian 0$"):
        front.select(run, tokens=1200, quota={"domian 0": 0, "*": 1}, output=tmp_path / "dry", dry_run=True)
    left = front.select(run, tokens=1200, quota={"domain 1": 1, "*": 0}, output=tmp_path / "dry", dry_run=True)
    assert left.manifest.domains_left_out == ["domain 0"]


def test_weights_count_as_they_are_written(run: Path, tmp_path: Path) -> None:
    """As a float 0.3 is a little less than three times 0.1, and a tie of remainders would go to the other domain."""
    for quota in ({"domain 0": 3, "domain 1": 1}, {"domain 0": 0.3, "domain 1": 0.1}, {"domain 0": 3e-7, "*": 1e-7}):
        subset = front.select(run, tokens=1202, quota=quota, output=tmp_path / "dry", dry_run=True)
        quotas = [domain.quota_tokens for domain in subset.manifest.domains.values()]
        assert quotas == [902, 300], quota


def test_all_domains_without_a_weight_are_named(score_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = topical_rows(golden, [400] * 12)
    for k, row in enumerate(rows):
        row["meta"] = row["meta"] | {"pile_set_name": f"domain {k:02}"}
    run = score_rows(rows)[1]
    with pytest.raises(front.LadmError) as caught:
        front.select(run, tokens=100, quota={"domain 03": 1}, output=tmp_path / "dry", dry_run=True)
    names = ", ".join(f"domain {k:02}" for k in range(11) if k != 3)
    assert f"has no weight for {names} and 1 more; 0 leaves a domain out" in str(caught.value)


@pytest.mark.parametrize(
    ("budget", "pool", "most"),
    [({"tokens": 2000}, "fewer tokens than their quota: domain 1 (1,370 of 1,500)", {"tokens": 1826}),
     ({"documents": 5}, "fewer documents than their quota: domain 1 (3 of 4)", {"documents": 4})],
)  # fmt: skip
def test_a_domain_that_has_less_than_its_weight_is_reported_with_the_budget_that_fits(
    run: Path, tmp_path: Path, budget: dict[str, int], pool: str, most: dict[str, int]
) -> None:
    """The budget is filled from other domains, so the mix is not the requested one."""
    call: dict[str, Any] = {"quota": {"domain 0": 1, "domain 1": 3}, "output": tmp_path / "s", "dry_run": True}
    ((unit, number),) = most.items()
    with pytest.warns(front.LadmWarning) as caught:
        front.select(run, **call, **budget)
    assert [str(each.message) for each in caught] == [
        f"the weights of --quota are not met, because domains have {pool}; the rest of the budget went to other "
        f"domains. Up to --{unit} {number:,} no domain is short"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        front.select(run, **call, **most)
        # Shares that follow from the pool ask no domain for more than it has.
        front.select(run, **(call | {"quota": "tokens"}), **budget)
    with pytest.warns(front.LadmWarning, match="not met"):
        front.select(run, **call, **{unit: number + 2})


def test_a_job_with_weights_in_the_call(talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    call: dict[str, Any] = {"model": talking, "output": "job", "tokens": "2k", "length": 512, "span_tokens": 16}
    call["quota"] = {"domain 0": 0, "domain 1": 1, "no": 1}
    warning = "^--quota has weights of domains that no row has: no$"
    # Before anything is scored, and although the job stops for another reason.
    with pytest.raises(front.LadmError, match="^the rows have"), pytest.warns(front.LadmWarning, match=warning):
        front.run("corpus/*.jsonl.gz", **call)
    for budget in ({"tokens": "2k"}, {"tokens": None, "documents": 2}):
        with pytest.raises(front.LadmError, match="has no weight for domain 1; 0 leaves a domain out"):
            front.run("corpus/*.jsonl.gz", **(call | budget | {"quota": {"domain 0": 1}}))
    call["quota"] = {"domain 0": 0, "domain 1": 1}
    with pytest.raises(front.LadmError, match="^the rows have 1,536 tokens, fewer than --tokens 2,000"):
        front.run("corpus/*.jsonl.gz", **call)
    assert not Path("job/scores").exists(), "scored before the weights were compared with the domains"
    call["tokens"] = "1k"
    job = front.run("corpus/*.jsonl.gz", **call)
    assert list(job.subset.manifest.domains) == ["domain 1"]
    assert "quota: '{domain 0: 0, domain 1: 1}'" in (job.folder / "job.yaml").read_text()
    assert front.run("corpus/*.jsonl.gz", **call) == job


def test_a_domain_of_the_rows_that_has_no_document_with_a_score(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    """The same weights pass the check before the scoring and the selection behind it."""
    rows = topical_rows(golden, [512, 400, 450, 10, 700])
    rows[3]["meta"] = rows[3]["meta"] | {"pile_set_name": "short"}
    folder = save_rows(rows)
    for weight, is_warned in (("0", False), ("1", True)):
        quota = f"{{domain 0: 1, domain 1: 1, short: {weight}}}"
        words = ("--documents", "2", "--quota", quota, "--output", tmp_path / f"job-{weight}")
        result = ladm("run", folder, *SMALL, *words)
        assert result.exit_code == 0, result.output
        assert ("no document can be selected of short, because none has a score" in result.stderr) is is_warned
        manifest = read_object(tmp_path / f"job-{weight}" / "subset" / "manifest.json")
        assert {name: domain["taken_documents"] for name, domain in manifest["domains"].items()} == {
            "domain 0": 1, "domain 1": 1,
        }  # fmt: skip
    run = tmp_path / "job-1" / "scores"
    # The weight of all others is also that of a domain without any document in the pool.
    for quota, more, is_warned in (
        ("{domain 0: 1, '*': 1}", (), True),
        ("{domain 0: 1, domain 1: 1, '*': 0}", (), False),
        ("{domain 0: 1, '*': 1}", ("--exclude-domain", "short"), False),
    ):
        result = ladm(
            "select", run, "--documents", "2", "--quota", quota, *more, "--output", tmp_path / "s", "--dry-run"
        )
        assert result.exit_code == 0, result.output
        assert ("no document can be selected of short, because none has a score" in result.stderr) is is_warned
    for quota, message in (
        ("{domain 1: 1, shirt: 1}", "has no weight for domain 0; 0 leaves a domain out"),
        ("{domain 0: 0, domain 1: 0, short: 1}", "the pool has documents of domains of weight 0 only: domain 0, dom"),
    ):
        result = ladm("select", run, "--documents", "2", "--quota", quota, "--output", tmp_path / "none")
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_a_file_of_weights_that_begins_as_one_of_flags(tmp_path: Path) -> None:
    file = tmp_path / "weights.yaml"
    for text, key in (("quota:\n  web: 2\n", "quota"), ("quota: documents\n", "quota"), ("w: {web: 2}\n", "w")):
        file.write_text(text)
        with pytest.raises(UsageError) as error:
            read_quota(str(file))
        why = "; a key quota: is for a --config file" if key == "quota" else ""
        assert str(error.value) == (
            f"--quota {file}: remove the key {key}: weights stand at the beginning of a line, such as web: 2{why}"
        )


def test_a_mapping_in_a_file_of_flags_where_none_fits(ladm: Command, run: Path, tmp_path: Path) -> None:
    aliases = "a: &a [1, 1]\n" + "".join(
        f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefghijkl", "bcdefghijklm", strict=True)
    )
    for text, message in (
        ("by:\n  score: 1\n", "by: a nested value is not text"),
        ("exclude_domains:\n  domain 0: 1\n", "exclude_domains: a nested value is not a list of texts"),
        ("max_per:\n  rows.host: 3\n", "max_per: a nested value is not a list of texts"),
        ("quota:\n  domain 0: [1, 2]\n", "quota: a nested value is not text or null"),
        (f"quota:\n{textwrap.indent(aliases, '  ')}", "quota: a nested value is not text or null"),
        (f"within:\n{textwrap.indent(aliases, '  ')}", "within: a nested value is not a list of texts"),
    ):
        (tmp_path / "config.yaml").write_text(text)
        result = ladm("select", run, "--tokens", "1k", "--config", tmp_path / "config.yaml", "--output", tmp_path / "s")
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_the_ids_of_a_subset(run: Path, tmp_path: Path) -> None:
    subset = front.select(run, documents=4, output=tmp_path / "subset")
    rows = datasets.load_from_disk(str(tmp_path / "subset"))["train"]
    assert subset.ids() == rows["index"][:] == [1, 2, 3, 6]
    for other, message in (
        (front.select(run, documents=4, dry_run=True, output=tmp_path / "none"), "is not a subset of ladm select"),
        (front.select(run, documents=4, output="memory://ids"), "memory://ids is not a folder on this machine"),
    ):
        with pytest.raises(front.LadmError, match=message):
            other.ids()


def test_the_ids_of_a_subset_are_never_those_of_another_in_its_folder(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "subset"
    first = front.select(run, documents=4, output=output)
    trial = front.select(run, documents=2, output=output, dry_run=True)
    assert front.select(run, documents=4, output=output).ids() == first.ids()
    assert front.open_run(run).report(subset=first, output=tmp_path / "page.html").is_file()
    second = front.select(run, documents=3, output=output, overwrite=True)
    assert len(second.ids()) == 3
    message = f"^{re.escape(str(output))} holds another subset: this one was a dry run, or has been replaced since$"
    for stale in (trial, first):
        with pytest.raises(front.LadmError, match=message):
            stale.ids()
        with pytest.raises(front.LadmError, match=message):
            front.open_run(run).report(subset=stale, output=tmp_path / "page.html")
