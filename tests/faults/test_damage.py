"""One flipped bit or a cut end, in every file that a command reads back: the right result, or an error that names it.

`LADM_FLIPS=500 python -m pytest tests/faults/test_damage.py` is the long form; scripts/torture.py runs it too.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from support.damage import Command, Damages, attack, damages_of, nothing
from support.models import SMALL
from support.rows import topical_rows
from support.word_tokenizers import tokenizer_folder

FLIPS = int(os.environ.get("LADM_FLIPS", "5"))
CUTS = max(2, FLIPS // 8)
SEED = int(os.environ.get("LADM_SEED", "0"))
# A file that is cut off may be one that is not finished (3), or no run, subset or data set at all (1).
REFUSED = frozenset((1, 3, 74))


class World:
    """A folder with one of everything, made once: rows, a run, a subset, an inspected document, a rescored run."""

    def __init__(self, folder: Path, golden: dict[str, Any]) -> None:
        from datasets import Dataset

        self.folder = folder
        data = topical_rows(golden, [400 + 8 * (k % 3) for k in range(20)])
        data[3]["input_ids"], data[13]["input_ids"] = data[3]["input_ids"][:40], []
        for row in data:
            # The digest of rows covers ids, index and meta. A text is copied as it is.
            del row["text"]
        Dataset.from_list(data).save_to_disk(str(folder / "rows"))
        self.do("score", folder / "rows", *SMALL, "--output", folder / "run")
        self.do("select", folder / "run", "--tokens", "2k", "--output", folder / "subset")
        self.do("inspect", folder / "run", "--device", "cpu", "--top", "1")
        self.do("rescore", folder / "run", "--reduce", "median", "--output", folder / "rescored")

    def do(self, *words: Any) -> None:
        done = CliRunner().invoke(main(), [str(word) for word in words])
        assert done.exit_code == 0, done.output

    def command(self, *words: Any, **options: Any) -> Command:
        return Command(words=tuple(str(word) for word in words), **options)

    def readers(self) -> dict[str, Command]:
        """The commands that read a finished run."""
        t, run = self.folder, self.folder / "run"
        return {
            "status": self.command("status", run, codes=REFUSED),
            "verify": self.command("verify", run, codes=REFUSED),
            "select": self.command(
                "select", run, "--tokens", "2k", "--output", "{out}", codes=REFUSED
            ),
            "rescore": self.command(
                "rescore", run, "--reduce", "median", "--output", "{out}", codes=REFUSED, compared=nothing
            ),
            "report": self.command(
                "report", run, "--subset", t / "subset", "--output", t / "page.html",
                result=lambda: {"page": (t / "page.html").read_bytes()}, codes=REFUSED,
            ),
            "top": self.command("top", run, "--rows", t / "rows", codes=REFUSED),
            "compare": self.command("compare", run, codes=REFUSED),
            "score again": self.command("score", t / "rows", *SMALL, "--output", run, codes=REFUSED),
        }  # fmt: skip


def main() -> Any:
    from ladm.cli.main import main as program

    return program


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, golden: dict[str, Any]) -> World:
    return World(tmp_path_factory.mktemp("world"), golden)


def check(path: Path, commands: Mapping[str, Command], out: Path, **options: Any) -> Damages:
    found = attack(path, commands, out, flips=FLIPS, cuts=CUTS, seed=SEED, **options)
    print(f"{path.name}: {found.tried} damages with the seed {SEED}, {found.unharmed} without effect")
    assert not found.findings, "\n".join(map(str, found.findings))
    return found


@pytest.mark.parametrize(
    "name",
    ["run.json", "scores.parquet", "sorted_by_score.jsonl", "errors.jsonl", "units/000000.jsonl"],
)
def test_files_of_a_run(world: World, tmp_path: Path, name: str) -> None:
    check(world.folder / "run" / name, world.readers(), tmp_path / "out")


def test_the_table_of_unigrams(world: World, tmp_path: Path) -> None:
    """Resumed rows would be counted by another table than those that are there."""
    readers = world.readers()
    check(world.folder / "run" / "unigrams.npy", {n: readers[n] for n in ("verify", "score again")}, tmp_path / "out")


def test_files_beside_a_run(world: World, tmp_path: Path) -> None:
    """A subset's manifest, an inspected document, and the files of a rescored run."""
    readers = world.readers()
    check(world.folder / "subset" / "manifest.json", {"report": readers["report"]}, tmp_path / "out")
    (inspected,) = (world.folder / "run" / "inspected").iterdir()
    check(inspected, {"report": readers["report"]}, tmp_path / "out")
    rescored = world.folder / "rescored"
    again = {name: world.command(name, rescored, codes=REFUSED) for name in ("status", "verify")}
    for name in ("errors.jsonl", "sorted_by_score.jsonl"):
        check(rescored / name, again, tmp_path / "out")


