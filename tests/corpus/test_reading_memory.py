"""Large files are read a part at a time: how much memory that takes at most, in a process of its own."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

MIB = 1 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the size of a process is read from /proc")


def peak_of(prepare: str, code: str, *arguments: object) -> int:
    """By how many bytes a process grows while the code runs."""
    # Unlike ru_maxrss, it does not begin with the size of the process that started this one.
    peak = "int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    whole = f"import sys\nfrom pathlib import Path\n{prepare}\nbefore = {peak}\n{code}\nprint({peak} - before)"
    words = [sys.executable, "-c", whole, *map(str, arguments)]
    return 1024 * int(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


@pytest.mark.parametrize("group_rows", [pytest.param(1000, marks=pytest.mark.slow), 50_000])
def test_parquet_is_read_a_part_at_a_time(tmp_path: Path, group_rows: int) -> None:
    """Whatever its row groups are: pandas writes a single one, and a file may have tens of gigabytes."""
    noise = np.random.default_rng(0)
    texts = [base64.b64encode(noise.bytes(1500)).decode() for _ in range(500)] * 100
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=group_rows, compression="none", use_dictionary=False)
    assert path.stat().st_size > 95 * MIB
    prepare = (
        "from ladm.corpus.documents.reading import read_documents\n"
        "from ladm.corpus.documents.sources import find_sources\n"
        "from ladm.corpus.documents.whole_files import require_whole\n"
        "(source,) = find_sources(sys.argv[1:])"
    )
    check = "require_whole(source, text_key='text')"
    read = "assert sum(1 for _ in read_documents(source, text_key='text')) == 50_000"
    for code in (check, read):
        assert peak_of(prepare, code, path) < 64 * MIB


def test_the_lengths_of_rows_are_read_without_their_ids(tmp_path: Path) -> None:
    """Of a corpus of terabytes they are a few gigabytes."""
    ids = pa.ListArray.from_arrays(np.arange(10_001, dtype=np.int32) * 4000, np.zeros(40_000_000, dtype=np.int32))
    Dataset(pa.table({"input_ids": ids})).save_to_disk(str(tmp_path / "rows"))
    prepare = "from ladm.corpus.rows.reading import open_rows\nrows = open_rows(sys.argv[1])\nrows.lengths(0, 1)"
    code = "assert set(rows.lengths().tolist()) == {4000}"
    assert peak_of(prepare, code, tmp_path / "rows") < 64 * MIB
