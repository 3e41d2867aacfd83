"""`ladm select --exclude-ids` and `--only-ids`: documents are left out by lists of their ids."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import Result

import ladm as package
from ladm.corpus.ids.files import hashes_of, read_id_file
from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmWarning, UsageError
from ladm.pipeline.budget import require_budget
from ladm.selection.id_lists import match_ids, read_id_lists
from ladm.selection.manifest_file import read_manifest
from ladm.settings.pipeline import RunSettings
from ladm.settings.selection import SelectSettings
from support.id_lists import LENGTHS, OUT, excluded, named_rows, write_ids, write_uuids
from support.jobs import job_words, write_finepdfs
from support.models import SMALL
from support.rows import topical_rows
from support.subsets import manifest

Command = Callable[..., Result]


@pytest.fixture
def scored(score_once: Any, save_rows: Any, golden: Any, tmp_path: Path) -> tuple[str, Path, Path]:
    """All rows with their run, and a run of those that no list excludes."""
    rows = named_rows(golden)
    every, few = save_rows(rows), save_rows([row for k, row in enumerate(rows) if k not in OUT], "few")
    for data, name in ((every, "run"), (few, "run-few")):
        score_once(data, "--signals", "cds,longattn,text", output=tmp_path / name)
    return every, tmp_path / "run", tmp_path / "run-few"


def test_a_selection_is_that_of_rows_without_the_documents(
    ladm: Command, scored: tuple[str, Path, Path], tmp_path: Path
) -> None:
    _, run, few = scored
    drop = excluded(tmp_path)
    keep = write_ids(tmp_path / "keep.txt", [f"d{k}" for k in range(9) if k not in OUT])
    for number, flags in enumerate(
        (
            ("--tokens", "2k"),
            ("--tokens", "50%"),
            ("--top", "50%"),
            ("--documents", "4", "--by", "rank(score) + z(length)"),
            # More ways to select without some documents: tests/selection/test_exclude_domain.py.
            ("--top", "50%", "--within", "length:20%-80%"),
            ("--documents", "3", "--sample", "--seed", "4"),
        )
    ):
        found = []
        for name, folder, more in (
            ("out", run, ("--exclude-ids", drop)),
            ("only", run, ("--only-ids", keep)),
            ("few", few, ()),
        ):
            output = tmp_path / f"{name}-{number}"
            result = ladm("select", folder, *flags, *more, "--output", output)
            assert result.exit_code == 0, result.output
            found.append(manifest(output))
        for left in found[:2]:
            assert left["domains"] == found[2]["domains"], flags
            assert left["chosen"][0]["ids"] == found[2]["chosen"][0]["ids"], flags
            assert (left["pool_tokens"], left["budget_tokens"]) == (
                found[2]["pool_tokens"], found[2]["budget_tokens"],
            )  # fmt: skip
        assert "id_lists" not in found[2]
    # The page reads the manifest of such a subset; no line separates what was taken from the rest.
    assert ladm("report", run, "--subset", tmp_path / "out-2").exit_code == 0
    assert f"dropped by --exclude-ids {drop}: 3 (of 5 ids in it; 2 are of no row)" in (run / "report.html").read_text()
    assert (read_manifest(tmp_path / "out-2").is_cut, read_manifest(tmp_path / "few-2").is_cut) == (False, True)


def test_what_each_list_did_is_printed_and_recorded(
    ladm: Command, scored: tuple[str, Path, Path], tmp_path: Path
) -> None:
    run = scored[1]
    drop, more = excluded(tmp_path), write_ids(tmp_path / "more.txt", ["d2", "d8"])
    first, second = write_ids(tmp_path / "a.txt", ["d0", "d1", "d2"]), write_ids(tmp_path / "b.txt", ["d1", "d4"])
    flags = ("--exclude-ids", drop, "--exclude-ids", more, "--only-ids", first, "--only-ids", second)
    result = ladm("select", run, "--top", "100%", *flags, "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    lines = [
        f"dropped by --exclude-ids {drop}: 3 (of 5 ids in it; 2 are of no row)",
        f"dropped by --exclude-ids {more}: 1 (of 2 ids in it)",
        f"kept by --only-ids {first}: 2 (of 3 ids in it)",
        f"kept by --only-ids {second}: 1 (of 2 ids in it)",
        "left out because no --only-ids has their id: 2",
    ]
    assert "\n".join(lines) in result.stdout
    found = manifest(tmp_path / "s")
    assert found["chosen"][0]["ids"] == ["d0", "d1", "d4"]
    assert found["outside_only_ids"] == 2
    assert [(each["option"], each["ids"], each["of_no_row"], each["documents"]) for each in found["id_lists"]] == [
        ("exclude_ids", 5, 2, 3), ("exclude_ids", 2, 0, 1), ("only_ids", 3, 0, 2), ("only_ids", 2, 0, 1),
    ]  # fmt: skip
    assert found["id_lists"][0] | {"xxh3_128": ""} == {
        "option": "exclude_ids", "file": str(drop), "xxh3_128": "", "ids": 5, "of_no_row": 2, "documents": 3,
    }  # fmt: skip
    read = read_manifest(tmp_path / "s")
    assert [each.xxh3_128 for each in read.id_lists] == [each["xxh3_128"] for each in found["id_lists"]]
    assert (
        f"exclude_ids:\n- {drop}\n- {more}\nonly_ids:\n- {first}\n- {second}\n"
        in (tmp_path / "s/README.md").read_text()
    )
    dry = ladm("select", run, "--top", "100%", *flags, "-o", tmp_path / "dry", "--dry-run")
    assert (dry.exit_code, lines[0] in dry.stdout, (tmp_path / "dry").exists()) == (0, True, False)


def test_excluded_rows_are_kept_without_a_rank(ladm: Command, scored: tuple[str, Path, Path], tmp_path: Path) -> None:
    flags = ("--exclude-ids", excluded(tmp_path), "--keep-all", "--format", "jsonl")
    result = ladm("select", scored[1], "--top", "100%", *flags, "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    (shard,) = (tmp_path / "s/data").iterdir()
    kept = [json.loads(line) for line in shard.read_text().splitlines()]
    assert [k for k, row in enumerate(kept) if not row["taken"]] == [*OUT]
    assert all((row["rank"] is None) == (row["score"] is None) == (not row["taken"]) for row in kept)


def test_every_window_of_a_document_and_every_run(
    ladm: Command, scored: tuple[str, Path, Path], save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    # Two windows of a document have one id.
    rows = [
        row | {"id": str(70 + k // 2), "chunked_index": k % 2} for k, row in enumerate(topical_rows(golden, LENGTHS))
    ]
    for k, row in enumerate(rows):
        row["input_ids"] = row["input_ids"][1:]
        row["index"] = 100 + k
    other = save_rows(rows, "windows")
    assert ladm("score", other, *SMALL, "--signals", "cds,longattn,text", "-o", tmp_path / "run2").exit_code == 0
    drop = write_ids(tmp_path / "both.txt", ["d0", "71", "71"])
    result = ladm("select", scored[1], tmp_path / "run2", "--top", "100%", "--exclude-ids", drop, "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert f"dropped by --exclude-ids {drop}: 3 (of 2 ids in it)" in result.stdout
    first, second = manifest(tmp_path / "s")["chosen"]
    assert first["ids"] == [f"d{k}" for k in range(1, 9)]
    assert second["ids"] == ["70", "70", "72", "72", "73", "73", "74"]
    numbers = open_rows(save_rows([row | {"id": 70 + k // 2} for k, row in enumerate(rows)], "numbers"))
    settings = SelectSettings(runs=("r",), output="o", top=1.0, exclude_ids=(str(drop),))
    matched = match_ids(read_id_lists(settings), [open_rows(scored[0]), numbers])
    assert matched is not None
    assert np.flatnonzero(matched.excluded_T >= 0).tolist() == [0, 11, 12]


def test_files_of_all_kinds(tmp_path: Path) -> None:
    plain = b"\xef\xbb\xbf7\r\n\n  d \nd\n"
    lines = b'"d"\n7\n\n{"id": 7.0, "text": "x"}\n'
    table = {"id": ["7", "d"], "text": ["a", "b"]}
    (tmp_path / "a.txt").write_bytes(plain)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "c.jsonl").write_bytes(lines)
    (tmp_path / "d.jsonl.zst").write_bytes(zstandard.compress(lines))
    pq.write_table(pa.table(table), tmp_path / "e.parquet")
    pq.write_table(pa.table({"document_id": ["d", "7"]}), tmp_path / "f.parquet")
    pq.write_table(pa.table({"id": pa.array(["d", "7"]).dictionary_encode()}), tmp_path / "g.parquet")
    expected = np.unique(hashes_of(["7", "d"])).tolist()
    for path in sorted(tmp_path.iterdir()):
        found = read_id_file(str(path), flag="--only-ids")
        assert found.hashes_M.tolist() == expected, path
    pq.write_table(pa.table({"id": [7, 8]}), tmp_path / "numbers.parquet")
    pq.write_table(pa.table({"id": [7.0, 8.0]}), tmp_path / "floats.parquet")
    for name in ("numbers", "floats"):
        hashes = read_id_file(str(tmp_path / f"{name}.parquet"), flag="--only-ids").hashes_M
        assert hashes.tolist() == np.unique(hashes_of(["7", "8"])).tolist()
    key = UUID(int=5)
    pq.write_table(pa.table({"id": pa.array([key.bytes], pa.uuid())}), tmp_path / "uuid.parquet")
    assert read_id_file(str(tmp_path / "uuid.parquet"), flag="").hashes_M.tolist() == hashes_of([str(key)]).tolist()


def damaged_files(folder: Path) -> list[tuple[str, int, str]]:
    """Files that cannot be used: the name, the exit code and the message behind `ladm: `."""
    (folder / "empty.txt").write_text("\n \n")
    (folder / "ids.tsv").write_text("id\nd1\n")
    (folder / "folder").mkdir()
    (folder / "torn.jsonl").write_text('"d1"\n{"id": "d\n')
    (folder / "text.jsonl").write_text('{"id": "d1"}\n{"text": "d2"}\n')
    (folder / "flags.jsonl").write_text("true\n")
    (folder / "torn.txt.gz").write_bytes(gzip.compress(b"d1\n" * 1000)[:-12])
    (folder / "utf16.txt").write_text("d1\n", encoding="utf-16")
    (folder / "torn.parquet").write_bytes(b"PAR1 torn")
    pq.write_table(pa.table({"doc": ["d1"], "text": ["x"]}), folder / "other.parquet")
    pq.write_table(pa.table({"id": ["d1", None]}), folder / "null.parquet")
    flag = f"--exclude-ids {folder}"
    no_id = "has no id, which is a text or a whole number"
    return [
        ("absent.txt", 2, f"{flag}/absent.txt: there is no such file"),
        ("folder", 2, f"{flag}/folder: it is a folder; give its files one by one"),
        ("ids.tsv", 2,
         f"{flag}/ids.tsv: the name of a file of ids must end in .txt, .jsonl, .csv (also .gz, .zst) or .parquet"),
        ("empty.txt", 2, f"{flag}/empty.txt: it has no ids"),
        ("torn.jsonl", 74, f"cannot read {folder}/torn.jsonl: line 2 is not JSON"),
        ("text.jsonl", 2, f"{flag}/text.jsonl: line 2 {no_id}"),
        ("flags.jsonl", 2, f"{flag}/flags.jsonl: line 1 {no_id}"),
        ("null.parquet", 2, f"{flag}/null.parquet: row 1 {no_id}"),
        ("torn.txt.gz", 74, f"cannot read {folder}/torn.txt.gz: Compressed file ended before"),
        ("utf16.txt", 74, f"cannot read {folder}/utf16.txt: it is UTF-16; convert it"),
        ("torn.parquet", 74, f"cannot read {folder}/torn.parquet: "),
        ("other.parquet", 2,
         f"{flag}/other.parquet: it has no column id (it has doc, text); call the column of ids id, or give a file "
         "with that column alone"),
    ]  # fmt: skip


def test_a_file_that_cannot_be_used_is_one_line(ladm: Command, scored: tuple[str, Path, Path], tmp_path: Path) -> None:
    for name, code, message in damaged_files(tmp_path):
        flags = ("--exclude-ids", tmp_path / name)
        result = ladm("select", scored[1], "--top", "50%", *flags, "-o", tmp_path / "s")
        assert (result.exit_code, result.stderr.startswith(f"ladm: {message}")) == (code, True), result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert not (tmp_path / "s").exists()


def test_lists_of_other_ids(ladm: Command, scored: tuple[str, Path, Path], tmp_path: Path) -> None:
    _, run, _ = scored
    other = write_ids(tmp_path / "other.txt", ["x\x1b1", "x2"])
    no_match = f"{other}: no row has any of its 2 ids; it has ids such as x?1, the rows ids such as d0"
    select = ("select", run, "--top", "50%")
    result = ladm(*select, "--exclude-ids", other, "-o", tmp_path / "s1")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (0, f"warning   --exclude-ids {no_match}")
    assert f"dropped by --exclude-ids {other}: 0 (of 2 ids in it; 2 are of no row)" in result.stdout
    keep = write_ids(tmp_path / "keep.txt", ["d1", "d2"])
    result = ladm(*select, "--only-ids", keep, "--only-ids", other, "-o", tmp_path / "s2")
    assert (result.exit_code, result.stderr) == (2, f"ladm: --only-ids {no_match}\n")
    result = ladm(*select, "--only-ids", keep, "--exclude-ids", keep, "-o", tmp_path / "s2")
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: --exclude-ids {keep}, --only-ids {keep}: no document with a score is left\n",
    )  # fmt: skip
    result = ladm(*select, "--only-ids", "s3://bucket/ids.txt", "-o", tmp_path / "s2")
    assert (result.exit_code, "copy the list to this machine and give the file" in result.stderr) == (2, True)
    assert not (tmp_path / "s2").exists()


def test_rows_without_ids(ladm: Command, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = topical_rows(golden, LENGTHS)
    data = save_rows(rows)
    assert ladm("score", data, *SMALL, "-o", tmp_path / "run").exit_code == 0
    drop = excluded(tmp_path)
    select = ("select", tmp_path / "run", "--top", "100%", "--exclude-ids", drop)
    result = ladm(*select, "-o", tmp_path / "s")
    assert (result.exit_code, result.stderr) == (
        1,
        f"ladm: {data} has no ids that --exclude-ids {drop} could name; prepare the documents again with --id-key KEY, "
        "or give --rows with a column id: neither changes a score\n",
    )
    # What the message says: rows with ids serve the same run.
    named = save_rows([row | {"id": f"d{k}" if k else None} for k, row in enumerate(rows)], "named")
    result = ladm(*select, "--rows", named, "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0] == "warning   1 row without an id, which no list of --exclude-ids can name"
    assert manifest(tmp_path / "s")["taken_documents"] == 6
    none = save_rows([row | {"id": None} for row in rows], "none")
    assert ladm(*select, "--rows", none, "-o", tmp_path / "s2").exit_code == 1


def test_a_changed_list_is_refused(ladm: Command, scored: tuple[str, Path, Path], tmp_path: Path) -> None:
    drop = excluded(tmp_path)
    command = ("select", scored[1], "--top", "50%", "--exclude-ids", drop, "-o", tmp_path / "s")
    first = ladm(*command)
    again = ladm(*command)
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    # Of the same documents, but another file.
    drop.write_text(drop.read_text() + "\nd2\n")
    again = ladm(*command)
    assert (again.exit_code, "it was made from other data" in again.stderr) == (1, True)


def test_from_python_and_from_a_file(ladm: Command, scored: tuple[str, Path, Path], tmp_path: Path) -> None:
    drop, other = excluded(tmp_path), write_ids(tmp_path / "other.txt", ["x"])
    for number, value in enumerate((drop, str(drop), [drop])):
        subset = package.select(scored[1], output=tmp_path / f"p{number}", top="50%", exclude_ids=value)
        assert [each.documents for each in subset.manifest.id_lists] == [3]
    with pytest.warns(LadmWarning, match="no row has any of its 1 id"):
        package.select(scored[1], output=tmp_path / "p3", top="50%", exclude_ids=other)
    with pytest.raises(UsageError, match="no row has any of its 1 id"):
        package.select(scored[1], output=tmp_path / "p4", top="50%", only_ids=[drop, other])
    for number, text in enumerate((f"exclude_ids: {drop}", f"exclude-ids: [{drop}]")):
        (tmp_path / "c.yaml").write_text(f"top: 50%\n{text}\n")
        result = ladm("select", scored[1], "--config", tmp_path / "c.yaml", "-o", tmp_path / f"c{number}")
        assert result.exit_code == 0, result.output


def test_lists_of_many_ids_take_little_memory(scored: tuple[str, Path, Path], tmp_path: Path) -> None:
    ids = [f"x{k}" for k in range(200_000)]
    many = write_ids(tmp_path / "many.txt", [*ids, "d3"])
    settings = SelectSettings(runs=("r",), output="o", top=1.0, only_ids=(str(many),))
    (found,) = read_id_lists(settings)
    assert found.file.hashes_M.nbytes == 8 * 200_001
    matched = match_ids([found], [open_rows(scored[0])])
    assert matched is not None
    assert (matched.found, matched.included_T.tolist()) == ([1], [k == 3 for k in range(9)])


def test_a_job_is_bound_to_the_content_of_its_lists(ladm: Command, talking: Path, tmp_path: Path) -> None:
    shard, output = write_finepdfs(tmp_path / "000_00000.parquet"), tmp_path / "job"
    drop = write_uuids(tmp_path / "drop.txt", range(20, 24))
    words = [*job_words(shard, talking, output), "--exclude-ids", drop]
    absent = ladm(*job_words(shard, talking, output), "--only-ids", tmp_path / "absent.txt")
    assert (absent.exit_code, absent.stderr.splitlines()[-1], output.exists()) == (
        2, f"ladm: --only-ids {tmp_path}/absent.txt: there is no such file", False,
    )  # fmt: skip
    # Known before anything is scored.
    result = ladm(*job_words(shard, talking, output), "--only-ids", drop)
    assert (result.exit_code, "no row has any of its 4 ids" in result.stderr) == (2, True), result.stderr
    assert not (output / "scores").exists()
    most = write_uuids(tmp_path / "most.txt", range(10))
    result = ladm(*job_words(shard, talking, output), "--exclude-ids", most)
    assert (result.exit_code, "the rows have 1,024 tokens, fewer than --tokens 3,000" in result.stderr) == (1, True)
    assert result.stderr.endswith("; of 12 rows 10 are left out, by --exclude-ids\n")
    write_uuids(drop, range(4))
    result = ladm(*words)
    assert result.exit_code == 0, result.output
    assert f"exclude_ids:\n- {drop}\n" in (output / "job.yaml").read_text()
    assert manifest(output / "subset")["id_lists"][0]["documents"] == 4
    assert ladm(*words).exit_code == 0
    before = manifest(output / "subset")["id_lists"][0]["xxh3_128"]
    now = read_id_file(str(write_uuids(drop, range(5))), flag="").xxh3_128
    for more in ((), ("--dry-run",)):
        other = ladm(*words, *more)
        assert (other.exit_code, other.stderr.splitlines()[-1]) == (
            1, f'  --exclude-ids {drop}: "{before}" before, "{now}" now',
        )  # fmt: skip
    command = f"ladm select {output}/scores --rows {output}/rows --tokens 3000 --exclude-ids {drop} --format megatron"
    assert f"(--exclude-ids {drop}); to make another selection from its scores: {command}" in other.stderr
    other = ladm(*job_words(shard, talking, output))
    # A long name is cut.
    last = other.stderr.splitlines()[-1]
    assert (other.exit_code, last[:18], last[-15:]) == (1, "  --exclude-ids: [", " before, [] now")


def test_a_job_is_bound_to_the_content_of_its_weights(ladm: Command, talking: Path, tmp_path: Path) -> None:
    shard, output, weights = write_finepdfs(tmp_path / "000_00000.parquet"), tmp_path / "job", tmp_path / "w.yaml"
    weights.write_text("'*': 1\n")
    words = [*job_words(shard, talking, output), "--quota", weights]
    for _ in range(2):
        result = ladm(*words)
        assert result.exit_code == 0, result.output
    weights.write_text("'*': 2\n")
    other = ladm(*words)
    assert (other.exit_code, other.stderr.splitlines()[-1]) == (
        1, f"""  --quota {weights}: "{{'*': 1}}" before, "{{'*': 2}}" now""",
    )  # fmt: skip
    assert f"(--quota {weights}); to make another selection from its scores: ladm select" in other.stderr


def test_a_dry_run_of_a_job_counts_what_the_lists_leave(ladm: Command, talking: Path, tmp_path: Path) -> None:
    shard, output = write_finepdfs(tmp_path / "000_00000.parquet"), tmp_path / "job"
    drop = write_uuids(tmp_path / "drop.txt", range(4))
    words = [*job_words(shard, talking, output), "--exclude-ids", drop]
    result = ladm(*words, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["selectable_rows"] == 8
    other = write_ids(tmp_path / "other.txt", ["x"])
    result = ladm(*job_words(shard, talking, output), "--only-ids", other, "--dry-run")
    assert (result.exit_code, "no row has any of its 1 id" in result.stderr) == (2, True)
    # Rows that are scored as they are.
    key = ("--length", "512", "--domain-key", "language")
    assert ladm("prepare", shard, "--tokenizer", talking, *key, "-o", tmp_path / "rows").exit_code == 0
    words[1] = tmp_path / "rows"
    result = ladm(*words, "--dry-run", "--json")
    assert (result.exit_code, json.loads(result.stdout)["selectable_rows"]) == (0, 8)
    job = RunSettings(sources=(str(tmp_path / "rows"),), model="m", output="o", documents=9, exclude_ids=(str(drop),))
    with pytest.raises(package.LadmError, match="there are 8 rows, fewer than --documents 9"):
        require_budget(open_rows(str(tmp_path / "rows")), job, domain_key="domain", lists=read_id_lists(job))


def test_a_domain_that_a_list_empties_needs_no_weight(ladm: Command, talking: Path, tmp_path: Path) -> None:
    texts = (" ".join(f"w{100 + (7 * k + n) % 90}" for n in range(600)) for k in range(10))
    documents = [{"id": f"d{k}", "text": text, "domain": "ab"[k >= 7]} for k, text in enumerate(texts)]
    source = tmp_path / "documents.jsonl"
    source.write_text("".join(f"{json.dumps(document)}\n" for document in documents))
    drop = write_ids(tmp_path / "drop.txt", ["d7", "d8", "d9"])
    words = [*job_words(source, talking, tmp_path / "job"), "--quota", "{a: 1}"]
    for more in (("--dry-run",), ()):
        result = ladm(*words, "--exclude-ids", drop, *more)
        assert result.exit_code == 0, result.output
    words = [*job_words(source, talking, tmp_path / "other"), "--quota", "{a: 1}"]
    refused = ladm(*words, "--dry-run")
    assert (refused.exit_code, "has no weight for b" in refused.stderr) == (2, True)


def test_rows_prepared_again_with_ids_serve_the_same_run(ladm: Command, talking: Path, tmp_path: Path) -> None:
    shard = write_finepdfs(tmp_path / "000_00000.parquet")
    rename = pq.read_table(shard).rename_columns({"id": "urn"})
    pq.write_table(rename, shard)
    prepare = ("prepare", shard, "--tokenizer", talking, "--length", "512", "--domain-key", "language")
    assert ladm(*prepare, "-o", tmp_path / "rows").exit_code == 0
    score = ("--model", talking, "--dtype", "float32", "--device", "cpu", "--span-tokens", "16")
    assert ladm("score", tmp_path / "rows", *score, "-o", tmp_path / "run").exit_code == 0
    drop = write_uuids(tmp_path / "drop.txt", range(4))
    select = ("select", tmp_path / "run", "--top", "100%", "--exclude-ids", drop)
    result = ladm(*select, "-o", tmp_path / "s")
    assert (result.exit_code, "prepare the documents again with --id-key KEY" in result.stderr) == (1, True)
    assert ladm(*prepare, "--id-key", "urn", "-o", tmp_path / "named").exit_code == 0
    result = ladm(*select, "--rows", tmp_path / "named", "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert manifest(tmp_path / "s")["taken_documents"] == 8
