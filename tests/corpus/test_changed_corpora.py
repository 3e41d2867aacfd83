"""What a user meets in the first week: a corpus that grew, domains under a key of their own, rows that are left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from support.documents import write_jsonl
from support.jobs import job_words, text_of
from support.paths import GOLDEN
from support.rows import topical_rows
from support.word_documents import preparing, record, rows_after

Command = Callable[..., Result]


@pytest.fixture
def prepare(ladm: Command, tmp_path: Path, word_tokenizer: Path) -> Command:
    return preparing(ladm, tmp_path, word_tokenizer)


def test_a_corpus_that_changed_is_refused_by_the_names_of_its_files(
    prepare: Command, tmp_path: Path
) -> None:  # fmt: skip
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("a", "b", "c"):
        write_jsonl(corpus / f"{name}.jsonl", [record(ord(name))])
    assert prepare(corpus).exit_code == 0
    write_jsonl(corpus / "a.jsonl", [record(1), record(2)])
    (corpus / "b.jsonl").unlink()
    write_jsonl(corpus / "d.jsonl", [record(4)])
    refused = prepare(corpus, "--bos")
    # Sizes and dates come behind the word.
    lines = [line.partition(" changed: ")[0] for line in refused.stderr.splitlines()]
    assert (refused.exit_code, lines) == (1, [
        f"ladm: {tmp_path / 'rows'} was started with something else (sources, --bos); give another --output, or what "
        "it was started with. To add documents later, score them in a run of their own, and select from both: ladm "
        "select RUN RUN2 --tokens N -o SUBSET:",
        f"  sources: {corpus / 'a.jsonl'} has",
        f"  sources: {corpus / 'b.jsonl'} was a source before, and is not now",
        f"  sources: {corpus / 'd.jsonl'} is new",
        "  tokenizer.bos: false before, true now",
        "  bos: null before, true now",
    ])  # fmt: skip
    for k in range(9):
        write_jsonl(corpus / f"e{k}.jsonl", [record(5 + k)])
    assert prepare(corpus).stderr.splitlines()[-1] == "  sources: and 7 more"


def test_the_same_files_in_another_order_are_refused_as_such(prepare: Command, tmp_path: Path) -> None:
    files = [write_jsonl(tmp_path / f"{k}.jsonl", [record(k)]) for k in range(2)]
    assert prepare(*files).exit_code == 0
    assert prepare(*files[::-1]).stderr.splitlines()[1:] == [
        f"  sources: the same files in another order: number 1 was {files[0]}, now {files[1]}"
    ]


WARNING = (
    "warning   all documents get the domain mine (--domain), because none of them has meta.pile_set_name or "
    "domain (--domain-key); to use their pile_set_name, such as b, give --domain-key pile_set_name; --domain is then "
    "for those without one"
)


def test_a_key_that_looks_like_an_id_is_named(prepare: Command, tmp_path: Path) -> None:
    own = [record(k) | {"doc_id": f"A{k}", "parent_id": "B", "url": f"https://c/{k}"} for k in range(3)]
    source = write_jsonl(tmp_path / "own.jsonl", own)
    hint = "ids       no id found, but doc_id, such as A0; to store it with the scores, give --id-key doc_id"
    assert hint in prepare(source).stderr.splitlines()
    # As it says.
    named = prepare(source, "--id-key", "doc_id", output="named")
    assert [row["id"] for row in rows_after(named, tmp_path / "named")] == ["A0", "A1", "A2"]
    with_ids = write_jsonl(tmp_path / "ids.jsonl", [each | {"id": f"D{k}"} for k, each in enumerate(own)])
    for result in (named, prepare(with_ids, output="ids")):
        assert "ids  " not in result.stderr


def test_a_name_for_documents_without_a_domain_replaces_no_other_in_silence(
    prepare: Command, tmp_path: Path
) -> None:  # fmt: skip
    plain = {"text": record(0)["text"]}
    own = [
        plain,
        record(1) | {"meta": {"n": 1}, "pile_set_name": "b"},
        record(2) | {"meta": None, "pile_set_name": "c"},
    ]
    source = write_jsonl(tmp_path / "own.jsonl", own)
    result = prepare(source, "--domain", "mine")
    assert {row["domain"] for row in rows_after(result, tmp_path / "rows")} == {"mine"}
    assert WARNING in result.stderr.splitlines()
    # As the warning says.
    kept = prepare(source, "--domain", "mine", "--domain-key", "pile_set_name", output="kept")
    assert [row["domain"] for row in rows_after(kept, tmp_path / "kept")] == ["mine", "b", "c"]
    assert "warning" not in kept.stderr
    # Neither documents without any domain nor those with the default key have lost one.
    for k, documents in enumerate(([plain], [*own, record(3)])):
        source = write_jsonl(tmp_path / f"{k}.jsonl", documents)
        result = prepare(source, "--domain", "mine", output=f"rows{k}")
        assert (result.exit_code, "warning" in result.stderr) == (0, False), result.stderr


def test_a_job_says_that_its_name_replaces_domains(
    ladm: Command, talking: Path, tmp_path: Path
) -> None:  # fmt: skip
    documents = [{"text": text_of(k, 600), "pile_set_name": "bc"[k % 2]} for k in range(8)]
    source = write_jsonl(tmp_path / "d.jsonl", documents)
    for flags, is_warned in ((("--domain", "mine"), True), (("--domain-key", "none"), False),
                             ((), False)):  # fmt: skip
        result = ladm(*job_words(source, talking, tmp_path / "job"), "--dry-run", *flags)
        assert (result.exit_code, result.stderr.splitlines().count(WARNING)) == (0, int(is_warned)), result.output


def test_what_a_command_warns_of_is_a_warning_in_python(save_rows: Any, golden: Any, tmp_path: Path) -> None:
    import ladm as package

    rows = save_rows(topical_rows(golden, [512] * 6), "rows")
    made = {"model": GOLDEN, "output": tmp_path / "run", "dtype": "float32", "device": "cpu", "span_tokens": 16}
    package.score(rows, **made)
    with pytest.warns(package.LadmWarning, match=r"^--top 0.5 is 0.5 %; if 50 % is meant, write 50%$"):
        package.select(made["output"], output=tmp_path / "half", top=0.5)
    # A flag that may be repeated is a keyword in its own spelling and as a plural.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, name in enumerate(("exclude_domain", "exclude_domains")):
            subset = package.select(made["output"], output=tmp_path / f"{number}", top="50%", **{name: ["domain 0"]})
            assert list(subset.manifest.excluded_domains) == ["domain 0"]
    both: dict[str, Any] = {"exclude_domain": "domain 0", "exclude_domains": ["domain 1"]}
    with pytest.raises(package.LadmError) as raised:
        package.select(made["output"], output=tmp_path / "both", top="50%", **both)
    assert str(raised.value) == (
        "ladm.select was given exclude_domain and exclude_domains, which are the same setting; give one of them"
    )


def test_a_warning_of_prepare_reaches_a_caller_in_python(word_tokenizer: Path, tmp_path: Path) -> None:
    import ladm as package

    source = write_jsonl(tmp_path / "d.jsonl", [{"text": record(0)["text"], "pile_set_name": "b"}])
    settings: dict[str, Any] = {"tokenizer": word_tokenizer, "length": 40, "domain": "mine"}
    with pytest.warns(package.LadmWarning, match=r"^all documents get the domain mine \(--domain\), "):
        package.prepare(source, output=tmp_path / "rows", **settings)