def test_rows(world: World, tmp_path: Path) -> None:
    """Rows have the digest of the run's identity: other rows are refused, wherever they differ."""
    readers = world.readers()
    for path in sorted((world.folder / "rows").iterdir()):
        commands = {name: readers[name] for name in ("select", "score again")}
        check(path, commands, tmp_path / "out", named="rows")


def test_every_byte_of_a_parquet_file(tmp_path: Path) -> None:
    """Headers of pages too, which the checksums of Parquet itself leave out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ladm.errors import StorageError
    from ladm.storage.checked_parquet import add_checksum, open_parquet

    path, table = tmp_path / "x.parquet", pa.table({"a": [1.5, None, 3.0], "b": ["x", "y", "z"]})
    pq.write_table(table, path, write_page_checksum=True)
    add_checksum(path)
    whole = path.read_bytes()
    assert open_parquet(path, remedy="-").read() == table
    unnoticed = []
    for k in range(len(whole)):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 1 << k % 8]) + whole[k + 1 :])
        try:
            found = open_parquet(path, remedy="-").read()
        except StorageError:
            continue
        assert found == table
        unnoticed.append(k)
    # Only the name of the checksum itself, without which the file counts as one of an earlier version.
    assert unnoticed == list(range(whole.index(b"ladm-xxh"), whole.index(b"ladm-xxh") + 8))


def test_a_profile(world: World, tmp_path: Path) -> None:
    from ladm.method.reduction import Reduction
    from ladm.runs.folder import Run
    from ladm.settings.profiles import Profile, profile_text

    identity = Run.read(world.folder / "run").identity
    profile = Profile(
        model=identity.model, method=identity.method, length_tokens=400, found={"auc": 0.91},
        reduction=Reduction(how="mean", layers=(0, 2), weights=(0.25, 0.75)),
    )  # fmt: skip
    path = tmp_path / "profile.yaml"
    path.write_text(profile_text(profile))
    words = ("rescore", world.folder / "run", "--profile", path, "--output", "{out}")
    command = world.command(*words, codes=frozenset((1, 2, 74)), compared=nothing)
    check(path, {"rescore": command}, tmp_path / "out")


def test_files_of_a_preparation(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a finished one its record; of an unfinished one its blocks, what it was started with, and its bad files."""
    import json

    source, rows, unfinished = tmp_path / "texts.jsonl", tmp_path / "prepared", tmp_path / "unfinished"
    words = [" ".join(f"w{(k * n) % 50}" for n in range(30 + k % 5)) for k in range(24)]
    lines = [json.dumps({"text": text, "meta": {"pile_set_name": f"d{k % 2}"}}) for k, text in enumerate(words)]
    source.write_text("\n".join(lines) + "\n")
    made = ("prepare", source, "--tokenizer", tokenizer_folder(tmp_path / "tokenizer"), "--length", "32")
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 8)
    world.do(*made, "--output", rows)
    finished = {"prepare": world.command(*made, "--output", rows)}
    check(rows / "prepare.json", finished, tmp_path / "out")

    world.do(*made, "--limit", "10", "--output", unfinished)
    saved = tmp_path / "saved"
    shutil.copytree(unfinished, saved)
    names = [path.name for path in (saved / ".preparing").iterdir() if path.is_file()]
    assert {"000000.parquet", "asked.json"} <= set(names)
    for name in names:
        target = unfinished / ".preparing" / name
        words_again = tuple(str(word) for word in (*made, "--output", unfinished))
        command = Command(
            words=words_again, before=partial(restore, saved, target), result=partial(arrow_files, unfinished),
            compared=nothing,
        )  # fmt: skip
        check(target, {"prepare": command}, tmp_path / "out")


