"""Fixtures: a run of six documents, and one with the results of many."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ladm.corpus.rows.reading import open_rows
from support.files import read_object
from support.rows import topical_rows


@pytest.fixture
def small_run(score_once: Any, save_rows: Any, golden: Any, tmp_path: Path) -> Path:
    """Six documents in two domains, the last without a score."""
    rows = topical_rows(golden, [700, 650, 600, 550, 512, 40])
    for row in rows:
        row["text"] = f"\n\n  {row['text']}\n\nsecond line\nthird\nfourth\nfifth"
        row["source"] = f"corpus/part-{row['index']}.jsonl line 7"
    return Path(score_once(save_rows(rows), output=tmp_path / "run"))


@pytest.fixture
def large_run(small_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """The same run with the results of many documents, whose texts take as much of the page as any can."""

    def make(count: int) -> Path:
        rng = np.random.default_rng(0)
        folder = tmp_path / "large"
        shutil.copytree(small_run, folder)
        content = read_object(folder / "run.json")
        texts = {"input_ids": [[1, 2, 3]] * count, "text": ["<日本" * 200] * count}
        datasets.Dataset.from_dict(texts).save_to_disk(str(tmp_path / "many"))
        content["data"] = open_rows(str(tmp_path / "many")).identity()
        content["about"]["rows"] = str(tmp_path / "many")
        (folder / "run.json").write_text(json.dumps(content))
        metas = [json.dumps({"pile_set_name": f"domain {k}", "title": "<" * 300}) for k in range(60)]
        signals = {f"signal_{k}": rng.normal(size=count) for k in range(30)}
        signals["signal_0"][::7] = np.nan
        table = {
            "rank": np.arange(1, count + 1), "score": np.sort(rng.lognormal(size=count))[::-1],
            "position": np.arange(count)[::-1], "num_tokens": np.full(count, 3), "index": np.arange(count),
            "chunked_index": pa.nulls(count, pa.int64()), "meta": [metas[k] for k in rng.integers(0, 60, count)],
            "id": [f"https://example.org/a/long/address/of/a/document/{k:09d}" for k in range(count)],
            "source": [f"{'<' * 300}/part-7.jsonl line {k}" for k in range(count)],
        }  # fmt: skip
        path = folder / "scores.parquet"
        pq.write_table(pa.table(table | signals), path, write_page_checksum=True, row_group_size=1000)
        return folder

    return make
