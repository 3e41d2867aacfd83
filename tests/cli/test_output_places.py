"""Where results go: a path of this machine whatever its name, and an address for `ladm select` alone."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from ladm.storage import output_folder
from support.jobs import job_words
from support.models import SMALL
from support.paths import GOLDEN
from support.rows import topical_rows

Command = Callable[..., Result]
ADDRESS = "s3://bucket/result"
WRITING = f"{ADDRESS} is an address; write to this machine and copy the result there (only ladm select writes to"
READING = f"RUN {ADDRESS} is an address; copy the run to this machine and give its folder\n"
MODEL_AND_ROWS = ("--model", "no-model", "--rows", "no-rows")


@pytest.mark.parametrize(
    "words",
    [
        ("prepare", "no-file", "--tokenizer", "no-model"),
        ("score", "no-rows", "--model", "no-model"),
        ("score", "no-rows", "--model", "no-model", "--dry-run"),
        ("run", "no-file", "--model", "no-model", "--tokens", "1M"),
        ("rescore", "no-run"),
        ("calibrate", *MODEL_AND_ROWS),
        ("check", "--model", "no-model"),
        ("report", "no-run"),
        ("compare", "no-run"),
        ("train", *MODEL_AND_ROWS, "--tokens", "1M"),
        ("evaluate", "perplexity", *MODEL_AND_ROWS),
        ("evaluate", "needle", *MODEL_AND_ROWS),
        ("evaluate", "tasks", "--model", "no-model"),
    ],
)
def test_an_address_as_output_is_refused_before_anything_is_read(
    ladm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = ladm(*words, "--output", ADDRESS)
    error = result.stderr[result.stderr.rindex("ladm: ") :]
    assert (result.exit_code, error) == (2, f"ladm: --output {WRITING} addresses)\n")
    assert os.listdir(tmp_path) == []


def test_a_data_set_is_never_written_beside_its_place(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` takes `a::b` for a file b inside of a: it would write to a."""
    rows = save_rows(topical_rows(golden, [300] * 4))
    there = tmp_path / "a::b"
    there.mkdir()
    (tmp_path / "a").write_text("mine")
    assert ladm("score", rows, *SMALL, "--output", there / "run").exit_code == 0
    monkeypatch.chdir(there)
    for words in (
        ("select", "run", "--tokens", "600", "--output", "subset"),
        ("prepare", "no-file", "--tokenizer", "no-model", "--output", "rows"),
        ("run", "no-file", "--model", "no-model", "--tokens", "1M", "--output", "job"),
        ("score", "other", *SMALL, "--output", tmp_path / "other run"),
    ):
        (there / "other").mkdir(exist_ok=True)
        result = ladm(*words)
        assert result.exit_code == 2, result.stderr
        assert "has :: in it, which the datasets library takes for nested addresses; rename" in result.stderr
    # Refused before anything is written.
    result = ladm("select", "run", "--tokens", "600", "--output", tmp_path / "c::d" / "subset")
    assert (result.exit_code, (tmp_path / "c::d").exists()) == (2, False)
    assert f"{tmp_path / 'c::d' / 'subset'} has :: in it" in result.stderr
    # The other formats need no help of that library.
    assert ladm("select", "run", "--tokens", "600", "--format", "parquet", "--output", "subset").exit_code == 0
    assert (tmp_path / "a").read_text() == "mine"
    assert sorted(path.name for path in there.iterdir()) == ["other", "run", "subset"]


def test_other_places_that_cannot_be_addresses(ladm: Command, tmp_path: Path) -> None:
    result = ladm("calibrate", *MODEL_AND_ROWS, "--output", tmp_path / "p.yaml", "--work", ADDRESS)
    assert (result.exit_code, result.stderr) == (2, f"ladm: --work {WRITING} addresses)\n")
    for words in (
        ("annotate",), ("report",), ("status",), ("verify",), ("inspect",), ("top",), ("compare",),
        ("rescore", "-o", "new"), ("select", "--tokens", "1M", "-o", "subset"),
    ):  # fmt: skip
        result = ladm(words[0], ADDRESS, *words[1:])
        assert (result.exit_code, result.stderr) == (2, f"ladm: {READING}"), words


