"""The recipes of docs/integrations.md that turn a subset into files of other trainers, read back by their libraries."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from support.paths import ROOT
from support.rows import topical_rows

Command = Callable[..., Result]
PAGE = ROOT / "docs" / "integrations.md"
LENGTH = 512


def recipe(word: str) -> str:
    """The block of Python on the page that has a word."""
    (found,) = (each for each in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if word in each)
    return str(found)


@pytest.fixture
def chosen(
    ladm: Command, score_once: Any, save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[list[int]]]:
    """Make `subset` in a format, in the working folder; the token ids of its rows."""
    from datasets import load_from_disk

    folder = save_rows(topical_rows(golden, [LENGTH] * 8))
    score_once(folder, output=tmp_path / "run")
    monkeypatch.chdir(tmp_path)

    def select(kind: str) -> list[list[int]]:
        for name, each in (("arrow", "arrow"), ("subset", kind)):
            call = ("select", tmp_path / "run", "--documents", 5, "--format", each, "--output", name)
            assert ladm(*call).exit_code == 0
        return [list(ids) for ids in load_from_disk("arrow")["train"]["input_ids"]]

    return select


def test_nanotron(chosen: Callable[[str], list[list[int]]]) -> None:
    expected = chosen("npy")
    exec(recipe("nanoset"), {})
    assert np.fromfile("nanoset/subset.ds", dtype="<u2").reshape(-1, LENGTH).tolist() == expected
    pytest.importorskip("datatrove")
    from datatrove.utils.dataset import DatatroveFolderDataset

    samples = DatatroveFolderDataset("nanoset", seq_len=LENGTH - 1, filename_pattern="*.ds", token_size=2)
    assert [samples[k]["input_ids"].tolist() for k in range(len(samples))] == expected


def test_mosaicml_streaming(chosen: Callable[[str], list[list[int]]]) -> None:
    streaming = pytest.importorskip("streaming")
    expected = chosen("npy")
    exec(recipe("MDSWriter"), {})
    samples = streaming.StreamingDataset(local="mds", shuffle=False, batch_size=1)
    assert [samples[k]["tokens"].tolist() for k in range(len(samples))] == expected


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_litdata(chosen: Callable[[str], list[list[int]]], run_file: Callable[[str], None]) -> None:
    litdata = pytest.importorskip("litdata")
    expected = chosen("npy")
    run_file(recipe("litdata"))
    loader = litdata.TokensLoader(block_size=LENGTH)
    samples = litdata.StreamingDataset("litdata", item_loader=loader, shuffle=False, drop_last=False)
    # Of several workers, each has rows of its own.
    assert sorted(samples[k].tolist() for k in range(len(samples))) == sorted(expected)


def test_axolotl(chosen: Callable[[str], list[list[int]]]) -> None:
    import pyarrow.parquet as pq

    expected = chosen("arrow")
    exec(recipe("axolotl"), {})
    table = pq.read_table("axolotl/train.parquet")
    assert sorted(table.column_names) == ["attention_mask", "input_ids", "labels"]
    assert table["input_ids"].to_pylist() == table["labels"].to_pylist() == expected
    assert table["attention_mask"].to_pylist() == [[1] * LENGTH] * 5


@pytest.fixture
def run_file(tmp_path: Path) -> Callable[[str], None]:
    """Run a program from a file, as one that starts processes of its own has to be."""
    import subprocess
    import sys

    def run(text: str) -> None:
        (tmp_path / "program.py").write_text(text)
        done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return run
