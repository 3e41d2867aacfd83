"""A data set saved by `save_to_disk` as documents -> its shards that are whole, each other one with its reason.

Rows that are scored are read by `data_set.py`, which refuses a data set with a torn shard. Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa

from ladm.corpus.files.data_set import load_split, without_files
from ladm.corpus.files.hub import TRAIN
from ladm.errors import LadmError, StorageError, is_out_of_memory, one_line, reading_problem
from ladm.storage.files import arrow_path
from ladm.storage.json_object import read_json_object

_STATE_FILE = "state.json"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
"""What ends an Arrow stream; one that was cut between two batches reads well without it."""


def torn_shards(name: str, *, split: str | None) -> dict[str, str]:
    """The shards that cannot be read to their end, each with a message; none where the folder lists no shards."""
    problems = {str(shard): _problem(shard) for shard in shards_of(Path(name), split)}
    return {shard: f"cannot read {shard}: {problem}" for shard, problem in problems.items() if problem is not None}


def key_of_shards(name: str, *, split: str | None) -> str:
    """What changes when one of the shards is written again; empty where the folder lists no shards."""
    lines = []
    for shard in shards_of(Path(name), split):
        try:
            stat = shard.stat()
            lines.append(f"{shard.name} {stat.st_size} {stat.st_mtime}")
        except OSError:
            # It is reported, and left out, where it is read.
            lines.append(f"{shard.name} missing")
    return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest() if lines else ""


def load_whole_shards(name: str, *, split: str | None, left_out: Collection[str]) -> Any:
    """The `datasets.Dataset` of a folder without its torn shards and those that are `left_out`.

    Raises StorageError where no shard is left, and as `load_split` for a folder that is no data set.
    """
    torn = torn_shards(name, split=split)
    shards = [str(shard) for shard in shards_of(Path(name), split)]
    whole = [shard for shard in shards if shard not in torn and shard not in left_out]
    if len(whole) == len(shards):
        return load_split(name, split=split)
    if not whole:
        raise StorageError("; ".join(torn.values()) or f"cannot read {name}: its shards are left out")
    import datasets

    return without_files(
        datasets.concatenate_datasets([datasets.Dataset.from_file(arrow_path(shard)) for shard in whole])
    )


def shards_of(folder: Path, split: str | None) -> list[Path]:
    """The files of the data set, or of one of its splits, in their order."""
    if not (folder / _STATE_FILE).is_file():
        folder = folder / (split or TRAIN)
    if not (folder / _STATE_FILE).is_file():
        return []
    try:
        return [folder / each["filename"] for each in read_json_object(folder / _STATE_FILE)["_data_files"]]
    except (LadmError, KeyError, TypeError):
        # `load_split` says what is wrong with it.
        return []


def _problem(shard: Path) -> str | None:
    try:
        # Mapped, not read: the batches are looked up without the pages of their values.
        with pa.memory_map(arrow_path(shard)) as file:
            pa.ipc.open_stream(file).read_all()
            file.seek(max(file.size() - len(_END_OF_STREAM), 0))
            return None if file.read() == _END_OF_STREAM else "it ends before the end of its stream"
    except (OSError, pa.ArrowException) as error:
        # No reason to leave it out.
        if is_out_of_memory(error):
            raise StorageError(f"cannot read {shard}: {reading_problem(error)}") from None
        return one_line(error)