def test_every_column_of_prepared_rows(world: World, tmp_path: Path) -> None:
    """Whoever reads all rows learns of a flipped bit in a text, an id or a number too, which `run.json` leaves out."""
    from ladm.corpus.rows.reading import open_rows
    from ladm.errors import LadmError

    source, rows = tmp_path / "texts.jsonl", tmp_path / "rows"
    documents = [
        {"text": " ".join(f"w{(k * n) % 50}" for n in range(40)), "meta": {"pile_set_name": f"d{k % 2}"}, "id": f"i{k}",
         "grade": None if k == 3 else k / 3, "good": k % 2 == 0, "words": ["a", k]}
        for k in range(1, 9)
    ]  # fmt: skip
    source.write_text("".join(json.dumps(each) + "\n" for each in documents))
    world.do(
        "prepare", source, "--tokenizer", tokenizer_folder(tmp_path / "tokenizer"), "--length", "32", "-o", rows,
        "--keep-duplicates", "--windows", "all",
    )  # fmt: skip

    def content() -> Any:
        found = open_rows(str(rows))
        found.identity()
        return {name: found.column(name, 0, len(found)) for name in found.column_names}

    whole, refused = content(), 0
    assert {"text", "id", "domain", "source", "document", "copy_of", "grade", "good", "words"} - set(whole) <= {
        "copy_of"
    }
    (path,) = (rows / "train").glob("*.arrow")
    stored = path.read_bytes()
    # Ten times as many as of other files, because most of an Arrow file is metadata and padding.
    for how, damaged in damages_of(stored, flips=10 * FLIPS, cuts=CUTS, draw=random.Random(SEED)):
        path.write_bytes(damaged)
        message, found = None, whole
        try:
            found = content()
        except LadmError as error:
            message = str(error)
            refused += 1
        assert found == whole, how
        assert message is None or str(rows) in message, how
    assert refused > FLIPS
    path.write_bytes(stored)
    assert content() == whole


def test_a_contrast_set(tmp_path: Path) -> None:
    """Of an unfinished calibration or check: damage is not taken for other documents."""
    from ladm.calibration.contrast import ContrastRow
    from ladm.calibration.work_folder import save_contrast
    from ladm.errors import LadmError, StorageError

    rows = [
        ContrastRow(kind="intact", half=k % 2, document=k, packages=("a",), ids=np.arange(k, 50 + k)) for k in range(6)
    ]
    save_contrast(rows, tmp_path)
    folder = tmp_path / "contrast"
    files = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    assert {path.suffix for path in files} == {".arrow", ".json"}
    for path, content in files.items():
        for how, damaged in damages_of(content, flips=FLIPS, cuts=CUTS, draw=random.Random(SEED)):
            path.write_bytes(damaged)
            with pytest.raises(StorageError, match=f"; remove {re.escape(str(folder))}, and run the same") as caught:
                save_contrast(rows, tmp_path)
            assert path.name in str(caught.value), how
        path.write_bytes(content)
    save_contrast(rows, tmp_path)
    assert {path: path.read_bytes() for path in folder.iterdir()} == files
    with pytest.raises(LadmError, match="was started with other documents or another seed; remove it"):
        save_contrast(rows[1:], tmp_path)


def test_the_file_of_a_job(world: World, tmp_path: Path) -> None:
    """Damage in it is not taken for other flags than those that the job was started with."""
    job = tmp_path / "job"
    words = ("run", world.folder / "rows", *SMALL, "--tokens", "2k", "--output", job)
    world.do(*words)

    def subset() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (job / "subset").iterdir() if path.is_file()}

    check(job / "job.yaml", {"run": world.command(*words, compared=nothing, result=subset)}, tmp_path / "out")


