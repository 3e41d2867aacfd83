"""`ladm verify` of rows and of subsets, and the readers that refuse a subset that is not as it was selected."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ladm as library
from ladm.errors import LadmError
from support.commands import Command
from support.files import flip
from support.paths import GOLDEN
from support.subset_formats import rows_with_ids, select

FORMATS = ("arrow", "parquet", "jsonl", "megatron", "npy")


@pytest.fixture
def scored(score_once: Any, save_rows: Any, golden: Any, tmp_path: Path) -> tuple[str, Path]:
    folder = save_rows(rows_with_ids(golden))
    return folder, score_once(folder, output=tmp_path / "run")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, talking_model: Path) -> Path:
    """A folder with documents, a model, rows of `ladm prepare` and a finished job; `whole` beside it is a copy."""
    from ladm.cli.main import main

    folder = tmp_path_factory.mktemp("place") / "used"
    documents, model = folder / "documents.jsonl", folder / "talking"
    shutil.copytree(talking_model, model)
    texts = [" ".join(f"word{k * n % 997}" for k in range(900)) for n in range(2, 12)]
    documents.write_text("".join(json.dumps({"text": text, "id": f"d{n}"}) + "\n" for n, text in enumerate(texts)))
    flags = ("--domain", "a", "--length", "256")
    words = (*flags, "--tokens", "1k", "--span-tokens", "8", "--device", "cpu", "--dtype", "float32")
    for command in (
        ("prepare", documents, "--tokenizer", model, *flags, "-o", folder / "rows-prepared"),
        ("run", documents, "--model", model, *words, "-o", folder / "job"),
    ):
        done = CliRunner().invoke(main, [str(word) for word in command])
        assert done.exit_code == 0, done.output
    shutil.copytree(folder, folder.parent / "whole")
    return folder


@pytest.fixture
def fresh(place: Path) -> Path:
    """The same folder as it was made, at the place whose paths its files name."""
    shutil.rmtree(place)
    return Path(shutil.copytree(place.parent / "whole", place))


@pytest.fixture
def prepared(fresh: Path) -> Path:
    """Rows of `ladm prepare`."""
    return fresh / "rows-prepared"


def test_rows_are_sound_until_a_byte_of_them_changes(ladm: Command, prepared: Path) -> None:
    result = ladm("verify", prepared)
    assert (result.exit_code, result.stdout) == (0, f"{prepared} is sound: 10 rows\n")
    (shard,) = prepared.rglob("*.arrow")
    whole = shard.read_bytes()
    found = set()
    for at in range(len(whole) // 3, len(whole), len(whole) // 20):
        flip(shard, at)
        result = ladm("verify", prepared)
        found.add(result.exit_code)
        if result.exit_code:
            assert str(prepared) in result.stdout
            assert result.stderr.startswith(f"ladm: {prepared} is not sound: 1 problem")
        shard.write_bytes(whole)
    # 0: a byte between two buffers, which means nothing.
    assert 74 in found
    assert found <= {0, 74}


def test_rows_without_checksums_are_not_called_sound(ladm: Command, scored: tuple[str, Path], prepared: Path) -> None:
    result = ladm("verify", scored[0])
    assert result.exit_code == 1
    message = f"ladm: {scored[0]} has no prepare.json, so there is nothing to compare its rows with"
    assert result.stderr.startswith(message)
    record = json.loads((prepared / "prepare.json").read_text())
    for key in ("xxh3_128", "crc32"):
        del record[key]
    (prepared / "prepare.json").write_text(json.dumps(record))
    result = ladm("verify", prepared)
    assert result.exit_code == 1
    assert "prepare.json has no xxh3_128, so there is nothing to compare the rows with" in result.stderr


def test_unfinished_rows_end_with_the_code_for_that(ladm: Command, prepared: Path) -> None:
    (prepared / "prepare.json").unlink()
    (prepared / ".preparing").mkdir(exist_ok=True)
    result = ladm("verify", prepared)
    assert result.exit_code == 3
    message = f"ladm: {prepared} is not finished: its ladm prepare was stopped; run that command again"
    assert result.stderr.startswith(message)


def test_deep_is_for_runs(ladm: Command, prepared: Path) -> None:
    result = ladm("verify", prepared, "--deep")
    assert result.exit_code == 2
    message = f"ladm: {prepared} is not a run; leave --deep out, everything in it is read anyway"
    assert result.stderr.startswith(message)


@pytest.mark.parametrize("form", FORMATS)
def test_every_changed_or_missing_file_of_a_subset_is_named(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path, form: str
) -> None:
    subset = tmp_path / "subset"
    assert select(ladm, scored, subset, "--format", form).exit_code == 0
    result = ladm("verify", subset)
    assert result.exit_code == 0, result.stdout
    assert result.stdout.startswith(f"{subset} is sound: 4 rows, ")
    # Where there is no ladm, the system's own program checks the same.
    check = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=subset, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr
    files = [path for path in sorted(subset.rglob("*")) if path.is_file() and path.name != "README.md"]
    assert len(files) >= 3
    for path in files:
        whole = path.read_bytes()
        flip(path, len(whole) // 2)
        result = ladm("verify", subset)
        assert result.exit_code == 74, path
        assert str(path) in result.stdout or path.name == "SHA256SUMS"
        path.write_bytes(whole)
    for path in files:
        if path.name in ("SHA256SUMS", "manifest.json"):
            # Without the second it is no subset, and for the first see the next test.
            continue
        away = path.rename(tmp_path / "away")
        result = ladm("verify", subset)
        assert (result.exit_code, result.stdout) == (74, f"{path} is damaged or missing\n")
        away.rename(path)
    # The card is its owner's to complete.
    (subset / "README.md").write_text("my own")
    assert ladm("verify", subset).exit_code == 0


def test_a_subset_with_a_list_that_leads_elsewhere_is_damaged(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path
) -> None:
    subset = tmp_path / "subset"
    assert select(ladm, scored, subset).exit_code == 0
    for text in ("", "no list\n", f"{'0' * 64}  ../secret\n", f"{'0' * 64}  /etc/hostname\n"):
        (subset / "SHA256SUMS").write_text(text)
        result = ladm("verify", subset)
        expected = f"{subset / 'SHA256SUMS'} is damaged: it is no list of SHA-256 checksums\n"
        assert (result.exit_code, result.stdout) == (74, expected)
    (subset / "manifest.json").rename(tmp_path / "manifest")
    result = ladm("verify", subset)
    assert (result.exit_code, result.stdout.splitlines()[0]) == (74, f"{subset / 'manifest.json'} is missing")
    (tmp_path / "manifest").rename(subset / "manifest.json")
    (subset / "SHA256SUMS").unlink()
    result = ladm("verify", subset)
    assert result.exit_code == 1
    message = f"ladm: {subset} has no SHA256SUMS, so there is nothing to compare its files with"
    assert result.stderr.startswith(message)


def test_a_damaged_subset_is_not_read_as_rows(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    subset = tmp_path / "subset"
    assert select(ladm, scored, subset).exit_code == 0
    score = ("score", subset, "--model", GOLDEN, "--dtype", "float32", "--span-tokens", "8", "-o")
    assert ladm(*score, tmp_path / "run2").exit_code == 0
    (shard,) = subset.rglob("*.arrow")
    flip(shard, len(shard.read_bytes()) // 2)
    result = ladm(*score, tmp_path / "run3")
    assert result.exit_code == 74
    message = f"{shard} is damaged or was changed since ladm select wrote it; select again, or remove "
    assert message + f"{subset / 'SHA256SUMS'} if it was changed on purpose" in result.stderr


def test_the_same_from_python(scored: tuple[str, Path], prepared: Path, ladm: Command, tmp_path: Path) -> None:
    subset = tmp_path / "subset"
    assert select(ladm, scored, subset).exit_code == 0
    assert [library.verify(place) for place in (prepared, scored[1], subset)] == [[], [], []]
    (shard,) = subset.rglob("*.arrow")
    shard.unlink()
    (problem,) = library.verify(subset)
    assert (problem.text, problem.is_damage) == (f"{shard} is damaged or missing", True)
    shutil.rmtree(subset)
    with pytest.raises(LadmError, match="does not exist"):
        library.verify(subset)
    with pytest.raises(LadmError, match="--deep 'yes' is not true or false"):
        library.verify(prepared, deep="yes")  # type: ignore[arg-type]


def test_json_names_the_kind_of_folder(ladm: Command, scored: tuple[str, Path], prepared: Path) -> None:
    def found(place: Any) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(ladm("verify", place, "--json").stdout)
        return content

    same = {"finished": True, "problems": []}
    assert found(scored[1]) == {"run": str(scored[1]), "kind": "run", "rows": 8} | same
    assert found(prepared) == {"folder": str(prepared), "kind": "rows", "rows": 10} | same


@pytest.fixture
def job(fresh: Path) -> Path:
    """The folder of a finished `ladm run`."""
    return fresh / "job"


def test_all_folders_of_a_job_are_checked(ladm: Command, job: Path) -> None:
    """Also the rows and the subset, which is what somebody trains on."""
    result = ladm("verify", job)
    sound = {name: f"{job / name} is sound: " for name in ("rows", "scores", "subset")}
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert [line.startswith(start) for line, start in zip(lines, sound.values(), strict=True)] == [True] * 3
    assert ladm("verify", job, "--deep").stdout == result.stdout
    found = json.loads(ladm("verify", job, "--json").stdout)
    expected = {"folder": str(job), "kind": "job", "rows": 10, "finished": True, "problems": []}
    assert found == expected
    for name in ("rows", "subset"):
        (shard,) = (job / name).rglob("*.arrow")
        whole = shard.read_bytes()
        flip(shard, whole.index(b"word"))
        result = ladm("verify", job)
        assert result.exit_code == 74
        assert result.stdout.startswith(str(job / name))
        assert result.stderr.startswith(f"ladm: {job} is not sound: 1 problem")
        assert library.verify(job)[0].text.startswith(str(job / name))
        shard.write_bytes(whole)


@pytest.mark.parametrize("name", ["rows", "subset"])
def test_a_job_without_one_of_its_folders_is_not_finished(ladm: Command, job: Path, name: str) -> None:
    shutil.rmtree(job / name)
    result = ladm("verify", job)
    message = f"ladm: {job} shows no damage so far, but is not finished; rerun the command that started it\n"
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", message)


def test_a_folder_of_a_job_that_cannot_be_checked_hides_no_damage_of_the_others(ladm: Command, job: Path) -> None:
    """Also its flags, which are repeated where it resumes."""
    (job / "subset" / "SHA256SUMS").unlink()
    line = f"{job}/subset has no SHA256SUMS, so there is nothing to compare its files with"
    result = ladm("verify", job)
    assert (result.exit_code, result.stdout) == (1, f"{line}\n")
    (unit,) = (job / "scores" / "units").iterdir()
    flip(unit, 50)
    (job / "rows" / "prepare.json").unlink()
    (job / "rows" / ".preparing").mkdir(exist_ok=True)
    flags = job / "job.yaml"
    flags.write_text(flags.read_text().replace("length: 256", "length: 257"))
    result = ladm("verify", job)
    of_flags, of_unit, of_subset = result.stdout.splitlines()
    assert result.exit_code == 74
    assert of_flags == f"{flags}: damaged, or edited by hand; if you edited it, remove its line checksum"
    assert of_unit.startswith(f"{unit} is damaged")
    assert of_subset == line


def test_a_job_of_rows_that_existed_has_none_of_its_own(
    ladm: Command, prepared: Path, talking: Path, tmp_path: Path
) -> None:
    flags = ["--span-tokens", "8", "--device", "cpu", "--dtype", "float32", "--tokens", "1k"]
    assert ladm("run", prepared, "--model", talking, *flags, "-o", tmp_path / "job").exit_code == 0
    result = ladm("verify", tmp_path / "job")
    names = [line.split(" is sound")[0] for line in result.stdout.splitlines()]
    assert (result.exit_code, names) == (0, [str(tmp_path / "job" / name) for name in ("scores", "subset")])


def test_a_job_that_was_moved_finds_its_rows_beside_its_run(
    ladm: Command, job: Path, talking: Path, tmp_path: Path
) -> None:
    moved = job.rename(tmp_path / "moved")
    for words in (
        ["verify", moved, "--deep"],
        ["select", moved, "--tokens", "1k", "-o", tmp_path / "subset"],
        ["inspect", moved, "--top", "1"],
        ["report", moved],
        ["top", moved / "scores"],
        ["annotate", moved],
    ):
        result = ladm(*words)
        assert result.exit_code == 0, result.stderr
        assert "--rows" not in result.stderr
    # Rows of that name beside a run are used only if they are those that it scored.
    shutil.rmtree(moved / "rows")
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"text": "other words " * 900}))
    words = ["--domain", "a", "--tokenizer", str(talking), "--length", "256"]
    assert ladm("prepare", other, *words, "-o", moved / "rows").exit_code == 0
    result = ladm("select", moved, "--tokens", "1k", "-o", tmp_path / "subset2")
    assert (result.exit_code, f"{moved}/rows are not the rows that {moved}/scores scored" in result.stderr) == (1, True)


def test_deep_takes_rows_and_model_from_where_they_are_now(
    ladm: Command, prepared: Path, scored: tuple[str, Path], tmp_path: Path, talking: Path
) -> None:
    flags = ["--span-tokens", "8", "--device", "cpu", "--dtype", "float32"]
    run = tmp_path / "runs" / "run"
    own = shutil.copytree(talking, tmp_path / "own")
    assert ladm("score", prepared, "--model", own, *flags, "-o", run).exit_code == 0
    rows, model = prepared.rename(tmp_path / "elsewhere"), own.rename(tmp_path / "walking")
    result = ladm("verify", run, "--deep")
    assert result.exit_code == 1
    of_model, of_rows = result.stdout.splitlines()
    assert of_model.startswith("the model cannot be compared: no such model: ")
    assert of_model.endswith("; give its new path with --model")
    assert of_rows.startswith("the rows cannot be compared: no such data set: ")
    assert of_rows.endswith("; give their new path with --rows")
    result = ladm("verify", run, "--deep", "--rows", rows, "--model", model)
    assert (result.exit_code, result.stdout) == (0, f"{run} is sound: 10 rows, 1 unit\n")
    assert library.verify(run, deep=True, rows=rows, model=model) == []
    assert library.open_run(run).verify(deep=True, rows=rows, model=model) == []
    other, _ = scored
    (problem,) = library.verify(run, deep=True, rows=other, model=model)
    assert problem.text == f"the rows {other} are not those that were scored"
    for name in ("rows", "model"):
        result = ladm("verify", run, f"--{name}", rows)
        assert (result.exit_code, result.stderr.splitlines()[0]) == (2, f"ladm: --{name} has no effect without --deep")
