"""A started job or `ladm prepare` whose corpus, model or tokenizer is elsewhere, gone or changed: what goes on."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from ladm.pipeline import run as run_module
from support.commands import Command
from support.jobs import job_words
from support.rows import topical_rows

FINISHED = "its rows are finished and can be used without the documents: "


def stop_before_scores(ladm: Command, words: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a job, and nothing after them."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "score", stop)
        assert ladm(*words).exit_code == 130


def command_in(result: Result, *, before: str) -> list[list[str]]:
    """The words, behind `ladm`, of the command lines that a message proposes."""
    found = re.search(rf"{re.escape(before)}(.*?)(; or |\n)", result.stderr)
    assert found is not None, result.stderr
    return [shlex.split(line)[1:] for line in found[1].split(" && ")]


def test_rows_of_a_job_are_used_although_their_corpus_was_touched(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "job"
    words = job_words(shard, talking, job)
    stop_before_scores(ladm, words, monkeypatch)
    os.utime(shard, (1, 1))
    refused = ladm(*words)
    flags = "--span-tokens 16 --dtype float32 --device cpu"
    command = f"ladm run {job}/rows --model {talking} {flags} --tokens 3000 --format megatron -o {job}2"
    assert (refused.exit_code, refused.stderr.splitlines()[-2]) == (
        1,
        f"ladm: {job}/rows was started with something else (sources); {FINISHED}{command}; or give another --output, "
        "or what it was started with. To add documents later, score them in a run of their own, and select from both: "
        "ladm select RUN RUN2 --tokens N -o SUBSET:",
    )
    (proposed,) = command_in(refused, before=FINISHED)
    assert ladm(*proposed).exit_code == 0
    assert not (tmp_path / "job2" / "rows").exists()


def test_scores_of_a_job_are_continued_although_its_corpus_is_gone(
    ladm: Command, finished_job: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    shard, talking, job = finished_job
    words = job_words(shard, talking, job)
    subset = (job / "subset" / "train.bin").read_bytes()
    moved = shard.rename(tmp_path / "moved.parquet")
    gone = ladm(*words)
    flags = "--span-tokens 16 --dtype float32 --device cpu"
    select = f"ladm select {job}/scores --rows {job}/rows --tokens 3000 --format megatron -o {job}/subset2"
    assert (gone.exit_code, gone.stderr) == (
        1, f"ladm: no such source: {shard} was there before, and is gone; {FINISHED}{select}\n"
    )  # fmt: skip
    other = ladm(*job_words(moved, talking, job))
    assert other.stderr.splitlines()[0] == (
        f"ladm: {job} was started with something else (SOURCE); {FINISHED}{select}; or give another --output, or what "
        "it was started with:"
    )
    # The results come last: without them there are scores of all rows, and no finished run.
    for name in ("scores.parquet", "sorted_by_score.jsonl", "errors.jsonl"):
        (job / "scores" / name).unlink()
    score = f"ladm score {job}/rows --model {talking} {flags} -o {job}/scores"
    gone = ladm(*words)
    assert gone.stderr.endswith(f"{FINISHED}{score} && {select}\n")
    for proposed in command_in(gone, before=FINISHED):
        assert ladm(*proposed).exit_code == 0
    assert (job / "subset2" / "train.bin").read_bytes() == subset


def test_sources_that_are_gone_are_named_before_anything_is_compared(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()
    shard.rename(tmp_path / "corpus" / shard.name)
    words = ("prepare", "corpus", "--tokenizer", talking, "--length", "512", "--domain", "d", "-o", "rows")
    assert ladm(*words).exit_code == 0
    (tmp_path / "corpus").rename("archive")
    gone = ladm(*words, "--bos")
    # It has the form of a Hub id too.
    score = "ladm score rows --model MODEL -o run"
    assert (gone.exit_code, gone.stderr) == (
        1, f"ladm: no such source: corpus was there before, and is gone; {FINISHED}{score}\n"
    )  # fmt: skip
    for name, reason in (
        ("corpus/*.parquet", "matches no file"),
        ("x.parquet", "is neither a file, a folder nor a Hub id such as org/name"),
    ):
        gone = ladm(words[0], name, *words[2:])
        assert (gone.exit_code, gone.stderr) == (1, f"ladm: no such source: {name} {reason}; {FINISHED}{score}\n")
    # Another corpus, while the first is where it was.
    (tmp_path / "archive").rename("corpus")
    shutil.copytree("corpus", "second")
    refused = ladm(words[0], "second", *words[2:])
    assert "something else (sources); give another --output, or what it was started with. To add" in refused.stderr
    missing = ladm(words[0], "x.parquet", *words[2:-1], "other")
    assert missing.stderr == (
        "ladm: no such source: x.parquet is neither a file, a folder nor a Hub id such as org/name\n"
    )


def test_another_way_to_score_keeps_the_rows(ladm: Command, finished_job: tuple[Path, Path, Path]) -> None:
    shard, talking, job = finished_job
    words = job_words(shard, talking, job)
    refused = ladm(*words, "--span-tokens", "8")
    way = "to score its rows another way: "
    assert refused.stderr.startswith(f"ladm: {job} was started with something else (--span-tokens); {way}ladm run ")
    assert refused.stderr.splitlines()[1:] == ["  --span-tokens: 16 before, 8 now"]
    (proposed,) = command_in(refused, before=way)
    assert ladm(*proposed).exit_code == 0
    identity = json.loads((job.parent / "job2" / "scores" / "run.json").read_text())
    assert (identity["settings"]["span_tokens"], identity["about"]["rows"]) == (8, str(job / "rows"))
    # A folder that is taken is not proposed again, and other rows are another job.
    again = ladm(*words, "--span-tokens", "8")
    assert command_in(again, before=way)[0][-1] == str(job.parent / "job3")
    assert way not in ladm(*words, "--span-tokens", "8", "--text-key", "url").stderr
    # Another corpus beside the first has other rows; what was only moved has the same.
    other = shutil.copyfile(shard, job.parent / "other.parquet")
    for flags in ((), ("--span-tokens", "8"), ("--within", "length:1-")):
        refused = ladm(*job_words(other, talking, job), *flags)
        assert "; give another --output, or what it was started with:\n  SOURCE: " in refused.stderr
    shard.unlink()
    assert way in ladm(*job_words(other, talking, job), "--span-tokens", "8").stderr


def test_a_model_is_the_same_in_another_place(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, copy, other = tmp_path / "job", tmp_path / "copy", tmp_path / "other"
    words = job_words(shard, talking, job)
    stop_before_scores(ladm, words, monkeypatch)
    shutil.copytree(talking, copy)
    shutil.copytree(talking, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.01}))
    resumed = ladm(*job_words(shard, copy, job))
    assert resumed.exit_code == 0, resumed.output
    assert f"{job / 'rows'} is prepared already" in resumed.stderr
    assert f"model: {copy}\n" in (job / "job.yaml").read_text()
    # The scores are finished, and bind the content.
    refused = ladm(*job_words(shard, other, job))
    assert refused.stderr.startswith(f"ladm: {job} was started with something else (--model); to score its rows an")
    assert refused.stderr.splitlines()[1:] == [f'  --model: "{copy}" before, "{other}" now']
    copy.rename(tmp_path / "elsewhere")
    again = ladm(*job_words(shard, tmp_path / "elsewhere", job))
    assert again.exit_code == 0, again.output
    missing = ladm(*job_words(shard, copy, job))
    assert missing.stderr.endswith(f"no such model: {copy} is neither a folder nor a Hub id such as org/name\n")


def test_a_tokenizer_is_the_same_in_another_place(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, copy = tmp_path / "job", tmp_path / "copy"
    shutil.copytree(talking, copy)
    stop_before_scores(ladm, [*job_words(shard, talking, job), "--tokenizer", talking], monkeypatch)
    resumed = ladm(*job_words(shard, talking, job), "--tokenizer", copy)
    assert resumed.exit_code == 0, resumed.output
    flags = ("--length", "512", "--domain", "d", "-o", tmp_path / "rows")
    assert ladm("prepare", shard, "--tokenizer", talking, *flags, "--limit", "4").exit_code == 0
    assert ladm("prepare", shard, "--tokenizer", copy, *flags).exit_code == 0
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer | {"normalizer": {"type": "Lowercase"}}))
    for refused in (
        ladm("prepare", shard, "--tokenizer", copy, *flags),
        ladm(*job_words(shard, talking, job), "--tokenizer", copy),
    ):
        assert (refused.exit_code, "was started with something else (--tokenizer);" in refused.stderr) == (1, True)
        assert "  tokenizer.sha256: " in refused.stderr


def test_another_selection_of_rows_without_a_domain_names_it(
    ladm: Command, save_rows: Any, golden: Any, talking: Path, tmp_path: Path
) -> None:
    rows = save_rows([{"input_ids": row["input_ids"]} for row in topical_rows(golden, [512] * 4)], "data")
    words = ("run", rows, "--model", talking, "--span-tokens", 16, "-o", tmp_path / "job")
    assert ladm(*words, "--documents", 2, "--domain", "web").exit_code == 0
    for flags in (("--domain", "web"), ()):
        refused = ladm(*words, "--documents", 3, *flags)
        (proposed,) = command_in(refused, before="to make another selection from its scores: ")
        assert proposed[-2:] == ["--domain", "web"]
        assert ladm(*proposed).exit_code == 0
