"""`ladm run`: one command from documents to a subset and a page, what it finds out, and what a stop leaves."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import Result

from ladm.api.pipeline import open_run
from ladm.errors import LadmError
from ladm.pipeline import resolve
from ladm.pipeline.job import with_absolute_places
from ladm.runs.columns.by_name import column_names
from ladm.runs.columns.derived import possible_columns
from ladm.runs.folder import Run
from ladm.settings.pipeline import RunSettings
from ladm.storage.locks import locked
from support.jobs import job_words, text_of, write_finepdfs
from support.paths import ROOT
from support.rows import topical_rows
from support.subset_formats import read_megatron

Command = Callable[..., Result]


def test_a_shard_of_finepdfs_becomes_megatron_files(
    ladm: Command, finished_job: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    output = finished_job[-1]
    printed = json.loads((output.parent / "printed.json").read_text())
    stdout, stderr = printed["stdout"], printed["stderr"]
    assert "length    512 tokens: documents of at least that many have 100% of the tokens" in stderr
    guess = "domains   language: 3 values (a guess; --domain-key KEY names another key)"
    assert guess in stderr.splitlines()
    names = {path.name for path in output.iterdir()}
    assert {"rows", "scores", "subset", "report.html", "job.yaml"} <= names
    from datasets import load_from_disk

    rows = {row["id"]: row["input_ids"] for row in load_from_disk(str(output / "rows"))["train"]}
    beside = pq.read_table(output / "subset" / "rows.parquet").to_pylist()
    found = read_megatron(output / "subset" / "train")
    assert [ids.tolist() for ids in found] == [rows[row["id"]] for row in beside]
    assert {row["domain"] for row in beside} <= {"eng_Latn", "deu_Latn", "fra_Latn"}
    manifest = json.loads((output / "subset" / "manifest.json").read_text())
    assert manifest["taken_tokens"] == sum(map(len, found)) <= 3000
    assert set(manifest["domains"]) == {"eng_Latn", "deu_Latn", "fra_Latn"}
    assert stdout.splitlines()[-4:] == [
        f"rows: {output}/rows", f"scores: {output}/scores", f"subset: {output}/subset", f"page: {output}/report.html",
    ]  # fmt: skip
    assert "kept                 12  documents of at least 512 tokens\n" in stderr
    # ladm train cannot read this format.
    assert "next:" not in stderr
    require_job_folder_is_run(ladm, output, tmp_path)


def require_job_folder_is_run(ladm: Command, output: Path, tmp_path: Path) -> None:
    """Every command that takes a run takes the folder of a job; what they write goes into the run."""
    for command in (("status",), ("top",), ("compare",), ("select", "--top", "50%", "--dry-run")):
        by_job, by_run = (ladm(command[0], folder, *command[1:]) for folder in (output, output / "scores"))
        assert (by_job.exit_code, by_job.stdout) == (0, by_run.stdout), command
    # Of a job its rows and its subset are verified too.
    sound = [ladm("verify", output / part).stdout for part in ("rows", "scores", "subset")]
    assert ladm("verify", output).stdout == "".join(sound)
    rescore = ("rescore", "--reduce", "median", "-o", tmp_path / "median")
    for command in (rescore, ("report",), ("annotate",), ("inspect", "--top", "1")):
        assert ladm(command[0], output, *command[1:]).exit_code == 0, command
    assert (output / "scores" / "report.html").is_file()
    assert (tmp_path / "median" / "run.json").is_file()
    assert open_run(output).folder == output / "scores"
    # Before anything is scored, and where the job's folder is gone, a line says so.
    (output / "scores").rename(tmp_path / "scores")
    message = f"ladm: {output} is a job of ladm run that has no scores yet; run the same ladm run command again\n"
    early = ladm("top", output)
    assert (early.exit_code, early.stderr) == (3, message)
    early = ladm("status", output)
    assert (early.exit_code, early.stdout.splitlines()) == (
        0,
        [
            "prepared: 12 rows of 12 documents; nothing is scored yet",
            "running: no; to continue, rerun the command that started it",
        ],
    )
    with locked(output):
        assert ladm("top", output).stderr == message.replace("run the same ladm run command again", "it is running")
        found = json.loads(ladm("status", output, "--json").stdout)
    assert (found["finished"], found["prepared"], found["running"]) == (False, True, True)


def test_a_job_ranks_by_a_column_of_its_documents(ladm: Command, shard: Path, talking: Path, tmp_path: Path) -> None:
    output = tmp_path / "job"
    words = [*job_words(shard, talking, output), "--signals", "cds", "--by"]
    # Known as soon as there are rows, before the hours of scoring.
    for column, code, message in (
        ("rows.token_cuont", 2, f"{output}/rows has no column token_cuont; did you mean token_count?"),
        ("rows.url", 1, f"no row of {output}/rows has a number in url"),
    ):
        refused = ladm(*words, column)
        assert (refused.exit_code, f"ladm: {message}" in refused.stderr.splitlines()) == (code, True), refused.output
        assert not (output / "scores").exists()
    assert ladm(*words, "-rows.token_count").exit_code == 0
    manifest = json.loads((output / "subset" / "manifest.json").read_text())
    ids = sorted(int(name.split(":")[-1].rstrip(">")) for part in manifest["chosen"] for name in part["ids"])
    # The shorter half of each of the three languages.
    assert ids == [0, 1, 2, 3, 4]
    assert ladm("run", *words[1:], "rows.a", "--join", "a=b").exit_code == 2


def test_a_job_refuses_a_column_that_its_signals_lack_before_it_makes_rows(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path
) -> None:
    output = tmp_path / "job"
    words = [*job_words(shard, talking, output), "--signals", "cds"]
    known = "score, length, random, released, paper, robust, median, copy_share, sink_mass, near_share"
    for flags, message in (
        (("--by", "quality"), f"quality; it has {known}, and a column of the corpus is rows.NAME"),
        (("--by", "rank(medain)"), "medain; did you mean median?"),
        (("--within", "gzip_ratio:10%-90%"), "gzip_ratio; to compute it: --signals cds,text"),
        (("--by", "rank(longattn) + score"), "longattn; to compute it: --signals cds,longattn"),
    ):
        for more in ((), ("--dry-run",)):
            refused = ladm(*words, *flags, *more)
            last = refused.stderr.splitlines()[-1]
            assert (refused.exit_code, last) == (2, f"ladm: a run of the signals cds has no column {message}")
            assert not output.exists()
    # The rows of a stopped job stay, whatever it is resumed with.
    assert ladm(*words, "--by", "rows.url").exit_code == 1
    refused = ladm(*words, "--by", "gain")
    assert (refused.exit_code, "has no column gain" in refused.stderr) == (2, True)
    assert ladm(*words, "--by", "median").exit_code == 0


def test_the_possible_columns_of_signals_are_those_that_their_runs_have(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path
) -> None:
    output = tmp_path / "job"
    assert ladm(*job_words(shard, talking, output), "--signals", "cds,context-gain,longattn,text").exit_code == 0
    had = set(column_names(Run.open(str(output))))
    # A run has the sums of one of the two variants.
    assert set(possible_columns(("cds", "context-gain", "longattn", "text"))) == {*had, "paper"}


def test_the_job_file_repeats_the_job(ladm: Command, finished_job: tuple[Path, Path, Path], tmp_path: Path) -> None:
    (shard, talking, first), second = finished_job, tmp_path / "again"
    job = yaml.safe_load((first / "job.yaml").read_text())
    checksum = job.pop("checksum")
    assert job == {
        "sources": [str(shard)], "model": str(talking), "output": str(first), "length": 512, "domain_key": "language",
        "domain": "unknown", "span_tokens": 16, "dtype": "float32", "device": "cpu", "tokens": 3000,
        "format": "megatron",
    }  # fmt: skip
    result = ladm("run", "--config", first / "job.yaml", "-o", second)
    assert result.exit_code == 0, result.output
    for name in ("scores/scores.parquet", "subset/train.bin", "subset/train.idx", "subset/rows.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    # Edited by hand it is refused, wherever it is read, until the line of the checksum is removed.
    written = (first / "job.yaml").read_text()
    edited = written.replace("tokens: 3000", "tokens: 2000")
    (first / "job.yaml").write_text(edited)
    reason = "damaged, or edited by hand; if you edited it, remove its line checksum"
    result = ladm("run", "--config", first / "job.yaml", "-o", tmp_path / "third")
    assert (result.exit_code, result.stderr) == (
        2, f"ladm: --config {first / 'job.yaml'}: {reason}\n"
    )  # fmt: skip
    result = ladm(*job_words(shard, talking, first))
    assert (result.exit_code, result.stderr) == (
        74, f"ladm: cannot resume with {first / 'job.yaml'}: {reason}; or give another --output\n"
    )  # fmt: skip
    (first / "job.yaml").write_text(
        edited.replace(f"checksum: {checksum}\n", "").replace(f"checksum: '{checksum}'\n", "")
    )
    result = ladm("run", "--config", first / "job.yaml", "-o", tmp_path / "third")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "third" / "subset" / "manifest.json").read_text())["taken_tokens"] <= 2000


def test_a_length_is_chosen_by_the_counts_that_documents_are_dropped_by(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path
) -> None:
    """Documents of 600 tokens whose own column says 300, as another tokenizer may have counted them."""
    table = pq.read_table(shard)
    column = table.schema.get_field_index("token_count")
    low = tmp_path / "low.parquet"
    pq.write_table(table.set_column(column, "token_count", pa.array([300] * len(table))), low)
    found = ladm(*job_words(low, talking, tmp_path / "job"))
    assert "length    256 tokens: documents of at least that many have 100% of the tokens" in found.stderr
    assert "preparing: 12 documents read, 12 rows made" in found.stderr
    ignored = ladm(*job_words(low, talking, tmp_path / "other"), "--token-count-key", "none")
    assert "length    512 tokens" in ignored.stderr
    dropped = ladm(*job_words(low, talking, tmp_path / "third"), "--length", "512")
    assert dropped.exit_code == 1
    assert dropped.stderr.splitlines()[-1] == "ladm: no document has 512 tokens: 12 low_count; give a smaller --length"


def test_rows_are_scored_as_they_are(ladm: Command, short_rows: str, golden_lm: Path, tmp_path: Path) -> None:
    output = tmp_path / "job"
    result = ladm("run", short_rows, "--model", golden_lm, "--tokens", "2k", "-o", output, "--dtype", "float32",
                  "--span-tokens", "16")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert not (output / "rows").exists()
    assert f"rows      {short_rows} has token ids, which are scored as they are" in result.stderr
    key = "meta.pile_set_name of the rows, or their column domain (--domain-key KEY names another key)"
    assert f"domains   {key}\n" in result.stderr
    assert json.loads((output / "subset" / "manifest.json").read_text())["domains"].keys() == {"domain 0", "domain 1"}


def test_no_training_on_rows_that_were_not_taken_is_proposed(
    ladm: Command, short_rows: str, golden_lm: Path, tmp_path: Path
) -> None:
    words = ("run", short_rows, "--model", golden_lm, "--tokens", "2k", "-o", tmp_path / "job", "--span-tokens", "16")
    result = ladm(*words, "--keep-all")
    assert result.exit_code == 0, result.output
    assert "next:" not in result.stderr


@pytest.mark.parametrize("given", ["--split", "--hub-config"])
def test_token_ids_of_another_part_are_refused(
    ladm: Command, short_rows: str, golden_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """They are scored as they are, and `ladm score` reads the split train of the default configuration."""
    from datasets import DatasetDict, load_from_disk

    both, name = str(tmp_path / "both"), {"--split": "validation", "--hub-config": "de"}[given]
    train = load_from_disk(short_rows)["train"]
    DatasetDict(train=train, validation=train.select([0, 1])).save_to_disk(both)
    if given == "--hub-config":
        # Imported first, or it would keep the patched function for the tests that follow.
        importlib.import_module("ladm.pipeline.run")
        monkeypatch.setattr(resolve, "is_rows", lambda _: True)
    words = ("run", both, "--model", golden_lm, "--tokens", "2k", "-o", tmp_path / "job", "--span-tokens", "16")
    result = ladm(*words, given, name)
    assert result.exit_code == 2, result.output
    assert f"ladm: {given} {name}: {both} has token ids, which are scored as they are, in the " in result.stderr
    assert not (tmp_path / "job").exists()
    if given == "--split":
        assert ladm(*words, given, "train").exit_code == 0


def test_flags_about_documents_are_refused_for_token_ids(
    ladm: Command, short_rows: str, golden_lm: Path, tmp_path: Path
) -> None:
    words = ("run", short_rows, "--model", golden_lm, "--tokens", "2k", "-o", tmp_path / "job", "--span-tokens", "16")
    for flags in ("--windows all", "--no-bos", "--text-key body", "--keep-duplicates"):
        flag = flags.split()[0].replace("--no-bos", "--bos")
        result = ladm(*words, *flags.split())
        assert (result.exit_code, result.stderr) == (
            2,
            f"ladm: {flag} has no effect: {short_rows} has token ids, which are scored as they are; leave it out, or "
            "give --length to make other rows of its texts\n",
        )
    result = ladm(*words, "--domain-key", "none", "--domain", "web")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        "ladm: --domain has no effect with --domain-key none, which makes one domain of all rows",
    )
    assert not (tmp_path / "job").exists()


def test_every_name_of_a_score_is_taken(ladm: Command, shard: Path, talking: Path, tmp_path: Path) -> None:
    for name, variant in (("paper", "paper"), ("released", "released"), ("robust", "released")):
        output = tmp_path / name
        result = ladm(*job_words(shard, talking, output), "--limit", "6", "--signals", "cds", "--score", name)
        assert result.exit_code == 0, result.output
        assert json.loads((output / "scores" / "run.json").read_text())["settings"]["variant"] == variant


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--score paper --variant released",
         "--score paper needs --variant paper, but --variant released was given; leave one of them out"),
        ("--profile {profile} --reduce mean",
         "profile {profile} scores with --reduce signed, but --reduce mean was given; leave out that flag or the "
         "profile"),
    ],
)  # fmt: skip
def test_a_flag_with_the_value_of_its_default_is_a_flag(
    ladm: Command, tmp_path: Path, words: str, message: str
) -> None:
    profile = ROOT / "configs" / "profiles" / "smollm2-135m-guarded.yaml"
    result = ladm("run", "d.jsonl", "--model", "m", "--tokens", "1k", "-o", tmp_path / "job",
                  *words.format(profile=profile).split())  # fmt: skip
    assert (result.exit_code, result.stderr) == (2, f"ladm: {message.format(profile=profile)}\n")


def test_files_of_flags_are_read_before_a_row_is_made(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path
) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text("model: {}\n")
    for flag, message in (
        ("--score", f"profile {profile} is not a profile of ladm calibrate"),
        ("--profile", f"profile {profile} is not a profile of ladm calibrate"),
        ("--quota", f"--quota {profile}: the weight of model is {{}}, not a number of at least 0 such as 2 or 2.0e-5"),
    ):
        result = ladm(*job_words(shard, talking, tmp_path / "job"), flag, profile)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert not (tmp_path / "job").exists()


def test_places_of_a_job_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("d.jsonl", "model", "u.npy", "p.yaml", "q.yaml", "robust", "documents", "tokens"):
        Path(name).touch()
    job = RunSettings(sources=("d.jsonl",), model="model", output="job", unigrams="u.npy", quota="q.yaml", tokens=9)
    found = with_absolute_places(dataclasses.replace(job, score="p.yaml"))
    assert (found.sources, found.model, found.unigrams, found.quota, found.score) == (
        (f"{tmp_path}/d.jsonl",), f"{tmp_path}/model", f"{tmp_path}/u.npy", f"{tmp_path}/q.yaml", f"{tmp_path}/p.yaml",
    )  # fmt: skip
    assert with_absolute_places(dataclasses.replace(job, score="robust")).score == "robust"
    for unit in ("documents", "tokens"):
        assert with_absolute_places(dataclasses.replace(job, quota=unit)).quota == unit


def test_rows_without_the_domain_are_refused_before_they_are_scored(
    ladm: Command, save_rows: Any, golden: dict[str, Any], golden_lm: Path, tmp_path: Path
) -> None:
    rows = topical_rows(golden, [512, 500, 490, 480])
    for row in rows:
        row |= {"url": "u", "source": "web"}
    rows[2]["meta"] = {"pile_set_name": None, "title": "t"}
    rows.insert(1, rows[2] | {"input_ids": None})
    some, output = save_rows(rows, "some"), tmp_path / "job"
    none = save_rows([{"input_ids": row["input_ids"], "source": "web"} for row in rows], "none")
    flags = ("--model", golden_lm, "--tokens", "1k", "-o", output, "--dtype", "float32", "--span-tokens", "16")
    flags += ("--signals", "cds")
    remedy = (
        "give another --domain-key, --domain a name for all rows without one, or --domain-key none to rank all "
        "documents together"
    )
    for source, key, code, message in (
        (some, (), 1, f"row 3 of {some} has no meta.pile_set_name; {remedy}"),
        (none, (), 1, f"{none} has no column meta (it has input_ids, source); give --domain-key the key of a domain, "
         "or none"),
        (some, ("--domain-key", "url"), 2, "--domain-key url: a run stores only meta, id, domain and source of "
         "the rows; give one of them, or none"),
    ):  # fmt: skip
        result = ladm("run", source, *flags, *key)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (code, f"ladm: {message}")
        assert not (output / "scores").exists()
    # Nothing is stored, so that the next try may be of other rows and by another key.
    result = ladm("run", some, *flags, "--domain-key", "source")
    assert result.exit_code == 0, result.output
    assert json.loads((output / "subset" / "manifest.json").read_text())["domains"].keys() == {"web"}
    # Or has a name for the domain of such a row, on the page too.
    mixed = ("run", some, *flags[:4], "-o", tmp_path / "mixed", *flags[6:], "--domain", "rest")
    result = ladm(*mixed, "--dry-run")
    assert result.exit_code == 0, result.output
    result = ladm(*mixed)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "mixed" / "subset" / "manifest.json").read_text())
    assert (found["domain"], found["domains"].keys()) == ("rest", {"domain 0", "domain 1", "rest"})
    page = (tmp_path / "mixed" / "report.html").read_text()
    assert (">rest<" in page, "(none)" in page, "--domain rest" in page) == (True, False, True)
    rows[3] |= {"meta": {"pile_set_name": "a", "title": "t"}}
    result = ladm("run", save_rows(rows, "all"), *flags[:4], "-o", tmp_path / "all-rows", *flags[6:])
    assert result.exit_code == 0, result.output
    result = ladm("run", none, *flags[:4], "-o", tmp_path / "one", *flags[6:], "--domain-key", "none")
    assert result.exit_code == 0, result.output


def test_only_a_key_that_was_found_has_a_domain_for_documents_without_it(
    ladm: Command, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.pipeline.document_sample.MOST_DOCUMENTS", 6)
    source = tmp_path / "d.jsonl"
    documents = [{"text": text_of(k, 600), "topic": "ab"[k % 2]} for k in range(8)]
    # Behind those that are looked at.
    del documents[7]["topic"]
    source.write_text("".join(json.dumps(document) + "\n" for document in documents))

    def run(output: str, *flags: str) -> Result:
        return ladm(*job_words(source, talking, tmp_path / output), "--signals", "cds", *flags)

    result = run("given", "--domain-key", "topic")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        f"ladm: {source} line 8 has no topic; its keys are text: give --domain-key one of them, or --domain a name for "
        "all documents without one"
    )
    with monkeypatch.context() as patch:
        patch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 3)
        assert run("resumed", "--domain-key", "topic").exit_code == 1
    assert list((tmp_path / "resumed" / "rows" / ".preparing").glob("*.parquet"))
    for output, flags, name in (("named", ("--domain-key", "topic", "--domain", "other"), "other"),
                                ("resumed", ("--domain-key", "topic", "--domain", "other"), "other"),
                                ("found", (), "unknown")):  # fmt: skip
        result = run(output, *flags)
        assert result.exit_code == 0, result.output
        manifest = json.loads((tmp_path / output / "subset" / "manifest.json").read_text())
        assert manifest["domains"].keys() == {"a", "b", name}
        assert run(output, *flags).exit_code == 0


def test_a_job_without_a_key_of_domains_says_so(ladm: Command, talking: Path, tmp_path: Path) -> None:
    source, job = tmp_path / "d.jsonl", tmp_path / "job"
    documents = [{"text": text_of(k, 600), "shelf": "ab"[k % 2], "meta": {"n": k}} for k in range(6)]
    source.write_text("".join(json.dumps(document) + "\n" for document in documents))

    def run(output: Path, *flags: str) -> Result:
        return ladm(*job_words(source, talking, output), "--signals", "cds", *flags)

    result = run(job)
    assert result.exit_code == 0, result.output
    line = (
        "domains   no domain key found, so all documents are one domain; give --domain-key one of shelf, meta.n, or "
        "--domain a name"
    )
    assert line in result.stderr.splitlines()
    again = run(job)
    assert "domains   none, as before: all documents are one domain" in again.stderr.splitlines()
    # Texts have no keys.
    (tmp_path / "texts").mkdir()
    for k in range(6):
        (tmp_path / f"texts/{k}.txt").write_text(text_of(k, 600))
    texts = ladm(*job_words(tmp_path / "texts", talking, tmp_path / "of-texts"), "--signals", "cds", "--dry-run")
    assert "domains   all documents are one domain; --domain NAME names it" in texts.stderr.splitlines()
    # As the line says.
    named = run(tmp_path / "named", "--domain-key", "shelf")
    assert (named.exit_code, "domains   " in named.stderr) == (0, False)
    named = run(tmp_path / "one", "--domain", "mine")
    assert (named.exit_code, "mine" in named.stdout, "domains   " in named.stderr) == (0, True, False)


def test_documents_without_the_key_that_the_others_have_are_one_domain(
    ladm: Command, talking: Path, tmp_path: Path
) -> None:
    source = tmp_path / "d.jsonl"
    documents = [{"text": text_of(k, 600)} | ({"source": "ab"[k % 2]} if k > 1 else {}) for k in range(8)]
    source.write_text("".join(json.dumps(document) + "\n" for document in documents))
    result = ladm(*job_words(source, talking, tmp_path / "job"))
    assert result.exit_code == 0, result.output
    line = "domains   source: 2 values; 2 of 8 documents looked at have none, and are the domain unknown"
    line += " (a guess; --domain-key KEY names another key)"
    assert line in result.stderr.splitlines()
    manifest = json.loads((tmp_path / "job" / "subset" / "manifest.json").read_text())
    assert manifest["domains"].keys() == {"a", "b", "unknown"}


def test_texts_that_prepare_decodes_or_drops(ladm: Command, talking: Path, tmp_path: Path) -> None:
    texts = [text_of(k, 600).encode() for k in range(6)] + [b"\xff\xfe" + text_of(7, 900).encode()]
    table = {"text": pa.array(texts, pa.binary()), "kind": list("abababa")}
    pq.write_table(pa.table(table), tmp_path / "d.parquet")
    result = ladm(*job_words(tmp_path / "d.parquet", talking, tmp_path / "job"))
    assert result.exit_code == 0, result.output
    assert "length    512 tokens: documents of at least that many have 100% of the tokens" in result.stderr
    counts = json.loads((tmp_path / "job/rows/prepare.json").read_text())["counts"]
    assert (counts["bad_text"], counts["kept"]) == (1, 6)


def test_a_meta_that_is_nested_too_deep_decides_nothing(ladm: Command, talking: Path, tmp_path: Path) -> None:
    source = tmp_path / "d.jsonl"
    lines = [json.dumps({"text": text_of(k, 600), "topic": "ab"[k % 2]}) for k in range(6)]
    lines.append('{"text": "a", "meta": ' + '{"a":' * 900 + "1" + "}" * 900 + "}")
    lines.append(json.dumps({"text": text_of(7, 600) + "\ud83d", "topic": "a"}))
    source.write_text("\n".join(lines) + "\n")
    result = ladm(*job_words(source, talking, tmp_path / "job"))
    assert result.exit_code == 0, result.output
    assert "domains   topic: 2 values" in result.stderr
    counts = json.loads((tmp_path / "job/rows/prepare.json").read_text())["counts"]
    assert (counts["bad_text"], counts["too_deep"], counts["kept"]) == (1, 1, 6)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--attention", "fa3"), "--attention fa3 does not work on cpu in float32; choose from flash"),
        (("--backend", "triton"), "--backend triton needs a CUDA device, not cpu; use --backend torch"),
        (("--device", "cuda:99"), None),
    ],
)
def test_hardware_that_is_not_there_is_refused_before_documents_are_read(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, str], line: str | None,
) -> None:  # fmt: skip
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    result = ladm(*job_words(shard, talking, tmp_path / "job"), "--device", "cpu", "--dtype", "float32", *flags)
    count = torch.cuda.device_count()
    several = f"there are {count} CUDA devices here, cuda:0 to cuda:{count - 1}"
    devices = several if count > 1 else "the only CUDA device here is cuda:0"
    expected = line or f"--device cuda:99: {devices if count else 'no CUDA device here; use --device cpu'}"
    assert (result.exit_code, result.stderr) == (1, f"ladm: {expected}\n")
    assert not (tmp_path / "job").exists()


def test_what_cannot_work_is_refused_before_it_costs_anything(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path
) -> None:
    words = job_words(shard, talking, tmp_path / "job")
    result = ladm(*words[:4], "-o", tmp_path / "none")
    assert (result.exit_code, result.stderr) == (
        2,
        "ladm: how much to select is missing; give --tokens, --documents, --top or --min-score\n",
    )
    result = ladm("run", "-", *words[2:])
    assert (result.exit_code, result.stderr) == (
        2,
        "ladm: ladm run cannot read standard input, because it reads its documents again when it resumes; give it a "
        "file\n",
    )
    result = ladm(*[*words[:4], "--tokens", "1M", *words[6:]])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1,
        "ladm: the rows have 6,144 tokens, fewer than --tokens 1,000,000; give a smaller budget, take all of it with "
        "--allow-small-pool, or give more documents and another --output",
    )
    budgets = {
        ("--tokens", "100"): "no row fits --tokens 100: the shortest has 512 tokens; give a larger budget",
        ("--tokens", "1%"): "no row fits --tokens 1%: the shortest has 512 tokens; give a larger budget",
        ("--documents", "50"): "there are 12 rows, fewer than --documents 50; give a smaller budget, take all of it "
        "with --allow-small-pool, or give more documents and another --output",
    }
    for budget, words_of in budgets.items():
        result = ladm(*[*words[:4], *budget, *words[6:]])
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, f"ladm: {words_of}")
    assert not (tmp_path / "job" / "scores").exists()
    # Four documents of three rows each, of which two at most are taken.
    long = write_finepdfs(tmp_path / "long.parquet", documents=4, words=1600)
    words = [*job_words(long, talking, tmp_path / "windows"), "--length", "512", "--windows", "all", "--tokens", "5k"]
    result = ladm(*words)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1,
        "ladm: the rows (at most 2 of a document) have 4,096 tokens, fewer than --tokens 5,000; give a smaller budget, "
        "take all of it with --allow-small-pool, or give more documents and another --output",
    )
    assert not (tmp_path / "windows" / "scores").exists()
    # Documents of 1,600 tokens and a few more: the second and the fourth are too short.
    words = [*job_words(long, talking, tmp_path / "too long"), "--length", "1602", "--tokens", "5k"]
    words += ["--token-count-key", "none"]
    result = ladm(*words)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1,
        "ladm: the rows have 3,204 tokens, fewer than --tokens 5,000; give a smaller budget, take all of it with "
        "--allow-small-pool, or give more documents and another --output; 2 documents have fewer tokens than --length "
        "1,602: a smaller length, with another --output, keeps more of them",
    )
    # Four documents of two rows each, of which the second repeats most of the first.
    long = write_finepdfs(tmp_path / "repeating.parquet", documents=4, words=600)
    words = [*job_words(long, talking, tmp_path / "repeating"), "--length", "512", "--windows", "all", "--tokens", "3k"]
    result = ladm(*words)
    assert result.exit_code == 1
    assert "the rows (at most 2 of a document) have 2,048 tokens, fewer than --tokens 3,000" in result.stderr
    (tmp_path / "other" / "scores").mkdir(parents=True)
    result = ladm(*job_words(shard, talking, tmp_path / "other"))
    assert (result.exit_code, result.stderr) == (
        1,
        f"ladm: {tmp_path}/other holds scores and no job.yaml, so it is not a job of ladm run; give another --output\n",
    )
    (tmp_path / "short.jsonl").write_text(json.dumps({"text": text_of(0, 100)}) + "\n")
    result = ladm(*job_words(tmp_path / "short.jsonl", talking, tmp_path / "short"))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "ladm: the documents are short (the longest of 1 has 100 tokens): half of the tokens are in documents of fewer "
        "than 256 tokens; give --length, or longer documents"
    )
    assert not (tmp_path / "short").exists()


@pytest.mark.parametrize(
    ("documents", "key", "values"),
    [
        ([{"source": f"s{k % 7}", "id": k} for k in range(70)], "source", 7),
        ([{"meta": {"pile_set_name": f"p{k % 2}"}, "source": f"s{k % 7}"} for k in range(70)], "meta.pile_set_name", 2),
        # A source for each document is a name, no domain; a key that all have comes before one that some lack.
        ([{"source": f"s{k}", "language": "ab"[k % 2]} for k in range(70)], "language", 2),
        ([{"source": "x", "lang": "ab"[k % 2]} if k else {"lang": "a"} for k in range(9)], "lang", 2),
        ([{"dump": "d", "id": k} for k in range(9)], "dump", 1),
        ([{"source": "ab"[k % 2]} if k else {} for k in range(9)], "source", 2),
        ([{"source": "ab"[k % 2], "dump": "d"} if k % 3 else {"dump": "d"} for k in range(9)], "source", 2),
        ([{"source": "ab"[k % 2]} if k < 4 else {} for k in range(9)], None, 0),
        ([{"source": "a"} if k else {} for k in range(9)], None, 0),
        ([{"id": k} for k in range(9)], None, 0),
    ],
)
def test_the_key_of_the_domain(documents: list[dict[str, Any]], key: str | None, values: int) -> None:
    from ladm.pipeline.document_sample import Sample, find_domains

    found = find_domains(Sample(documents))
    assert (found.key, found.values) == (key, values)


def test_the_length_follows_the_tokens(talking: Path) -> None:
    from ladm.corpus.preparation.tokenization import load_tokenizer
    from ladm.pipeline.document_sample import Sample, choose_length

    tokenizer = load_tokenizer(str(talking), bos=False)
    # Many short documents, and one long one with more tokens than all of them.
    sample = Sample([{"text": text_of(k, 20)} for k in range(100)] + [{"text": text_of(0, 3000)}])
    assert choose_length(sample, tokenizer, text_key="text", most=None) == (2048, 3000 / 5000)
    assert choose_length(sample, tokenizer, text_key="text", most=1000) == (512, 3000 / 5000)
    with pytest.raises(
        LadmError, match=r"^the model has only 200 positions, and no length below 256 is chosen automatically; give"
    ):
        choose_length(sample, tokenizer, text_key="text", most=200)


def test_token_ids_in_parquet_are_not_taken_for_documents(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path
) -> None:
    ids = tmp_path / "ids.parquet"
    pq.write_table(pa.table({"input_ids": [[1, 2, 3]] * 3, "domain": ["web"] * 3}), ids)
    message = (
        f"ladm: {ids} has token ids and no text, but rows are read from a folder saved by the datasets library; make "
        f"one in Python: load_dataset('parquet', data_files='{ids}').save_to_disk('rows')\n"
    )
    flags = ("--model", talking, "--tokens", "3k", "-o", tmp_path / "job")
    for command in (("run", ids, *flags), ("prepare", ids, "--tokenizer", talking, "-o", tmp_path / "rows")):
        result = ladm(*command)
        assert (result.exit_code, result.stderr.splitlines(keepends=True)[-1]) == (1, message)
    both = tmp_path / "both.parquet"
    table = pq.read_table(shard)
    pq.write_table(table.append_column("input_ids", pa.array([[1, 2, 3]] * len(table))), both)
    result = ladm("run", both, *flags, "--dry-run", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert f"note      {both} has token ids too, in input_ids; rows are made of its texts instead\n" in result.stderr