def test_a_local_path_may_have_colons(
    ladm: Command, save_rows: Any, golden: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_rows(topical_rows(golden, [512] * 4), "data:rows/rows")
    monkeypatch.chdir(tmp_path)
    run = ("a:b/run", "--rows", "data:rows/rows")
    select = ("select", *run, "--documents", "2", "-o")
    commands = [
        ("score", "data:rows/rows", "-o", "a:b/run", *SMALL, "--signals", "cds"),
        ("annotate", *run, "--num-proc", "1"),
        ("rescore", "a:b/run", "--layers", "1", "-o", "a:b/new"),
        *((*select, f"c:d/{kind}", "--format", kind) for kind in ("arrow", "parquet", "npy")),
        ("verify", "a:b/run", "--deep"),
        ("score", "c:d/arrow", "-o", "https:subset", "--model", GOLDEN, *SMALL[2:]),
    ]
    for words in commands:
        result = ladm(*words)
        assert result.exit_code == 0, (words, result.output)


def test_a_job_may_have_colons(
    ladm: Command,
    shard: Path,
    talking: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data:b").mkdir()
    shard.rename("data:b/shard.parquet")
    # data: is also the beginning of a URI that is the content itself, and :: joins nested addresses.
    Path("data:b/a::b.jsonl").write_text('{"text": "The magic number", "domain": "x"}\n')
    result = ladm("prepare", "data:b", "--tokenizer", talking, "--length", "2", "--domain", "u", "-o", "a:b")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "rows: a:b (13 rows)")
    result = ladm(*job_words(Path("data:b/shard.parquet"), talking, Path("c:d/job")), "--format", "arrow")
    assert result.exit_code == 0, result.output
    assert {path.name for path in Path("c:d/job").iterdir()} >= {"rows", "scores", "subset", "report.html"}
    following = "next: ladm train --model MODEL --rows c:d/job/subset --tokens N -o trained"
    assert result.stderr.splitlines()[-1] == following


def test_a_name_that_is_not_utf8_is_refused_before_any_work(
    ladm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results of hours could not be written there, and those that were there would be called damaged."""
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    message = "is not UTF-8; rename the file or folder\n"
    for words in (("score", "no-rows", "-o", odd), ("top", odd), ("select", "no-run", "--tokens", "9", "-o", odd)):
        result = ladm(*words)
        assert (result.exit_code, result.stderr) == (2, f"ladm: {str(odd)!a} {message}"), words
    monkeypatch.chdir(odd)
    for words in (("score", "no-rows", "-o", "run"), ("top", "run"), ("rescore", tmp_path, "-o", "run")):
        result = ladm(*words)
        assert (result.exit_code, result.stderr) == (2, f"ladm: {str(odd / 'run')!a} {message}"), words
    assert os.listdir(odd) == []


def test_a_model_a_profile_and_a_tokenizer_in_a_folder_that_is_not_utf8_are_refused(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they are is recorded, and JSON cannot hold such a name."""
    rows = save_rows(topical_rows(golden, [512]))
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(GOLDEN, odd / "model")
    (odd / "profile.yaml").write_text("format: 1\n")
    (tmp_path / "documents.jsonl").write_text('{"text": "a"}\n')
    monkeypatch.chdir(odd)
    message = "is not UTF-8; rename the file or folder\n"
    for words, name in (
        (("score", rows, "--model", "model"), "model"),
        (("score", rows, "--model", GOLDEN, "--profile", "profile.yaml"), "profile.yaml"),
        (("prepare", tmp_path / "documents.jsonl", "--tokenizer", "model"), "model"),
    ):
        result = ladm(*words, "-o", tmp_path / "run")
        assert (result.exit_code, result.stderr) == (2, f"ladm: {str(odd / name)!a} {message}"), words


def test_the_names_of_new_folders_survive_a_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new name is made durable in the folder that holds it, also where another one cannot be listed."""
    synced = []

    def sync(folder: Path) -> None:
        synced.append(folder)
        if folder == tmp_path / "new":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(output_folder, "sync_folder", sync)
    run = tmp_path / "new" / "deeper" / "run"
    assert output_folder.OutputFolder(run, record="run.json", leftovers="nothing").claim(b"{}")
    assert {tmp_path, tmp_path / "new", tmp_path / "new" / "deeper"} <= set(synced)
    assert (run / "run.json").read_bytes() == b"{}"
