"""What a started job of `ladm run` is bound to: resumed, killed, corrected, grown, and refused with other settings."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmError
from ladm.pipeline import run as run_module
from ladm.pipeline.budget import require_budget
from ladm.runs.folder import Run
from ladm.settings.pipeline import RunSettings
from ladm.storage.digests import file_xxh3
from support.commands import Command
from support.jobs import job_words
from support.subsets import write_profile


def test_a_job_grows_by_a_greater_limit(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--allow-small-pool", "--limit"]
    output, whole = tmp_path / "job", tmp_path / "whole"
    assert ladm(*job_words(shard, talking, output), *words, 4).exit_code == 0
    first = (output / "subset" / "train.bin").read_bytes()
    again = ladm(*job_words(shard, talking, output), words[0])
    assert again.exit_code == 0, again.output
    assert "limit     4 rows, as before; a greater --limit adds more\n" in again.stderr
    assert (
        "limit                 4  rows: --limit stopped there; documents after the last row are not counted\n"
        in again.stderr
    )
    assert (output / "subset" / "train.bin").read_bytes() == first

    def stop(_: Path) -> None:
        raise KeyboardInterrupt

    # Until the new subset is whole the old one stays.
    with monkeypatch.context() as patch:
        patch.setattr("ladm.selection.formats.destination.sync_tree", stop)
        assert ladm(*job_words(shard, talking, output), *words, 9).exit_code == 130
    assert (output / "subset" / "train.bin").read_bytes() == first
    grown = ladm(*job_words(shard, talking, output), *words, 9)
    assert grown.exit_code == 0, grown.output
    assert f"{output / 'subset'} was selected from fewer rows; selecting again\n" in grown.stderr
    assert ladm(*job_words(shard, talking, whole), *words, 9).exit_code == 0
    for name in ("scores/scores.parquet", "subset/train.bin", "subset/train.idx", "subset/rows.parquet"):
        assert (output / name).read_bytes() == (whole / name).read_bytes(), name
    assert yaml.safe_load((output / "job.yaml").read_text())["limit"] == 9
    fewer = ladm(*job_words(shard, talking, output), *words, 5)
    assert (fewer.exit_code, fewer.stderr.splitlines()[-1]) == (1, "  --limit: 9 before, 5 now")


def test_a_limit_holds_for_rows_that_exist_already(ladm: Command, shard: Path, talking: Path, tmp_path: Path) -> None:
    prepared = ladm(
        "prepare", shard, "--tokenizer", talking, "--length", 512, "--domain-key", "language", "-o", tmp_path / "rows"
    )  # fmt: skip
    assert prepared.exit_code == 0, prepared.output
    output = tmp_path / "job"
    words = [*job_words(tmp_path / "rows", talking, output), "--limit"]
    looked = ladm(*words, 6, "--dry-run")
    assert looked.exit_code == 0, looked.output
    assert looked.stdout.startswith("rows: 6 ")
    small = ladm(*words, 5)
    assert small.exit_code == 1
    assert "the rows have 2,560 tokens, fewer than --tokens 3,000" in small.stderr
    for limit in (6, 8):
        result = ladm(*words, limit)
        assert result.exit_code == 0, result.output
        # Once, with what to do about it; a repeated command shows what the others are, and how to add them.
        assert (result.stdout + result.stderr).count("only the first ") == 1
        total = json.loads((tmp_path / "rows" / "prepare.json").read_text())["rows"]
        warning = f"warning: only the first {limit} of {total} rows were scored; a greater --limit adds others"
        assert warning in result.stdout.splitlines()
        manifest = json.loads((output / "subset" / "manifest.json").read_text())
        assert manifest["pool_documents"] == limit


def test_the_same_command_goes_on_and_another_is_refused(ladm: Command, finished_job: tuple[Path, Path, Path]) -> None:
    output = finished_job[-1]
    words = job_words(*finished_job)
    before = {str(p.relative_to(output)): p.read_bytes() for p in output.rglob("*") if p.is_file()}
    again = ladm(*words)
    assert again.exit_code == 0, again.output
    assert f"{output} was started before; resuming it" in again.stderr
    after = {str(p.relative_to(output)): p.read_bytes() for p in output.rglob("*") if p.is_file()}
    assert {name for name in before if before[name] != after.get(name)} <= {"report.html"}
    other = ladm(*words, "--length", "256")
    assert (other.exit_code, other.stderr) == (
        1,
        f"ladm: {output} was started with something else (--length); give another --output, or what it was "
        "started with:\n"
        "  --length: 512 before, 256 now\n",
    )


def test_a_job_that_another_launch_finished_meanwhile(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = job_words(shard, talking, tmp_path / "job")
    looked_at = run_module.resolve

    def look_while_another_finishes(*arguments: Any) -> Any:
        found = looked_at(*arguments)
        monkeypatch.undo()
        assert ladm(*words).exit_code == 0
        return found

    monkeypatch.setattr(run_module, "resolve", look_while_another_finishes)
    late = ladm(*words, "--by", "length")
    assert (late.exit_code, late.stderr.splitlines()[-1]) == (1, '  --by: "score" before, "length" now')


def test_a_wrong_key_lists_the_keys_and_binds_nothing(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path
) -> None:
    output = tmp_path / "job"
    words = job_words(shard, talking, output)
    keys = "the keys are text, id, url, dump, language, token_count, page_ends"
    for flags, missing in (
        (("--text-key", "body"), "body"),
        (("--domain-key", "topic"), "topic"),
        (("--id-key", "urn"), "urn"),
    ):
        result = ladm(*words, *flags)
        assert result.exit_code == 1
        assert f"none of the first 12 documents has {missing}; {keys}: give " in result.stderr.splitlines()[-1]
    result = ladm(*words, "--length", "5000")
    assert (result.exit_code, "no document has 5,000 tokens" in result.stderr) == (1, True)
    again = ladm(*words)
    assert again.exit_code == 0, again.output
    assert f"{output} was started before and has no rows yet; starting again" in again.stderr
    assert yaml.safe_load((output / "job.yaml").read_text())["length"] == 512


def test_another_score_with_a_name_needs_no_other_run(ladm: Command, finished_job: tuple[Path, Path, Path]) -> None:
    output = finished_job[-1]
    words = job_words(*finished_job)
    other = ladm(*words, "--score", "robust", "--within", "copy_share:-95%")
    match = re.search(r"to make another selection from its scores: (ladm select .*?); or give another", other.stderr)
    assert (other.exit_code, match is not None) == (1, True)
    assert match is not None
    command = shlex.split(match[1])[1:]
    assert command[command.index("--by") :][:4] == ["--by", "robust", "--within", "copy_share:-95%"]
    assert ladm(*command).exit_code == 0
    assert json.loads((output / "subset2" / "manifest.json").read_text())["by"] == "robust"
    # What it was ranked by stays the user's choice.
    other = ladm(*words, "--score", "robust", "--by", "length")
    assert (other.exit_code, "another selection" in other.stderr) == (1, False)
    # The paper's variant is of another method than the run's.
    other = ladm(*words, "--score", "paper")
    assert (other.exit_code, "another selection" in other.stderr) == (1, False)


def test_a_job_is_bound_to_the_content_of_its_profile(
    ladm: Command, finished_job: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    shard, model, made = finished_job
    scores, profile, output = made / "scores", tmp_path / "p.yaml", tmp_path / "job"
    median = dataclasses.replace(Run.read(scores).identity.reduction, how="median")

    def change(most: float, **changes: Any) -> str:
        return file_xxh3(write_profile(scores, profile, {"score": (0.0, 0.0, most)}, **changes))

    before = change(9.0)
    words = [*job_words(shard, model, output), "--profile", profile]
    result = ladm(*words, "--within", "score:profile")
    assert result.exit_code == 0, result.output
    # A band with other limits leaves the scores as they are.
    now = change(8.0)
    select = f"ladm select {output}/scores --rows {output}/rows --tokens 3000 --within score:profile"
    select += f" --profile {profile} --format megatron"
    for more in ((), ("--dry-run",)):
        other = ladm(*words, "--within", "score:profile", *more)
        assert (other.exit_code, other.stderr.splitlines()[-2:]) == (
            1,
            [
                f"ladm: {output} was started with something else (--profile {profile}); to make another selection from "
                f"its scores: {select} -o {output}/subset2; or give another --output, or what it was started with:",
                f'  --profile {profile}: "{before}" before, "{now}" now',
            ],
        )
    assert ladm(*shlex.split(select)[1:], "-o", output / "subset2").exit_code == 0
    # Another score needs another run, also where the subset does not depend on the profile.
    change(9.0, reduction=median)
    other = ladm(*words, "--within", "score:profile")
    assert f"(--profile {profile}); to score its rows another way: ladm run {output}/rows" in other.stderr
    assert other.stderr.endswith(f'\n  --profile {profile}: "{{reduce: mean}}" before, "{{reduce: median}}" now\n')
    assert (other.stderr.count("before, "), other.stderr.count(f"--profile {profile} ")) == (1, 1)
    change(9.0)
    assert ladm(*words, "--within", "score:profile").exit_code == 0
    # The name of another file is a difference of its own.
    second = write_profile(scores, tmp_path / "q.yaml", {"score": (0.0, 0.0, 8.0)})
    other = ladm(*words[:-1], second)
    assert (other.exit_code, "--profile: " in other.stderr, "before, " in other.stderr) == (1, True, True)


def test_weights_that_are_not_given_again_are_compared_too(
    ladm: Command, finished_job: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    shard, model, _ = finished_job
    weights, output = tmp_path / "w.yaml", tmp_path / "job"
    weights.write_text("'*': 1\n")
    words = job_words(shard, model, output)
    assert ladm(*words, "--quota", weights).exit_code == 0
    assert ladm(*words).exit_code == 0
    weights.write_text("'*': 2\n")
    select = f"ladm select {output}/scores --rows {output}/rows --tokens 3000 --quota {weights} --format megatron"
    message = (
        f"ladm: {output} was started with something else (--quota {weights}); to make another selection from its "
        f"scores: {select} -o {output}/subset2; or give another --output, or what it was started with:\n"
        f"  --quota {weights}: \"{{'*': 1}}\" before, \"{{'*': 2}}\" now\n"
    )
    for given in ((), ("--quota", weights)):
        other = ladm(*words, *given)
        assert (other.exit_code, other.stderr) == (1, message), given
    assert ladm(*shlex.split(select)[1:], "-o", output / "subset2").exit_code == 0


def test_a_job_without_a_band_is_bound_to_the_score_of_its_profile(
    ladm: Command, finished_job: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, model, made = finished_job
    scores, profile, output = made / "scores", tmp_path / "p.yaml", tmp_path / "job"
    write_profile(scores, profile, {"score": (0.0, 0.0, 9.0)})
    # By --score too, and from rows that another command prepared.
    words = [*job_words(made / "rows", model, output), "--score", profile]
    assert ladm(*words).exit_code == 0
    write_profile(scores, profile, {"score": (0.0, 0.0, 8.0)})
    assert ladm(*words).exit_code == 0
    method = dataclasses.replace(Run.read(scores).identity.method, d_cds=2)
    write_profile(scores, profile, {}, method=method)
    other = ladm(*words)
    assert (other.exit_code, other.stderr.splitlines()[-2:]) == (
        1,
        [
            f"ladm: {output} was started with something else (--profile {profile}); give another --output, or what it "
            "was started with:",
            f'  --profile {profile}: "{{d_cds: 4}}" before, "{{d_cds: 2}}" now',
        ],
    )


@pytest.mark.parametrize(
    "remedy",
    [
        ("--tokens", "2k"),
        pytest.param(("--tokens", "1M", "--allow-small-pool"), marks=pytest.mark.slow),
        pytest.param(("--documents", "3"), marks=pytest.mark.slow),
    ],
)
def test_a_budget_that_was_too_great_binds_nothing(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path, remedy: tuple[str, ...]
) -> None:
    output = tmp_path / "job"
    words = job_words(shard, talking, output)
    rest = [*words[:4], *words[6:]]
    assert "fewer than --tokens" in ladm(*rest, "--tokens", "1M").stderr
    other = ladm(*rest, *remedy, "--length", "256")
    assert (other.exit_code, other.stderr.splitlines()[-1]) == (1, "  --length: 512 before, 256 now")
    result = ladm(*rest, *remedy)
    assert result.exit_code == 0, result.output
    # Now there is a subset, which another budget would contradict.
    other = ladm(*rest, "--tokens", "1k")
    command = f"ladm select {output}/scores --rows {output}/rows --tokens 1000 --format megatron -o {output}/subset2"
    assert other.exit_code == 1
    assert (
        f"to make another selection from its scores: {command}; or give another --output, or what it was started with:"
    ) in other.stderr
    assert ladm(*shlex.split(command)[1:]).exit_code == 0
    assert json.loads((output / "subset2" / "manifest.json").read_text())["taken_tokens"] <= 1000
    job = yaml.safe_load((output / "job.yaml").read_text())
    assert (job.get("tokens"), job.get("documents"), job.get("allow_small_pool")) == {
        "2k": (2000, None, None), "1M": (1_000_000, None, True), "3": (None, 3, None)
    }[remedy[1]]  # fmt: skip


@pytest.mark.slow
def test_a_killed_job_ends_with_the_same_bytes(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name from here: a resume must write it into rows as the first start did.
    monkeypatch.chdir(shard.parent)
    source = Path(shard.name)
    whole, output = tmp_path / "whole", tmp_path / "job"
    assert ladm(*job_words(source, talking, whole)).exit_code == 0
    # Killed in the middle of the blocks, and as two other parts end or start; each time then let through.
    for module, name, calls in (
        ("corpus.preparation.sealing", "seal_block", 2),
        ("scoring.scoring_pass", "finish", 1),
        ("selection.subset", "write_subset", 1),
    ):
        code = KILLED.format(module=module, name=name, calls=calls)
        words = map(str, job_words(source, talking, output))
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False,
                              env=os.environ)  # fmt: skip
        assert done.returncode == -signal.SIGKILL, (module, done.stderr)
    assert ladm(*job_words(source, talking, output)).exit_code == 0
    repeated = tmp_path / "repeated"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ladm("run", "--config", output / "job.yaml", "-o", repeated).exit_code == 0
    for name in (
        "rows/train/data-00000-of-00001.arrow", "scores/scores.parquet", "scores/sorted_by_score.jsonl",
        "subset/train.bin", "subset/train.idx", "subset/rows.parquet",
    ):  # fmt: skip
        assert (whole / name).read_bytes() == (output / name).read_bytes() == (repeated / name).read_bytes(), name


KILLED = """
import os, signal, sys
import ladm.corpus.documents.groups, ladm.{module} as part
ladm.corpus.documents.groups.BLOCK_DOCUMENTS = 4
left, real = [{calls}], part.{name}

