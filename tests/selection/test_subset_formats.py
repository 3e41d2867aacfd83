"""The formats of a subset: each is read by the library that it is for, or by a reader written from its description."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import itertools
import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import Result

from ladm.errors import LadmError
from ladm.selection.formats.card import card_text
from ladm.selection.formats.content import SubsetContent
from ladm.selection.manifest_file import read_manifest
from support.files import read_lines
from support.models import SMALL
from support.paths import GOLDEN
from support.rows import topical_rows
from support.subset_formats import LENGTHS, files, read_megatron, rows_with_ids, select

Command = Callable[..., Result]


@pytest.fixture
def scored(score_once: Any, save_rows: Any, golden: Any, tmp_path: Path) -> tuple[str, Path]:
    folder = save_rows(rows_with_ids(golden))
    return folder, score_once(folder, output=tmp_path / "run")


def chosen(scored: tuple[str, Path], tmp_path: Path, ladm: Command) -> list[dict[str, Any]]:
    """The rows of the default format, as `datasets` reads them."""
    from datasets import load_from_disk

    assert select(ladm, scored, tmp_path / "arrow").exit_code == 0
    return load_from_disk(str(tmp_path / "arrow"))["train"].to_list()


@pytest.mark.parametrize("form", ["arrow", "parquet", "jsonl", "npy", "megatron"])
def test_a_subset_is_no_run(ladm: Command, scored: tuple[str, Path], tmp_path: Path, form: str) -> None:
    subset = tmp_path / "subset"
    assert select(ladm, scored, subset, "--format", form).exit_code == 0
    for command in ("top", "status", "report"):
        result = ladm(command, subset)
        assert (result.exit_code, result.stderr) == (
            2,
            f"ladm: {subset} is a subset, not a run; give the run that it was selected from, as in ladm report RUN "
            f"--subset {subset}\n",
        )


def test_score_rank_domain_and_id_are_columns(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    found = chosen(scored, tmp_path, ladm)
    lines = {line["index"]: line for line in read_lines(scored[1] / "sorted_by_score.jsonl")}
    by_domain: dict[str, list[float]] = {}
    for line in lines.values():
        by_domain.setdefault(line["meta"]["pile_set_name"], []).append(line["score"])
    assert list(found[0]) == [
        "text", "meta", "input_ids", "index", "id", "original_score", "domain", "score", "rank",
    ]  # fmt: skip
    for row in found:
        line = lines[row["index"]]
        assert row["score"] == line["score"]
        assert row["domain"] == line["meta"]["pile_set_name"]
        assert row["rank"] == sorted(by_domain[row["domain"]], reverse=True).index(row["score"]) + 1
        assert (row["id"], row["original_score"]) == (f"doc-{row['index']}", "own")


def test_parquet_and_jsonl_hold_the_same_rows(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    from datasets import load_dataset

    rows = chosen(scored, tmp_path, ladm)
    for kind, loader in (("parquet", "parquet"), ("jsonl", "json")):
        output = tmp_path / kind
        assert select(ladm, scored, output, "--format", kind).exit_code == 0
        names = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
        assert names == ["README.md", "SHA256SUMS", f"data/train-00000-of-00001.{kind}", "manifest.json"]
        read = load_dataset(loader, data_files=f"{output}/data/*", split="train", cache_dir=str(tmp_path / "cache"))
        assert read.to_list() == rows
        assert json.loads((output / "manifest.json").read_text())["format"] == kind
    metadata = pq.ParquetFile(tmp_path / "parquet" / "data" / "train-00000-of-00001.parquet").metadata
    column = metadata.row_group(0).column(0)
    assert column.has_column_index
    assert column.has_offset_index


def test_parquet_holds_objects_without_keys_as_text(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:  # fmt: skip
    """Parquet has no place for the `{}` of a field that is empty in every row."""
    metas = [{"pile_set_name": "A", "tags": {}, "é": math.nan}, {"pile_set_name": "B", "tags": None, "é": 1.5}] * 4
    data = [
        row | {"meta": meta, "more": [{}]} for row, meta in zip(topical_rows(golden, [512] * 8), metas, strict=True)
    ]
    scored = save_rows(data), tmp_path / "run"
    assert ladm("score", scored[0], *SMALL, "-o", scored[1]).exit_code == 0
    rows = chosen(scored, tmp_path, ladm)
    done = select(ladm, scored, tmp_path / "parquet", "--format", "parquet")
    assert done.exit_code == 0, done.output
    found = pq.read_table(tmp_path / "parquet" / "data").to_pylist()
    texts = {
        "A": '{"pile_set_name": "A", "tags": {}, "é": null}', "B": '{"pile_set_name": "B", "tags": null, "é": 1.5}',
    }  # fmt: skip
    assert found == [row | {"meta": texts[row["meta"]["pile_set_name"]], "more": "[{}]"} for row in rows]


def test_class_labels_are_names_where_no_features_explain_them(
    ladm: Command, golden: Any, tmp_path: Path, save_rows: Any
) -> None:
    from datasets import ClassLabel, Features, List, Value, load_dataset, load_from_disk

    label = ClassLabel(names=["book", "web"])
    features = Features(input_ids=List(Value("int32")), domain=label, kind=label)
    kinds = [0, 1, None, 1]
    rows = [{"input_ids": golden["input_ids"][k][:512], "domain": k % 2, "kind": kind} for k, kind in enumerate(kinds)]
    folder, run = save_rows(rows, features=features), tmp_path / "run"
    assert ladm("score", folder, "--model", GOLDEN, "--dtype", "float32", "--signals", "cds", "-o", run).exit_code == 0
    command = ("select", run, "--documents", "4", "--domain-key", "domain")
    for kind in ("arrow", "parquet", "jsonl", "npy"):
        result = ladm(*command, "--format", kind, "-o", tmp_path / kind)
        assert result.exit_code == 0, result.output
    assert load_from_disk(str(tmp_path / "arrow"))["train"].features["kind"] == label
    (lines,) = (tmp_path / "jsonl/data").iterdir()
    parquet = load_dataset(str(tmp_path / "parquet"), split="train", cache_dir=str(tmp_path / "cache"))
    for found in (read_lines(lines), parquet.to_list()):
        assert [row["kind"] for row in found] == ["book", "web", None, "web"]
    assert pq.read_table(tmp_path / "npy/rows.parquet")["domain"].to_pylist() == ["book", "web"] * 2


def test_a_text_that_is_no_utf8_costs_its_broken_bytes_alone(ladm: Command, golden: Any, tmp_path: Path) -> None:
    """Rows of another origin may have such texts. Arrow and Parquet copy them as they are; JSON cannot hold them."""
    import pyarrow as pa
    from datasets import Dataset

    texts = pa.array([b"good", b"b\xff\xfed", "größer".encode()], pa.binary()).view(pa.string())
    ids = [golden["input_ids"][k][:512] for k in range(3)]
    Dataset(pa.table({"input_ids": ids, "text": texts})).save_to_disk(str(tmp_path / "rows"))
    run = tmp_path / "run"
    words = ("--model", GOLDEN, "--dtype", "float32", "--signals", "cds", "-o", run)
    assert ladm("score", tmp_path / "rows", *words).exit_code == 0
    command = ("select", run, "--documents", "3", "--domain-key", "none", "--format", "jsonl")
    result = ladm(*command, "-o", tmp_path / "subset")
    assert result.exit_code == 0, result.output
    (lines,) = (tmp_path / "subset/data").iterdir()
    assert [row["text"] for row in read_lines(lines)] == ["good", "b\ufffd\ufffdd", "größer"]


@pytest.mark.parametrize(
    "index", [[5, None, 7], [[1, 2], [3], None], [True, False, True], [1.0, 2.5, 3.0], ["a", None, "b"]], ids=str
)
def test_an_index_of_any_type_names_a_row_as_in_the_results(
    ladm: Command, golden: Any, save_rows: Any, tmp_path: Path, index: list[Any]
) -> None:
    rows = [{"input_ids": golden["input_ids"][k][:320], "index": each} for k, each in enumerate(index)]
    folder, run = save_rows(rows), tmp_path / "run"
    assert ladm("score", folder, *SMALL, "--layers", "0", "--signals", "cds", "-o", run).exit_code == 0
    result = ladm("select", run, "--documents", "3", "--domain-key", "none", "--format", "npy", "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    found = pq.read_table(tmp_path / "s/rows.parquet")["id"].to_pylist()
    scored = pq.read_table(run / "scores.parquet", columns=["position", "index"]).sort_by("position")
    assert found == [str(each) for each in scored["index"].to_pylist()]


def test_rows_are_written_together(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    """A batch of the file for each row would take kilobytes a row of whoever opens it."""
    import pyarrow as pa

    output = tmp_path / "subset"
    assert select(ladm, scored, output).exit_code == 0
    (file,) = (output / "train").glob("*.arrow")
    with pa.ipc.open_stream(file.read_bytes()) as stream:
        assert [len(batch) for batch in stream] == [len(chosen(scored, tmp_path / "again", ladm))]


def test_shards_end_at_their_size(scored: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ladm.corpus.rows.reading import open_rows
    from ladm.runs.columns.joined_columns import JoinedColumns
    from ladm.runs.folder import Run
    from ladm.selection.budget import DomainSelection
    from ladm.selection.formats import content, tables
    from ladm.selection.sources import SelectionSource

    monkeypatch.setattr(content, "BATCH_TOKENS", 1000)
    rows = open_rows(scored[0])
    run = Run.read(scored[1])
    source = SelectionSource(run=run, rows=rows, first=0, columns=JoinedColumns(run))
    domain = DomainSelection(positions=np.array([0, 1, 2, 4, 5]), num_tokens=rows.lengths()[[0, 1, 2, 4, 5]],
                             scores=np.arange(5)[::-1] / 4)  # fmt: skip
    domain.take_first(5)
    made = content.subset_content([source], {"all": domain})
    names = tables.write_shards(made, tmp_path / "shards", kind="parquet", shard_bytes=1)
    assert names == [f"data/train-{k:05d}-of-00004.parquet" for k in range(4)]
    found = pq.read_table(tmp_path / "shards" / "data")
    assert found["index"].to_pylist() == [0, 1, 2, 4, 5]
    assert found["rank"].to_pylist() == [1, 2, 3, 4, 5]


def test_megatron_files_hold_the_ids_of_the_rows(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    rows = chosen(scored, tmp_path, ladm)
    assert select(ladm, scored, tmp_path / "m", "--format", "megatron").exit_code == 0
    found = read_megatron(tmp_path / "m" / "train")
    assert [ids.tolist() for ids in found] == [row["input_ids"] for row in rows]
    assert found[0].dtype == np.uint16
    beside = pq.read_table(tmp_path / "m" / "rows.parquet").to_pylist()
    assert beside == [
        {name: row[name] for name in ("index", "id", "domain", "score", "rank")} | {"num_tokens": len(row["input_ids"])}
        for row in rows
    ]


def test_large_vocabularies_take_four_bytes(save_rows: Any, tmp_path: Path) -> None:
    from ladm.corpus.rows.reading import open_rows
    from ladm.runs.columns.joined_columns import JoinedColumns
    from ladm.runs.folder import Run
    from ladm.runs.identity import RunIdentity
    from ladm.selection.budget import DomainSelection
    from ladm.selection.formats import content, token_files
    from ladm.selection.sources import SelectionSource

    rows = open_rows(save_rows([{"input_ids": [65_498, 7]}, {"input_ids": [65_499]}]))
    # The run is only read for rows that were not taken.
    run = Run(tmp_path, RunIdentity({"data": {"rows": 2}, "unit_rows": 2}))
    source = SelectionSource(run=run, rows=rows, first=0, columns=JoinedColumns(run))
    for count, dtype in ((1, np.uint16), (2, np.int32)):
        domain = DomainSelection(positions=np.arange(count), num_tokens=np.array([2, 1][:count]),
                                 scores=np.ones(count))  # fmt: skip
        domain.take_first(count)
        (tmp_path / str(count)).mkdir()
        made = content.subset_content([source], {"all": domain})
        token_files.write_megatron(made, tmp_path / str(count))
        found = read_megatron(tmp_path / str(count) / "train")
        assert {ids.dtype.type for ids in found} == {dtype}
        assert np.concatenate(found).tolist() == [65_498, 7, 65_499][: 2 if count == 1 else 3]


def test_numpy_files_can_be_mapped(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    rows = chosen(scored, tmp_path, ladm)
    assert select(ladm, scored, tmp_path / "n", "--format", "npy").exit_code == 0
    tokens = np.load(tmp_path / "n" / "tokens.npy", mmap_mode="r")
    offsets = np.load(tmp_path / "n" / "offsets.npy", mmap_mode="r")
    assert (tokens.dtype, offsets.dtype) == (np.uint32, np.int64)
    assert [tokens[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [row["input_ids"] for row in rows]


def test_keep_all_says_what_was_taken(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    rows = {row["index"]: row for row in chosen(scored, tmp_path, ladm)}
    assert select(ladm, scored, tmp_path / "k", "--format", "jsonl", "--keep-all").exit_code == 0
    found = read_lines(tmp_path / "k" / "data" / "train-00000-of-00001.jsonl")
    assert [row["index"] for row in found] == list(range(8))
    assert {row["index"] for row in found if row["taken"]} == set(rows)
    for row in found:
        assert (row["score"] is None, row["rank"] is None) == (row["index"] == 3,) * 2
        assert row["domain"] == row["meta"]["pile_set_name"]
        assert not row["taken"] or row["score"] == rows[row["index"]]["score"]
    assert "All 8 rows are in the data set" in (tmp_path / "k" / "README.md").read_text()


def test_keep_all_has_the_value_and_the_domain_of_rows_that_a_guard_dropped(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path
) -> None:
    flags = ("--by", "-length", "--within", "length:-500", "--format", "jsonl", "--keep-all")
    assert select(ladm, scored, tmp_path / "k", *flags, "--allow-small-pool").exit_code == 0
    found = read_lines(tmp_path / "k" / "data" / "train-00000-of-00001.jsonl")
    assert [row["score"] for row in found] == [None if k == 3 else -float(LENGTHS[k]) for k in range(8)]
    assert [row["domain"] for row in found] == [row["meta"]["pile_set_name"] for row in found]
    assert [k for k in range(8) if found[k]["rank"] is None] == [0, 3, 4, 6]


def test_a_column_of_two_types_is_named(save_rows: Any) -> None:
    from datasets import Features, List, Value

    from ladm.corpus.rows.reading import open_rows
    from ladm.runs.columns.joined_columns import JoinedColumns
    from ladm.runs.folder import Run
    from ladm.runs.identity import RunIdentity
    from ladm.selection.formats.joined_rows import join_rows
    from ladm.selection.sources import SelectionSource

    # The text of the library begins with all columns, and what is wrong would be cut off.
    more = {f"column {k}": 1 for k in range(40)}
    names = [save_rows([{"input_ids": [1]} | more], "a")]
    texts = more | {"column 7": "1"}
    features = {"input_ids": List(Value("uint16"))} | {name: Value("int64") for name in more}
    features |= {"column 7": Value("string")}
    names.append(save_rows([{"input_ids": [1]} | texts], "b", features=Features(features)))
    run = Run(Path("run"), RunIdentity({"data": {"rows": 1}, "unit_rows": 1}))
    columns = JoinedColumns(run)
    sources = [SelectionSource(run=run, rows=open_rows(name), first=k, columns=columns) for k, name in enumerate(names)]
    with pytest.raises(LadmError) as found:
        join_rows(sources, np.arange(2))
    assert str(found.value) == (
        f"the columns of {names[0]} and {names[1]} cannot be joined: column 7 is Value('int64') and "
        "Value('string'); select from each run alone, or score rows with the same columns"
    )


@pytest.mark.parametrize("kinds", [("uint16", "int64"), ("int32", "int64"), ("uint32", "int32"), ("uint8", "uint16")])
def test_integers_of_different_widths_are_joined(save_rows: Any, kinds: tuple[str, str]) -> None:
    from datasets import Features, LargeList, List, Value

    from ladm.corpus.rows.reading import open_rows
    from ladm.runs.columns.joined_columns import JoinedColumns
    from ladm.runs.folder import Run
    from ladm.runs.identity import RunIdentity
    from ladm.selection.formats.joined_rows import JoinedRows, join_rows
    from ladm.selection.sources import SelectionSource

    rows = [{"input_ids": [k, 200 + k], "n": k, "own": f"t{k}", "empty": None, "meta": {"a": str(k)}} for k in range(3)]
    makers = (List, LargeList)
    names = []
    for k, kind in enumerate(kinds):
        features = {"input_ids": makers[k](Value(kind)), "n": Value(("int16", "int32")[k]), "empty": Value("string")}
        # A column that one of them lacks, and one whose type only the other knows.
        features |= {"own": Value("string"), "meta": {"a": Value("string")}} if k == 0 else {"meta": Value("null")}
        features |= {"empty": Value("null")} if k == 1 else {}
        kept = [{name: None if name == "meta" and k else row[name] for name in features} for row in rows]
        names.append(save_rows(kept, kind, features=Features(features)))
    run = Run(Path("run"), RunIdentity({"data": {"rows": 3}, "unit_rows": 3}))
    columns = JoinedColumns(run)
    sources = [
        SelectionSource(run=run, rows=open_rows(name), first=3 * k, columns=columns) for k, name in enumerate(names)
    ]
    data, positions = join_rows(sources, np.array([1, 3, 5]))
    assert isinstance(data, JoinedRows)
    assert positions.tolist() == [1, 3, 5]
    widest = {("uint32", "int32"): "int64", ("uint8", "uint16"): "uint16"}.get(kinds, "int64")
    assert data.features["input_ids"] == List(Value(widest))
    assert data.features["n"] == Value("int32")
    assert data.read(data.column_names, positions).to_pylist() == [
        {"input_ids": [1, 201], "n": 1, "empty": None, "own": "t1", "meta": {"a": "1"}},
        {"input_ids": [0, 200], "n": 0, "empty": None, "own": None, "meta": None},
        {"input_ids": [2, 202], "n": 2, "empty": None, "own": None, "meta": None},
    ]
    assert data.read(["own"], positions[1:]).to_pylist() == [{"own": None}] * 2
    # Nothing of the second data set is chosen: it is not looked at.
    assert not isinstance(join_rows(sources, np.array([1]))[0], JoinedRows)


def test_a_subset_of_two_widths_in_every_format(ladm: Callable[..., Any], golden: Any, tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict, List, Value, load_dataset, load_from_disk

    # Of different lengths, because equal rows of the second run would be left out.
    every = topical_rows(golden, [512, 510, 508, 506, 504, 502])
    runs, folders = [], []
    for k, kind in enumerate(("uint16", "int64")):
        folder = tmp_path / kind
        data = Dataset.from_list(every[3 * k : 3 * k + 3]).cast_column("input_ids", List(Value(kind)))
        DatasetDict(train=data).save_to_disk(folder)
        folders.append(folder)
        runs.append(tmp_path / f"run-{kind}")
        assert ladm("score", folder, *SMALL, "--output", runs[-1]).exit_code == 0
    chosen = [row["input_ids"] for row in every]
    for kind in ("arrow", "parquet", "jsonl", "megatron", "npy"):
        result = ladm("select", *runs, "--top", "100%", "--format", kind, "-o", tmp_path / kind)
        assert result.exit_code == 0, result.output
    assert load_from_disk(tmp_path / "arrow")["train"]["input_ids"][:] == chosen
    for kind in ("parquet", "jsonl"):
        files = str(tmp_path / kind / "data/*")
        reader = "json" if kind == "jsonl" else kind
        found = load_dataset(reader, data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert found["input_ids"][:] == chosen
    assert np.load(tmp_path / "npy/tokens.npy").tolist() == list(itertools.chain(*chosen))


def test_no_column_is_made_that_the_rows_have() -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"input_ids": [[1], [2]], "id": ["a", "b"], "domain": ["x", "y"]})
    content = SubsetContent(
        data=rows, place="rows", positions=np.arange(2), num_tokens=np.ones(2, dtype=np.int64),
        scores=np.array([1.0, np.nan]), ranks=np.array([1, 0]), domains=np.array([0, -1], dtype=np.int32),
        # A domain by the number 0 is missing, so reading its name would fail.
        domain_names=[], taken=np.ones(2, dtype=np.bool_), keep_all=False,
    )  # fmt: skip
    (table,) = content.tables()
    assert table.to_pylist() == [
        {"input_ids": [1], "id": "a", "domain": "x", "score": 1.0, "rank": 1},
        {"input_ids": [2], "id": "b", "domain": "y", "score": None, "rank": None},
    ]


def test_the_card(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    assert select(ladm, scored, tmp_path / "p", "--format", "parquet").exit_code == 0
    text = (tmp_path / "p" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "tags": ["ladm", "long-context"],
        "task_categories": ["text-generation"],
        "size_categories": ["n<1K"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
        ],
    }  # fmt: skip
    assert front.startswith("# license: ")
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    assert f"{manifest['taken_documents']} rows with {manifest['taken_tokens']:,} tokens" in body
    assert "| domain 0 | 4 |" in body
    assert f'load_dataset("{tmp_path}/p", split="train")' in body


def card_settings(folder: Path) -> dict[str, Any]:
    text = (folder / "README.md").read_text()
    settings: dict[str, Any] = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    return settings


def test_the_card_says_what_was_ranked_and_how(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    assert select(ladm, scored, tmp_path / "plain").exit_code == 0
    text = (tmp_path / "plain" / "README.md").read_text()
    assert ", chosen by their score from " in text
    assert "`score` is higher where a document depends more on its distant parts; `rank`" in text
    assert list(card_settings(tmp_path / "plain"))[:5] == ["by", "budget", "rule", "domain_key", "command"]
    guards = ["length:400-500", "robust:10%-"]
    flags = ["--by", "2*rank(robust)-3*rank(length)", "--sample", "--temperature", "0.5", "--seed", "3"]
    flags += [word for guard in guards for word in ("--within", guard)]
    result = select(ladm, scored, tmp_path / "s", *flags, "--allow-small-pool")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "s" / "README.md").read_text()
    assert ", drawn by chance, weighted by `2*rank(robust)-3*rank(length)` from " in text
    assert "`score` is the value of `2*rank(robust)-3*rank(length)`; `rank` is its place" in text
    assert "| lowest value taken |" in text
    assert "their score" not in text
    settings = card_settings(tmp_path / "s")
    assert settings["within"] == guards
    assert settings["sample"] == {"temperature": 0.5, "seed": 3}
    assert settings["command"].startswith("ladm select ")
    assert "max_per_document" not in settings
    manifest = dataclasses.replace(read_manifest(tmp_path / "s"), max_per_document=2)
    assert "max_per_document: 2\n" in card_text(manifest, rows=3, folder="s")
    for kind in ("arrow", "parquet", "jsonl", "megatron", "npy"):
        folder = 'a "b" {c} \\ é\n'
        text = card_text(dataclasses.replace(manifest, format=kind), rows=3, folder=folder)
        code = ast.parse(text.rpartition("```python\n")[2].partition("```")[0])
        names = [node.value for node in ast.walk(code) if isinstance(node, ast.Constant)]
        assert any(str(name).startswith(folder) for name in names), kind


def test_bytes_are_null_in_json(tmp_path: Path) -> None:
    import pyarrow as pa

    from ladm.selection.formats.tables import _JsonShard

    rows = [{"x": b"\xff", "n": {"b": b"a", "t": datetime.date(2020, 1, 2)}, "f": 1.5}, {"x": None, "f": math.nan}]
    with (tmp_path / "x.jsonl").open("wb") as file:
        table = pa.Table.from_pylist([rows[0], {**rows[1], "n": {"b": b"c", "t": None}}])
        _JsonShard(file, table.schema).write(table)
    assert read_lines(tmp_path / "x.jsonl") == [
        {"x": None, "n": {"b": None, "t": "2020-01-02"}, "f": 1.5},
        {"x": None, "n": {"b": None, "t": None}, "f": None},
    ]


def test_names_from_the_data_stay_text_in_the_card() -> None:
    from ladm.selection.formats.card import _cell

    assert _cell("a|b\n<script>`x` [l](u) &") == "a&#124;b &lt;script&gt;&#96;x&#96; &#91;l](u) &amp;"


def test_flags_that_contradict_each_other(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    for flags, message in (
        (("--format", "csv"), "--format 'csv' is not arrow or parquet or jsonl or megatron or npy"),
        (("--format", "npy", "--keep-all"),
         "--keep-all needs --format arrow, parquet or jsonl; npy files have no place for what was not taken"),
        (("--push", "name"), "--push 'name' is not a data set of the Hub such as org/name"),
        (("--push", "o/n", "--format", "arrow"),
         "--push needs another --format than arrow, which the Hub neither shows nor loads"),
    ):  # fmt: skip
        result = select(ladm, scored, tmp_path / "x", *flags)
        assert (result.exit_code, result.stderr) == (2, f"ladm: {message}\n")


@pytest.mark.parametrize(
    "kind", ["parquet", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("megatron", "arrow"))]
)
def test_a_killed_command_leaves_nothing_and_writes_the_same_bytes(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path, kind: str
) -> None:
    assert select(ladm, scored, tmp_path / "whole", "--format", kind).exit_code == 0
    output = tmp_path / "out"
    # Stopped for good where everything but the rename is done.
    code = "import ladm.selection.formats.destination as d, os, signal, sys\n" \
        "d.sync_tree = lambda folder: os.kill(os.getpid(), signal.SIGKILL)\n" \
        "from ladm.cli.main import main\nmain(sys.argv[1:])"  # fmt: skip
    words = ["select", scored[1], "--rows", scored[0], "--tokens", "2k", "-o", output, "--format", kind]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not output.exists()
    assert select(ladm, scored, output, "--format", kind).exit_code == 0
    expected = {str(p.relative_to(tmp_path / "whole")): p.read_bytes() for p in files(tmp_path / "whole")}
    found = {str(p.relative_to(output)): p.read_bytes() for p in files(output)}
    # The card and the command in the manifest name the folder, and the manifest's checksum follows. Where the lines of
    # the card end depends on the length of that name.
    for name in ("README.md", "manifest.json"):
        found[name] = found[name].replace(str(output).encode(), str(tmp_path / "whole").encode())
    for each in (found, expected):
        each["README.md"] = b" ".join(each["README.md"].split())
    manifests = [json.loads(content.pop("manifest.json")) for content in (found, expected)]
    assert [manifest.pop("crc32") != "" for manifest in manifests] == [True, True]
    assert manifests[0] == manifests[1]
    assert found == expected
