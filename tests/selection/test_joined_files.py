"""`--join NAME=FILE`: numbers by document id from a file."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import Result

import ladm as front
from ladm.corpus.ids import readers as id_readers
from ladm.corpus.ids.id_numbers import read_id_values
from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmError, StorageError, UsageError
from ladm.runs.columns.joined_files import JoinedFile
from ladm.selection.manifest_file import read_manifest
from ladm.settings.selection import SelectSettings
from support.models import SMALL
from support.rows import topical_rows
from support.subsets import selected

Command = Callable[..., Result]
QUALITY = {"d0": 0.1, "d1": 0.7, "d2": 0.3, "7": 0.9, "x1": 5.0}
"""No row has x1, and the row d4 has no number."""
CSV = "text,id,quality,pii\n" + "".join(
    f'"a ""b"",\nc",{name},{value},{value > 0.5}\n' for name, value in QUALITY.items()
)


def save(rows: list[dict[str, Any]], folder: Path) -> Path:
    from datasets import Dataset, DatasetDict

    DatasetDict(train=Dataset.from_list(rows)).save_to_disk(str(folder))
    return folder


@pytest.fixture(scope="module")
def place(golden: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of five rows, a run of three others, and one of rows without ids."""
    from click.testing import CliRunner

    from ladm.cli.main import main

    folder = tmp_path_factory.mktemp("joined")
    rows = topical_rows(golden, [400, 410, 420, 430, 440])
    names = ["d0", "d1", "d2", "7", "d4"]
    parts = {
        "run": [row | {"id": name} for row, name in zip(rows, names, strict=True)],
        "run-more": [row | {"id": f"e{k}"} for k, row in enumerate(topical_rows(golden, [405, 415, 425]))],
        "run-bare": [{name: value for name, value in row.items() if name != "id"} for row in rows[:3]],
    }
    for name, part in parts.items():
        data = save(part, folder / f"rows-of-{name}")
        words = ["score", str(data), *SMALL, "--output", str(folder / name)]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def run(place: Path, tmp_path: Path) -> Path:
    """The run of five rows, in a folder that a subset can be put next to."""
    (tmp_path / "run").symlink_to(place / "run")
    return tmp_path / "run"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    if name.endswith(".gz"):
        data = gzip.compress(data)
    if name.endswith(".zst"):
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


def write_parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def json_lines(**more: Any) -> str:
    return "".join(
        json.dumps({"id": 7 if name == "7" else name, "quality": value, **more}) + "\n"
        for name, value in QUALITY.items()
    )


def write_kind(folder: Path, kind: str) -> Path:
    if kind == "parquet":
        quality = pa.array(list(QUALITY.values()), pa.float64())
        return write_parquet(folder / "scores.parquet", id=list(QUALITY), quality=quality)
    return write(folder, f"scores.{kind}", CSV if kind.startswith("csv") else json_lines())


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "jsonl.zst", "csv", "csv.gz"])
def test_the_numbers_of_each_format_rank_and_guard(ladm: Command, run: Path, tmp_path: Path, kind: str) -> None:
    file = write_kind(tmp_path, kind)
    flags = ("--top", "100%", "--domain-key", "none", "--join", f"edu={file}")
    found = selected(ladm, run, *flags, "--by", "edu.quality", "--within", "edu.quality:0.2-")
    assert found["positions"] == [1, 2, 3]
    assert (found["without_value"], found["guards"][0]["dropped"]) == (1, {"all": 1})
    assert "not selectable without a value of edu.quality: 1" in found["table"]
    line = f"joined edu={file}: of 5 rows 4 have a value of edu.quality (5 ids in it; 1 is of no row)"
    assert line in found["table"]
    joined = found["joined_files"]["edu"]
    assert (joined["ids"], joined["of_no_row"], joined["rows"], joined["with_value"]) == (5, 1, 5, {"quality": 4})
    assert (joined["file"], len(joined["xxh3_128"])) == (str(file), 32)
    assert read_manifest(run.parent / "subset").joined_files["edu"].text("edu") == line