def test_the_record_of_a_training(golden_lm: Path, world: World, tmp_path: Path) -> None:
    train = ("train", "--model", golden_lm, "--rows", world.folder / "rows", "--length", "64", "--tokens", "128")
    train += ("--batch-tokens", "64", "--dtype", "float32", "--output", tmp_path / "trained")
    world.do(*train)
    check(tmp_path / "trained" / "train.json", {"train": world.command(*train, compared=nothing)}, tmp_path / "out")


def restore(saved: Path, target: Path) -> None:
    """The preparation as it was stopped, but for the damaged file."""
    content, folder = target.read_bytes(), target.parents[1]
    shutil.rmtree(folder)
    shutil.copytree(saved, folder)
    target.write_bytes(content)


def arrow_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "train").glob("*.arrow")}


def numbers_of_rows(output: str) -> dict[str, Any]:
    found = json.loads(output)
    return {name: found[name] for name in ("rows", "done", "errors", "sealed")}


def test_files_that_only_say_who_works(tmp_path: Path, save_rows: Any) -> None:
    """Damage in a claim, a heartbeat or the name of a holder changes no number of rows, and stops no command."""
    from ladm.corpus.rows.reading import open_rows
    from ladm.runs.folder import Run
    from ladm.runs.heartbeat import Heartbeat
    from ladm.scoring.engines.placement import Shard
    from ladm.scoring.engines.shared_units import SharedUnits
    from ladm.storage.locks import locked
    from support import fakes
    from support.crashes import identity

    run = Run.create_or_resume(tmp_path / "run", identity(open_rows(save_rows(fakes.fake_rows(40)))))
    with locked(run.folder, shared=True):
        units = SharedUnits(run, Shard(0, 2))
        assert units.take() is not None
        Heartbeat(run.folder, shard=0).advance(3)
    for name in (".holder", ".holder-0123456789abcdef0123456789abcdef"):
        (run.folder / name).write_text("process 12 on node7\n")
    names = ["units/000000.claim-0", ".progress-0", ".holder", ".holder-0123456789abcdef0123456789abcdef"]
    command = Command(words=("status", str(run.folder)), compared=nothing, codes=frozenset())
    as_json = Command(words=("status", str(run.folder), "--json"), compared=numbers_of_rows, codes=frozenset())
    for name in names:
        check(run.folder / name, {"status": command, "json": as_json}, tmp_path / "out")


def test_an_open_unit_is_cut_at_a_torn_end_and_refused_when_damaged(tmp_path: Path, save_rows: Any) -> None:
    """A resume scores again what a cut removed, with the bytes of an undisturbed run, and names a flipped bit."""
    from ladm.corpus.rows.reading import open_rows
    from ladm.errors import StorageError
    from ladm.runs.folder import Run
    from support import fakes
    from support.crashes import complete, contents

    rows = open_rows(save_rows(fakes.fake_rows(40)))
    complete(tmp_path / "whole", rows)
    whole = contents(tmp_path / "whole")
    content = (tmp_path / "whole" / "units" / "000001.jsonl").read_bytes()
    content = content[: content.rfind(b"\n", 0, len(content) * 3 // 4) + 1]
    refused = 0
    for how, damaged in damages_of(content, flips=FLIPS, cuts=CUTS, draw=random.Random(SEED)):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "run")
        for name in whole:
            (tmp_path / "run" / name).unlink()
        (tmp_path / "run" / "units" / "000001.jsonl").unlink()
        path = tmp_path / "run" / "units" / "000001.open"
        path.write_bytes(damaged)
        message = None
        try:
            complete(tmp_path / "run", rows)
        except StorageError as error:
            message = str(error)
        if message is not None:
            assert str(path) in message, how
            refused += 1
        else:
            assert contents(tmp_path / "run") == whole, how
            assert Run.read(tmp_path / "run").is_finished
    assert refused > FLIPS // 2
