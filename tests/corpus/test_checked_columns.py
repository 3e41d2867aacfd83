"""Damaged Arrow data sets: an error that names them, where reading a value would end the process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from ladm.corpus.files.checked_columns import checked
from support.commands import Command
from support.damage import damages_of

FLIPS = int(os.environ.get("LADM_FLIPS", "8"))


def texts(offsets: list[int], content: bytes) -> pa.Array:
    buffers = [None, pa.py_buffer(np.array(offsets, "<i4").tobytes()), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)


def saved(folder: Path) -> Path:
    """A data set of short rows, in which every sixth byte or so says where a value begins; returns its file."""
    rows = [
        {
            "text": f"some text {k}", "meta": {"pile_set_name": f"d{k % 3}", "k": None if k % 4 else "x"},
            "input_ids": [*range(k % 5 + 3)], "index": f"i{k}", "id": f"n{k}", "words": ["a", "bb"],
        }
        for k in range(40)
    ]  # fmt: skip
    Dataset.from_list(rows).save_to_disk(str(folder))
    (path,) = folder.glob("*.arrow")
    return path


@pytest.mark.parametrize("cut", [slice(None), slice(1, 2), slice(0, 0)])
def test_what_is_whole_passes_whatever_its_type(cut: slice) -> None:
    arrays = {
        "text": pa.array(["x", None, "yy"]),
        "large": pa.array(["x", None, "yy"], pa.large_string()),
        "list": pa.array([["q"], None, []]),
        "large list": pa.array([["q"], None, []], pa.large_list(pa.large_string())),
        "struct": pa.array([{"d": "z", "e": [{"f": "g"}]}, None, {"d": None, "e": None}]),
        "fixed": pa.array([["a", "b"], None, ["c", "d"]], pa.list_(pa.string(), 2)),
        "map": pa.array([[("k", "v")], None, []], pa.map_(pa.string(), pa.string())),
        "dictionary": pa.array(["u", "v", "u"]).dictionary_encode(),
        "nothing": pa.nulls(3),
        "number": pa.array([1, 2, None]),
        # No UTF-8, which costs one document and not the data set.
        "broken": texts([0, 1, 2, 3], b"\xff\xfea"),
    }
    table = pa.table(arrays)[cut]
    assert checked(table) is table


@pytest.mark.parametrize("around", ["text", "struct", "list"])
def test_offsets_outside_of_the_data(around: str) -> None:
    column: Any = texts([0, 5, 3], b"abcdef")
    if around == "struct":
        column = pa.StructArray.from_arrays([column], ["s"])
    if around == "list":
        column = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), column)
    with pytest.raises(pa.ArrowInvalid, match="non-monotonic offset"):
        checked(pa.table({"x": column}))


# A process of its own, because the fault is one that ends the process.
READ = """
import os, sys
from ladm.corpus.rows.domains import domains
from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmError
import datasets, numpy, pyarrow, xxhash
folder, path, damages = sys.argv[1], sys.argv[2], os.fsencode(sys.argv[3])
for name in sorted(os.listdir(damages)):
    with open(path, "wb") as file, open(os.path.join(damages, name), "rb") as damaged:
        file.write(damaged.read())
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        code = 1
        try:
            rows = open_rows(folder)
            for name in rows.column_names:
                rows.column(name, 0, len(rows))
            rows.read(0, len(rows)), rows.lengths(), domains(rows, "meta.pile_set_name", 0, len(rows)), rows.identity()
            code = 0
        except LadmError as error:
            code = 74 if folder in str(error) else 1
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_flipped_bit_never_ends_the_process(tmp_path: Path) -> None:
    path = saved(tmp_path / "rows")
    (tmp_path / "damages").mkdir()
    for k, (_, damaged) in enumerate(damages_of(path.read_bytes(), flips=2 * FLIPS, cuts=0, draw=random.Random(3))):
        (tmp_path / "damages" / f"{k:06}").write_bytes(damaged)
    words = [sys.executable, "-c", READ, str(tmp_path / "rows"), str(path), str(tmp_path / "damages")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    codes = Counter(map(int, done.stdout.split()))
    assert set(codes) == {0, 74}, (codes, done.stderr)
    assert sum(codes.values()) == 2 * FLIPS


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A data set in which a text begins before the one before it."""
    path = saved(tmp_path / "rows")
    content = path.read_bytes()
    offsets = np.cumsum([0, *(len(f"some text {k}") for k in range(40))]).astype("<i4").tobytes()
    at = content.index(offsets) + 4 * 20
    path.write_bytes(content[: at + 3] + b"\x70" + content[at + 4 :])
    return path.parent


def test_documents_of_a_damaged_data_set(ladm: Command, tokenizer: str, damaged: Path, tmp_path: Path) -> None:
    words = ("--tokenizer", tokenizer, "--length", "4", "-o", tmp_path / "new", "--max-bad-files", "0")
    result = ladm("prepare", damaged, *words)
    assert result.exit_code == 74, result.output
    assert str(damaged) in result.stderr


@pytest.mark.parametrize("form", ["arrow", "parquet", "npy"])
def test_a_damaged_text_of_foreign_rows_is_not_selected(
    score_once: Any, ladm: Callable[..., Any], short_rows: str, tmp_path: Path, form: str
) -> None:
    run, subset = tmp_path / "run", tmp_path / "subset"
    score_once(short_rows, output=run)
    (path,) = Path(short_rows).glob("train/*.arrow")
    content = path.read_bytes()
    at = content.index((np.arange(8) * len("document 0")).astype("<i4").tobytes()) + 4 * 3
    path.write_bytes(content[: at + 3] + b"\x70" + content[at + 4 :])
    result = ladm("select", run, "--top", "100%", "--format", form, "-o", subset)
    # The token files have no texts.
    assert result.exit_code == (0 if form == "npy" else 74), result.output
    assert form == "npy" or result.stderr.startswith(f"ladm: cannot read {short_rows}: ")