def test_a_subset_is_found_again_and_a_changed_file_makes_another(ladm: Command, run: Path, tmp_path: Path) -> None:
    file = write(tmp_path, "scores.csv", CSV)
    words = ("select", run, "--documents", "2", "--domain-key", "none", "--by", "edu.quality",
             "--join", f"edu={file}", "--output", tmp_path / "subset")  # fmt: skip
    for _ in range(2):
        result = ladm(*words)
        assert result.exit_code == 0, result.output
    write(tmp_path, "scores.csv", CSV.replace("d0,0.1", "d0,0.95"))
    result = ladm(*words)
    assert result.exit_code == 1
    assert "exists already: it was made from other data" in result.stderr
    assert ladm(*words[:-1], tmp_path / "other").exit_code == 0
    assert json.loads((tmp_path / "other/manifest.json").read_text())["chosen"][0]["ids"] == ["d0", "7"]


def test_several_runs_share_a_file(ladm: Command, place: Path, tmp_path: Path) -> None:
    file = write(tmp_path, "scores.csv", "id,q\nd0,1\ne1,2\ne2,\nx,9\n")
    words = ("select", place / "run", place / "run-more", "--top", "100%", "--domain-key", "none")
    result = ladm(*words, "--by", "edu.q", "--join", f"edu={file}", "--output", tmp_path / "subset")
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / "subset")
    assert (
        manifest.joined_files["edu"]
        .text("edu")
        .endswith("of 8 rows 2 have a value of edu.q (4 ids in it; 1 is of no row)")
    )
    assert manifest.taken_documents == 2
    assert len(manifest.joined_columns["edu.q"]) == 2
    # A file of the ids of one of them alone matches too.
    only = write(tmp_path, "only.csv", "id,q\ne1,2\n")
    assert ladm(*words, "--by", "a.q", "--join", f"a={only}", "--output", tmp_path / "one").exit_code == 0
    # Of a joined run there is one set of rows.
    result = ladm(*words, "--by", "a.score", "--join", f"a={place / 'run'}", "--output", tmp_path / "two")
    assert result.exit_code == 2
    assert "with several RUNs, --join takes only files" in result.stderr