def killed_at_the_last(*given, **named):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **named)

part.{name} = killed_at_the_last
from ladm.cli.main import main
main(sys.argv[1:])
"""


def test_a_budget_is_compared_with_the_rows_that_repeat_no_other(save_rows: Any) -> None:
    rows = open_rows(save_rows([{"input_ids": [k // 2, 5], "copy_of": "0" if k == 1 else None} for k in range(3)]))
    job = RunSettings(sources=("d.jsonl",), model="model", output="job", documents=3)
    with pytest.raises(LadmError, match=r"^there are 2 rows, fewer than --documents 3; give a smaller budget"):
        require_budget(rows, job, domain_key="none", lists=[])
    copies = "; of 3 rows 1 is left out, as copies of another row"
    # Where --limit stopped, more rows need no other documents, and no other folder.
    with pytest.raises(LadmError, match=rf"with --allow-small-pool, or give a greater --limit{copies}$"):
        require_budget(rows, dataclasses.replace(job, limit=3), domain_key="none", lists=[])
    with pytest.raises(LadmError, match=rf"or give more documents and another --output{copies}$"):
        require_budget(rows, dataclasses.replace(job, limit=4), domain_key="none", lists=[])
    require_budget(rows, dataclasses.replace(job, documents=2), domain_key="none", lists=[])