def test_top_compare_and_report_read_files(ladm: Command, run: Path, tmp_path: Path) -> None:
    file = write(tmp_path, "scores.csv", CSV)
    line = f"joined edu={file}: of 5 rows 4 have a value of edu.quality (5 ids in it; 1 is of no row)"
    result = ladm("top", run, "-n", "1", "--by", "edu.quality", "--join", f"edu={file}")
    assert result.exit_code == 0, result.output
    assert f"note      {line}" in result.stderr
    assert " 7 " in result.stdout.splitlines()[1]
    both = f"{line.partition(' (')[0]}, 4 have a value of edu.pii"
    result = ladm("compare", run, "--columns", "score,edu.quality,edu.pii", "--join", f"edu={file}")
    assert result.exit_code == 0, result.output
    assert both in result.stderr
    result = ladm("report", run, "--columns", "edu.quality", "--join", f"edu={file}", "--output", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    assert f"note      {line}" in result.stderr
    assert "edu.quality" in (tmp_path / "r.html").read_text()


def test_python(run: Path, tmp_path: Path) -> None:
    file = write(tmp_path, "scores.csv", CSV)
    opened = front.open_run(run)
    assert opened.columns(join={"edu": file})[-2:] == ["edu.quality", "edu.pii"]
    table = opened.scores(["position", "edu.quality", "edu.pii"], join={"edu": file}).to_pylist()
    found = {row["position"]: (row["edu.quality"], row["edu.pii"]) for row in table}
    assert (found[1], found[3], found[0]) == ((0.7, 1.0), (0.9, 1.0), (0.1, 0.0))
    assert np.isnan(found[4]).all()
    subset = front.select(
        run, documents=1, by="edu.quality", domain_key="none", join={"edu": file}, output=tmp_path / "subset"
    )
    assert subset.manifest.joined_files["edu"].of_no_row == 1
    with pytest.raises(UsageError, match="no row has any of its 1 id"):
        opened.scores(["edu.q"], join={"edu": write(tmp_path, "none.csv", "id,q\nx,1\n")})


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", "id,q\nx1,1\nx2,2\n", "no row has any of its 2 ids; it has ids such as x1, the rows ids such as d0"),
        ("a.csv", "id,a,b\nd0,1,2\n", "it has no column of values q; its columns are a, b"),
        ("a.jsonl", '{"id": "d0", "a": 1, "b": 2}\n', "it has no column of values q; its columns are a, b"),
        ("a.csv", "id,q,q\nd0,1,2\n", "it has 2 columns q; keep one of them"),
        ("a.csv", "name,q\nd0,1\n", "its first line names no column id (it has name, q); rename the column"),
        ("a.csv", "id,q\nd0,1\nd1,high\n", "line 3 has high in q, which is no number"),
        ("a.csv", "id,q\nd0,\x1b[2Jhigh\n", "line 2 has "),
        ("a.jsonl", '{"id": "d0", "q": [1]}\n', "line 1 has [1] in q, which is no number"),
        ("a.jsonl", f'{{"id": "d0", "q": 1{"0" * 400}}}\n', "line 1 has 1000"),
        ("a.jsonl", '"d0"\n', 'line 1 is not an object such as {"id": "d17", "q": 0.5}'),
        ("a.jsonl", '{"q": 1}\n', "line 1 has no id, which is a text or a whole number"),
        ("a.csv", "id,q\nd0,1\nd1,2\nd0,3\n", "the id d0 has two values of q, 1 (line 2) and 3 (line 4); keep one"),
        ("a.csv", "id,q\nd0,1\nd0,\n", "the id d0 has two values of q, 1 (line 2) and none (line 3); keep one"),
        ("a.csv", "id,q\nd0,0.7\nd0,0.7000000001\n", "the id d0 has two values of q, 0.7 (line 2) and 0.7000000001"),
        ("a.csv", "id,q\nd0,1_000\n", "line 2 has 1_000 in q, which is no number"),
        ("a.csv", "id,q\nd0,\nd1,nan\n", "its column q has no number"),
        ("a.csv", "id,q\n", "it has no ids"),
        ("a.jsonl", "", "it has no ids"),
        ("a.tsv", "id\tq\n", "the name of a file of values must end in .jsonl, .csv (also .gz, .zst) or .parquet"),
        ("a.txt", "d0\n", "the name of a file of values must end in .jsonl, .csv (also .gz, .zst) or .parquet"),
        ("a.csv", None, "there is no such file"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_joined_is_a_line(
    ladm: Command, run: Path, tmp_path: Path, name: str, content: str | None, problem: str
) -> None:
    file = tmp_path / name if content is None else write(tmp_path, name, content)
    words = ("select", run, "--top", "100%", "--domain-key", "none", "--by", "edu.q", "--output", tmp_path / "subset")
    result = ladm(*words, "--join", f"edu={file}")
    assert result.exit_code == 2, result.output
    assert f"--join edu={file}: {problem}" in result.stderr
    assert "\x1b" not in result.stderr
    assert not (tmp_path / "subset").exists()


def test_a_pipe_cannot_be_joined(ladm: Command, run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    result = ladm("top", run, "--by", "edu.q", "--join", f"edu={tmp_path}/a.csv")
    assert result.exit_code == 2
    assert "a.csv: it is a pipe or a device; write it to a file, which can be read twice" in result.stderr


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_columns_of_numbers_are_found_in_one_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    names = [f"c{k}" for k in range(50)]
    row: dict[str, Any] = {"id": "d0"} | dict.fromkeys(names, 0.5) | {"text": "x", "empty": ""}
    text = json.dumps(row) + "\n" if kind == "jsonl" else f"{','.join(row)}\n{','.join(map(str, row.values()))}\n"
    file = write(tmp_path, f"a.{kind}", text)
    opened = []
    unpacked = id_readers.unpacked
    monkeypatch.setattr(id_readers, "unpacked", lambda file: opened.append(1) or unpacked(file))
    assert JoinedFile("edu", str(file)).number_columns() == names
    assert len(opened) <= 2


def test_a_file_that_changes_between_two_readings_is_refused(tmp_path: Path, save_rows: Any) -> None:
    file = write(tmp_path, "a.csv", "id,q,p\nd0,1,2\n")
    rows = open_rows(save_rows([{"input_ids": [1], "id": "d0"}]))
    joined = JoinedFile("edu", str(file))
    assert [values.tolist() for _, values in joined.numbers(rows, ["q"])] == [[1.0]]
    write(tmp_path, "a.csv", "id,q,p\nd0,1,2\nd1,1,2\n")
    with pytest.raises(StorageError, match=r"a\.csv changed while it was read; run the same command again"):
        list(joined.numbers(rows, ["p"]))


def test_rows_without_ids_cannot_be_joined(ladm: Command, place: Path, tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", "id,q\n0,1\n")
    result = ladm("top", place / "run-bare", "--by", "edu.q", "--join", f"edu={file}")
    assert result.exit_code == 1
    assert f"has no ids that --join edu={file} could name" in result.stderr


# The reader


def test_equal_repetitions_are_one_value(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", "id,q,p\nb,2,\na,1,true\nb,2,\n")
    found = read_id_values(str(file), ["q", "p"], option="--join a=a.csv")
    assert len(found) == 2
    assert sorted(found.values["q"]) == [1.0, 2.0]
    assert np.nansum(found.values["p"]) == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, None, 3], pa.uint64()), [1, None, 3]),
        (pa.array([True, False, None]), [1, 0, None]),
        (pa.array([0.5, float("inf"), float("nan")], pa.float32()), [0.5, None, None]),
        (pa.array(["1.5", "", None]), [1.5, None, None]),
        (pa.array(["1.5", "2", None]).dictionary_encode(), [1.5, 2, None]),
        (pa.array([1, 2, None], pa.decimal128(5, 2)), [1, 2, None]),
    ],
)
def test_numbers_of_parquet(tmp_path: Path, values: pa.Array, expected: list[float | None]) -> None:
    file = write_parquet(tmp_path / "a.parquet", id=pa.array([5, 6, 7]), q=values)
    found = read_id_values(str(file), ["q"], option="--join a=a.parquet")
    numbers = np.sort(found.values["q"])
    np.testing.assert_array_equal(numbers, np.sort(np.array(expected, dtype=np.float64)))


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.timestamp("s"), pa.binary()])
def test_a_column_of_parquet_of_another_type(tmp_path: Path, kind: pa.DataType) -> None:
    file = write_parquet(tmp_path / "a.parquet", id=["a"], q=pa.array([None], kind))
    with pytest.raises(UsageError, match="its column q is of the type"):
        read_id_values(str(file), ["q"], option="--join a=a.parquet")
    file = write_parquet(tmp_path / "b.parquet", name=["a"], q=[1])
    with pytest.raises(UsageError, match=r"it has no column id \(it has name, q\); rename"):
        read_id_values(str(file), ["q"], option="--join a=b.parquet")


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.gz", "a.jsonl.zst"])
def test_a_damaged_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08PAR1" + bytes(40))
    with pytest.raises(LadmError, match="cannot read") as caught:
        read_id_values(str(tmp_path / name), ["q"], option="--join a=a")
    assert isinstance(caught.value, StorageError)


@pytest.mark.parametrize("place", ["scores.parquet", "there.csv"])
def test_several_runs_take_files_that_are_judged_by_their_names(place: str) -> None:
    settings = SelectSettings(runs=("a", "b"), output="s", top=5.0, by="edu.q", join=(f"edu={place}",))
    assert settings.joins == {"edu": place}


def test_windows_of_a_document_have_its_value_and_float32_includes_its_limit(
    ladm: Command, golden: Any, tmp_path: Path
) -> None:
    rows = [row | {"id": name} for row, name in zip(topical_rows(golden, [400, 410, 420]), "aab", strict=True)]
    data = save(rows, tmp_path / "rows")
    assert ladm("score", data, *SMALL, "--output", tmp_path / "run").exit_code == 0
    file = write_parquet(tmp_path / "a.parquet", id=["b", "a"], q=pa.array([0.2, 0.7], pa.float32()))
    flags = ("--top", "100%", "--domain-key", "none", "--join", f"edu={file}", "--within", "edu.q:0.7-")
    found = selected(ladm, tmp_path / "run", *flags)
    assert found["positions"] == [0, 1]
    assert found["joined_files"]["edu"]["with_value"] == {"q": 3}
